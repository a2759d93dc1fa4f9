"""How long one decision about the queue takes on a large cluster. Measure ``placement``."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from benchmarks.report import OURS, Row, row
from jupyter_train.control.placement import Seat
from jupyter_train.control.waitlist import Request, plan

DECISIONS = 2000
WORKERS = 200
WAITING = 50
_PER_HOST = 8


def situation(chance: random.Random) -> tuple[list[Request], list[Seat]]:
    """``WAITING`` runs of 1 to 64 ranks before ``WORKERS`` workers, any part of which is busy."""
    seats: list[Seat] = []
    busy = chance.random()
    run_id = ""
    for number in range(WORKERS):
        if not run_id or chance.random() < 0.25:
            run_id = f"run-{number}"
        seats.append(
            Seat(
                worker=f"tls://10.0.0.{number // _PER_HOST}:{40000 + number}",
                name=str(number),
                host=f"10.0.0.{number // _PER_HOST}",
                has_agent=chance.random() < 0.98,
                is_ready=chance.random() < 0.9,
                run_id=run_id if chance.random() < busy else "",
            )
        )
    chance.shuffle(seats)
    queue = [
        Request(run_id=f"waiting-{number}", ranks=chance.choice((1, 1, 2, 4, 8, 16, 32, 64)))
        for number in range(WAITING)
    ]
    return queue, seats


def measure(decisions: int | None = None) -> Iterator[Row]:
    """``decisions`` of them, each in another situation."""
    chance = random.Random(0)
    took, worked = [], []
    for _ in range(decisions or DECISIONS):
        queue, seats = situation(chance)
        begun, busy = time.perf_counter(), time.thread_time()
        plan(queue, seats)
        took.append(1e3 * (time.perf_counter() - begun))
        worked.append(1e3 * (time.thread_time() - busy))
    yield row("placement", OURS, "decision", "ms", took)
    yield row("placement", OURS, "processor", "ms", worked)  # which other work on the machine leaves alone
    yield row("placement", OURS, "most_processor", "ms", [max(worked)])
