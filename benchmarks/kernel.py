"""A real IPython kernel with jupyter_train loaded, in a home of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HOME = "JUPYTER_TRAIN_HOME"


def environment(home: Path) -> dict[str, str]:
    """For a kernel or a peer: this folder's modules can be imported, and ``home`` marks every process of it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # A first run has a process more, which is not what is measured but by ``check``.
    return {**os.environ, HOME: str(home), "PYTHONPATH": path, "DASK_JUPYTER_TRAIN__CHECK": "False"}


class Kernel:
    """One kernel; ``press`` sends a cell as a front end does, ``run`` waits for its end too."""

    def __init__(self, home: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        from jupyter_client.manager import KernelManager

        self.home = home
        self._manager: Any = KernelManager(kernel_name="python3")
        # ipykernel warns that it listens on loopback without encryption, as every kernel does.
        quiet = ["--log-level=ERROR"]
        self._manager.start_kernel(
            env={**environment(home), **settings}, cwd=str(home), extra_arguments=quiet
        )
        self._client: Any = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=60)

    def press(self, code: str) -> tuple[str, float]:
        """Sends ``execute_request``. Returns its id and the unix time just before it was sent."""
        pressed = time.time()
        return str(self._client.execute(code, store_history=False)), pressed

    def finish(self, message: str, *, timeout_s: float = 300.0) -> str:
        """Waits for the end of a cell; returns what it printed.

        Raises:
            RuntimeError: the cell failed, or did not end in time.
        """
        printed: list[str] = []
        failure = ""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                received = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if received["parent_header"].get("msg_id") != message:
                continue
            content, kind = received["content"], received["msg_type"]
            if kind == "stream":
                printed.append(content["text"])
            elif kind == "error":
                failure = "\n".join(content["traceback"])
            elif kind == "status" and content["execution_state"] == "idle":
                self._client.get_shell_msg(timeout=10)
                if failure:
                    raise RuntimeError(f"a cell failed:\n{failure}")
                return "".join(printed)
        raise RuntimeError(f"a cell did not end within {timeout_s} s")

    def shown(
        self, message: str, wanted: Callable[[dict[str, Any]], bool], *, timeout_s: float = 60.0
    ) -> float:
        """The unix time at which a cell showed something that is ``wanted``, also after its end.

        Raises:
            RuntimeError: it failed, or did not in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                received = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            content, kind = received["content"], received["msg_type"]
            if received["parent_header"].get("msg_id") != message:
                continue
            if kind == "error":
                raise RuntimeError("a cell failed:\n" + "\n".join(content["traceback"]))
            if kind in ("display_data", "update_display_data") and wanted(content["data"]):
                return time.time()
        raise RuntimeError(f"a cell did not show within {timeout_s} s what it should")

    def run(self, code: str) -> str:
        """Runs a cell to its end; returns what it printed."""
        return self.finish(self.press(code)[0])

    def close(self) -> None:
        """Ends the kernel; its cluster lives on."""
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


@contextlib.contextmanager
def training_kernel() -> Iterator[Kernel]:
    """A kernel with the extension loaded; afterwards its cluster and its home are gone, whatever happened."""
    home = Path(tempfile.mkdtemp(prefix="jt-bench-"))
    kernel = Kernel(home)
    try:
        kernel.run("%load_ext jupyter_train")
        yield kernel
    finally:
        kernel.close()
        stop_clusters(home)
        shutil.rmtree(home, ignore_errors=True)


def stop_clusters(home: Path) -> None:
    """Ends what was started for ``home``; returns when the processes are gone."""
    from jupyter_train import cluster

    os.environ[HOME] = str(home)
    for record in cluster.clusters():
        cluster.stop(record.name)
