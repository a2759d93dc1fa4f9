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
    Moment,
    is_silent,
    process_start,
    this_boot,
    this_moment,
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
    moment = Moment(unix_s=now, boot="m-1", steady_s=0.0)
    start_of = {10: start}.get
    assert is_silent(mark, now=moment, boot="boot-1", start_of=start_of) is silent


@pytest.mark.parametrize("set_by_s", [-86_400.0, -3600.0, 0.0, 3600.0])
@pytest.mark.parametrize(("age_s", "silent"), [(SILENT_AFTER_S - 1, False), (SILENT_AFTER_S + 1, True)])
def test_a_clock_that_was_set_decides_nothing_on_one_machine(
    set_by_s: float, age_s: float, silent: bool
) -> None:
    """From another pid namespace (a container), and for copies: no process can be looked up."""
    mark = replace(HERE, boot="m-1 pid:[2]", beat_boot="m-1", beat_s=500.0)
    now = Moment(unix_s=mark.heartbeat + age_s + set_by_s, boot="m-1", steady_s=500.0 + age_s)
    assert is_silent(mark, now=now, boot="m-1 pid:[1]", start_of={}.get) is silent


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
    mark = this_process("c", "1", this_moment(0.0))
    assert mark.boot == this_boot() != ""
    assert not is_silent(mark, now=this_moment(LATE), boot=this_boot(), start_of=process_start)
