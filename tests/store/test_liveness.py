"""Who is silent, and who only seems so."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from jupyter_train.store.liveness import (
    SILENT_AFTER_S,
    ControllerMark,
    is_silent,
    process_start,
    this_boot,
    this_process,
)

HERE = ControllerMark(
    controller="c", version="1", hostname="here", boot="boot-1", pid=10, process_start=500, heartbeat=1000.0
)
LATE = 1000.0 + 10 * SILENT_AFTER_S


@pytest.mark.parametrize(
    ("mark", "now", "start", "silent"),
    [
        pytest.param(HERE, 1001.0, 500, False, id="its process lives"),
        pytest.param(HERE, LATE, 500, False, id="a suspended laptop loses nothing"),
        pytest.param(HERE, 1001.0, None, True, id="its process is gone, however fresh the heartbeat"),
        pytest.param(HERE, 1001.0, 501, True, id="another process has its pid"),
        pytest.param(replace(HERE, boot="boot-0"), 1001.0, 500, False, id="elsewhere with a fresh heartbeat"),
        pytest.param(replace(HERE, boot="boot-0"), LATE, 500, True, id="elsewhere without"),
        pytest.param(replace(HERE, boot=""), LATE, 500, True, id="a system that names no boot"),
        pytest.param(
            replace(HERE, process_start=None), LATE, None, True, id="a system without process starts"
        ),
        pytest.param(replace(HERE, closed=1000.5), 1001.0, 500, True, id="it said that it ended"),
    ],
)
def test_silence(mark: ControllerMark, now: float, start: int | None, silent: bool) -> None:
    assert (
        is_silent(mark, now=now, boot="boot-1", start_of=lambda pid: start if pid == 10 else None) is silent
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_zombie_is_no_living_process() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert process_start(child.pid) is not None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it
        assert process_start(child.pid) is None
    finally:
        child.kill()
        child.communicate()
    assert process_start(child.pid) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_this_process_lives() -> None:
    mark = this_process("c", "1", 0.0)
    assert mark.boot == this_boot() != ""
    assert not is_silent(mark, now=LATE, boot=this_boot(), start_of=process_start)
