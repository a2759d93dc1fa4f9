"""Running a script under torchrun, as ``!torchrun script.py`` in a notebook does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.kernel import environment


def torchrun(script: Path, home: Path, *arguments: str, ranks: int = 2) -> float:
    """Runs ``script`` on ``ranks`` processes to its end. Returns the unix time just before it was started.

    Raises:
        RuntimeError: it failed; holds the end of what it printed.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"),
        f"--log-dir={home / 'torchelastic'}",  # else a folder in /tmp that stays
        *(str(script), *arguments),
    ]
    loopback = {**environment(home), "GLOO_SOCKET_IFNAME": "lo" if os.uname().sysname == "Linux" else "lo0"}
    started = time.time()
    done = subprocess.run(
        command, env=loopback, cwd=home, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(f"torchrun failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return started
