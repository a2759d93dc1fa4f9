"""Campaign: kill −9 of the kernel, of a Jupyter server, of both, and of the scheduler, in the middle of runs."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import progress
from benchmarks.soak import cells, census, history
from benchmarks.soak.interrupts import ended_as, state_of, wait_gone, wait_until
from benchmarks.soak.kernel import Patient
from benchmarks.soak.server import running_server

WAYS = ("kernel", "server", "server and kernel", "scheduler")
LOST_WITHIN_S = 60.0
PAUSE_S = 0.05  #: between two steps
EPOCHS = 6  #: of the run whose scheduler is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """One trial."""

    killed: str
    at_s: float  #: after the run was RUNNING
    state: str  #: in which the run was found at last
    lost_s: float | None  #: from the kill of the scheduler until a reader says LOST
    values: int  #: logged values that are on record, and are those that were logged, in their order
    values_expected: int  #: 0 with a killed scheduler: as many as there are
    lines: int
    lines_expected: int
    wrong: int  #: values and lines on record that nobody logged or wrote there
    resumed_at: int | None  #: step at which ``--resume`` went on, after a killed scheduler
    resumed_from: int | None  #: step of the newest checkpoint on record then
    resumed: str  #: state of the run that was resumed
    same_weights: bool | None  #: of that run and an undisturbed one
    left: int  #: processes of the run


def campaign(home: Path, count: int, *, seed: int = 0) -> Iterator[Left]:
    """``count`` trials, every way in turn. Each has kernels of its own; the cluster stays until a scheduler is killed."""
    source = random.Random(seed)
    for number in range(count):
        way, at_s = WAYS[number % len(WAYS)], source.uniform(0.5, 0.7 * cells.TOLD_STEPS * PAUSE_S)
        kill = _scheduler if way == "scheduler" else _front
        trial = kill(home, way, f"left-{number}", at_s)
        progress(f"end {number + 1}/{count}: {trial}")
        yield trial


def _front(home: Path, way: str, name: str, at_s: float) -> Left:
    cell = cells.telling(name=name, pause_s=PAUSE_S)
    with ExitStack() as stack:
        if way == "kernel":
            kernel = stack.enter_context(_opened(home))
            kernel.press(cell)
            victims = [kernel.pid]
        else:
            server = stack.enter_context(running_server(home, home / "server"))
            server.press("%load_ext jupyter_train\nimport time", cell, wait=False)
            victims = [server.pid, *(server.kernels() if way == "server and kernel" else ())]
        _wait_running(home, name)
        time.sleep(at_s)
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        state = ended_as(home, name, 60)
    return _left(home, way, name, at_s, state=state)


@contextmanager
def _opened(home: Path) -> Iterator[Patient]:
    kernel = Patient(home)
    try:
        kernel.run("%load_ext jupyter_train\nimport time")
        yield kernel
    finally:
        kernel.close()


def _wait_running(home: Path, name: str) -> None:
    if not wait_until(lambda: state_of(home, name) == "RUNNING", 60):
        raise RuntimeError(f"run {name} is {state_of(home, name) or 'not there'}")


def _left(
    home: Path,
    way: str,
    name: str,
    at_s: float,
    *,
    state: str,
    lost_s: float | None = None,
    resumed: tuple[int | None, int | None, str, bool] | None = None,
) -> Left:
    from jupyter_train.record import EventKind
    from jupyter_train.store import Store

    store = Store(home)
    run_id = store.find(name)
    left, _ = wait_gone(home, 2.0)
    view, events = store.view(run_id), store.events(run_id)
    values = lines = wrong = 0
    curve_name = "told" if way != "scheduler" else "counted"
    for rank in range(2):
        curve = view.curves.get(curve_name, {}).get(rank)
        logged = [] if curve is None else curve.values.tolist()
        known = cells.told_values(rank) if way != "scheduler" else cells.counted_values(EPOCHS)
        text = "".join(
            str(e.payload.get("text", ""))
            for e in events
            if e.kind is EventKind.LOG and e.rank == rank and e.payload.get("stream") == "stdout"
        )
        printed = text.splitlines()
        values += agreeing(logged, known)
        lines += agreeing(printed, cells.told_lines(rank))
        wrong += (
            len(logged) - agreeing(logged, known) + len(printed) - agreeing(printed, cells.told_lines(rank))
        )
    every = 2 * cells.TOLD_STEPS if way != "scheduler" else 0
    return Left(
        killed=way,
        at_s=at_s,
        state=state,
        lost_s=lost_s,
        values=values,
        values_expected=every,
        lines=lines,
        lines_expected=every,
        wrong=wrong,
        resumed_at=resumed[0] if resumed else None,
        resumed_from=resumed[1] if resumed else None,
        resumed=resumed[2] if resumed else "",
        same_weights=resumed[3] if resumed else None,
        left=left,
    )


def agreeing(found: Sequence[object], known: Sequence[object]) -> int:
    """How many of ``found`` are what is known to stand at their place."""
    return sum(a == b for a, b in zip(found, known, strict=False))


def _scheduler(home: Path, way: str, name: str, at_s: float) -> Left:
    from jupyter_train.store import Store

    folder = home / "seen"
    folder.mkdir(exist_ok=True)

    def cell(called: str, options: str = "") -> str:
        for file in folder.iterdir():
            file.unlink()
        return cells.counted(name=called, folder=str(folder), epochs=EPOCHS, pause_s=PAUSE_S, options=options)

    with _opened(home) as kernel:
        kernel.run(cells.SETUP)
        kernel.run(cell(f"{name}-undisturbed"))
        weights = kernel.run(cells.WEIGHTS)
        kernel.press(cell(name))
        _wait_running(home, name)
        time.sleep(at_s)
        (scheduler,) = (p.pid for p in census.take(home).processes if p.role == "scheduler")
        killed = time.monotonic()
        os.kill(scheduler, signal.SIGKILL)
        wait_until(lambda: state_of(home, name) == "LOST", LOST_WITHIN_S + 30)
        state, lost_s = state_of(home, name), time.monotonic() - killed
    with _opened(home) as kernel:
        kernel.run(cells.SETUP)
        store = Store(home)
        kept = store.view(store.find(name)).checkpoints
        ended = kernel.go(cell(f"{name}-resumed", f"--resume {name}"))
        steps = history.read(folder)
        same = kernel.go(cells.WEIGHTS).text == weights
        found = (
            min((s.step for s in steps), default=1) - 1,
            max((one.step for one in kept), default=None),
            ended_as(home, f"{name}-resumed") if not ended.error else ended.said[-500:],
            same,
        )
    return _left(home, way, name, at_s, state=state, lost_s=lost_s, resumed=found)
