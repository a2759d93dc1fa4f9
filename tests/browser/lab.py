"""A JupyterLab of its own for a test: own settings, own home, a port that the system chose, a token."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kit import processes

#: Cells out of sight stay in the page, so that a test can look at them without scrolling.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
_FOLDERS = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running server."""

    url: str  #: without the final slash
    token: str
    root: Path  #: the folder that it serves; notebooks go here
    home: Path  #: JUPYTER_TRAIN_HOME of its kernels

    def get(self, path: str) -> bytes:
        """What the server answers to an authenticated request."""
        request = urllib.request.Request(
            f"{self.url}{path}", headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def delete_kernels(self) -> None:
        """Ends every kernel, as its user would do it from the running panel."""
        for kernel in json.loads(self.get("/api/kernels")):
            request = urllib.request.Request(
                f"{self.url}/api/kernels/{kernel['id']}",
                headers={"Authorization": f"token {self.token}"},
                method="DELETE",
            )
            urllib.request.urlopen(request, timeout=20).close()


def _environment(folder: Path, home: Path) -> dict[str, str]:
    settings = {name: str(folder / sub) for name, sub in _FOLDERS.items()}
    return {**os.environ, **settings, processes.HOME: str(home)}


def _write_settings(folder: Path) -> None:
    for name, values in SETTINGS.items():
        package, plugin = name.rsplit("/", 1)
        file = folder / "settings" / package / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))


def _wait_until_up(server: subprocess.Popen[bytes], runtime: Path, log: Path, timeout_s: float) -> str:
    """The server's address, which it writes down once it has a port."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"JupyterLab ended at once:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError, ValueError, KeyError):
            address = str(json.loads((runtime / f"jpserver-{server.pid}.json").read_text())["url"])
            urllib.request.urlopen(f"{address}api", timeout=5).close()
            return address.rstrip("/")
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab was not up within {timeout_s} s:\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def running_lab(folder: Path, home: Path, *, timeout_s: float = 60.0) -> Iterator[Lab]:
    """JupyterLab for the length of a with statement; everything it keeps is under ``folder``."""
    root, log = folder / "root", folder / "server.log"
    root.mkdir(parents=True)
    _write_settings(folder)
    token = secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0",
        f"--ServerApp.root_dir={root}",
        f"--IdentityProvider.token={token}",
        "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None",
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd=root, env=_environment(folder, home), stdout=output, stderr=subprocess.STDOUT
        )
        try:
            url = _wait_until_up(server, folder / "runtime", log, timeout_s)
            lab = Lab(url=url, token=token, root=root, home=home)
            yield lab
            lab.delete_kernels()
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(15)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def stop_everything(lab: Lab) -> None:
    """Ends the kernels and the cluster that the notebook started."""
    from jupyter_train import cluster

    lab.delete_kernels()
    for record in cluster.clusters():
        cluster.stop(record.name)
