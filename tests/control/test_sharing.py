"""A cluster shared by several kernels, in simulation: the queue is the real one, runs and workers are counters.
In the last test the controller is real too, and the workers are Dask's.

Steps come in any order: runs of 1 to 4 ranks are handed in, end, lose a worker and come back; workers
join and are lost for good. After every step: no worker has two ranks, no run has a part of its ranks,
and what starving means is checked against what the runs themselves have seen.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.control.placement import Seat
from jupyter_train.control.waitlist import MOST_OVERTAKEN, Queue, Request, joined, plan, spare
from tests.control.conftest import Cluster as RealCluster
from tests.control.conftest import with_cluster

WORKERS = 4


@dataclass
class Cluster:
    """What the dispatcher holds: who waits, and which worker has whose rank."""

    holders: dict[str, str] = field(default_factory=lambda: {f"w{i}": "" for i in range(WORKERS)})
    queue: Queue = ()
    ranks: dict[str, int] = field(default_factory=dict)
    delays: dict[str, int] = field(
        default_factory=dict
    )  #: how often each was overtaken with a possible delay
    made: int = 0

    def submit(self, ranks: int) -> None:
        self._join(f"r{len(self.ranks)}", ranks, has_begun=False)

    def end(self, choice: int) -> None:
        running = sorted(set(self.holders.values()) - {""})
        if running:
            self._release(running[choice % len(running)])

    def lose(self, choice: int, *, comes_back: bool) -> None:
        """A worker is lost; its run, if any, gives up the attempt and waits again."""
        if not self.holders:
            return
        worker = sorted(self.holders)[choice % len(self.holders)]
        run_id = self.holders.pop(worker)
        if comes_back:
            self.join()
        if run_id:
            self._release(run_id)
            self._join(run_id, self.ranks[run_id], has_begun=True)

    def join(self) -> None:
        self.made += 1
        self.holders[f"new{self.made}"] = ""

    def place(self) -> list[str]:
        """One decision, with everything that must hold of it."""
        before = {request.run_id: request for request in self.queue}
        running = set(self.holders.values()) - {""}
        decided = plan(self.queue, self.seats())
        started = [run_id for run_id, _ in decided.placed]
        assert {*started, *(r.run_id for r in decided.queue)} == set(before), "nobody is forgotten"
        for run_id, places in decided.placed:
            assert len(places) == self.ranks[run_id], "all ranks at once"
            for place in places:
                assert self.holders[place.worker] == "", "a worker has one rank"
                self.holders[place.worker] = run_id
        self.queue = decided.queue
        self._check_overtaking(before, started, running)
        self._check_idle()
        return started

    def seats(self) -> list[Seat]:
        return [Seat(worker=w, name=w, host="h", run_id=run_id) for w, run_id in self.holders.items()]

    def _join(self, run_id: str, ranks: int, *, has_begun: bool) -> None:
        self.ranks[run_id] = ranks
        self.delays[run_id] = 0
        self.queue = joined(self.queue, Request(run_id=run_id, ranks=ranks, has_begun=has_begun))

    def _release(self, run_id: str) -> None:
        self.holders = {w: "" if r == run_id else r for w, r in self.holders.items()}

    def _check_overtaking(self, before: dict[str, Request], started: list[str], running: set[str]) -> None:
        order = list(before)
        for waiting in self.queue:
            if waiting.ranks > len(self.holders):
                continue
            passed = [r for r in started if order.index(r) > order.index(waiting.run_id)]
            delayed = waiting.overtaken - before[waiting.run_id].overtaken
            assert delayed <= len(passed)
            self.delays[waiting.run_id] += delayed
            assert self.delays[waiting.run_id] <= MOST_OVERTAKEN, "overtaken too often"
        fitting = [r for r in self.queue if r.ranks <= len(self.holders)]
        if not fitting:
            return
        first = fitting[0]
        passed = [r for r in started if order.index(r) > order.index(first.run_id)]
        if passed and first.overtaken == before[first.run_id].overtaken:
            # None of them counts: then none of them may cost the first anything, whatever ends when.
            sizes = [self.ranks[r] for r in running | (set(started) - set(passed))]
            free = len(self.holders) - sum(sizes)
            assert sum(self.ranks[r] for r in passed) <= spare(first.ranks - free, sizes)

    def _check_idle(self) -> None:
        free = sum(1 for run_id in self.holders.values() if not run_id)
        fitting = [r for r in self.queue if r.ranks <= len(self.holders)]
        if fitting:
            assert free < fitting[0].ranks, "workers are idle while the first in the queue would fit"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 4)),
        st.tuples(st.just("submit"), st.integers(1, 2)),
        st.tuples(st.just("end"), st.integers(0, 3)),
        st.tuples(st.just("replace"), st.integers(0, 5)),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("join"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=120, deadline=None)
def test_every_run_gets_its_workers_whatever_happens_to_the_others(told: list[tuple[str, int]]) -> None:
    cluster = Cluster()
    for what, number in told:
        if what == "submit":
            cluster.submit(number)
        elif what == "end":
            cluster.end(number)
        elif what == "join":
            cluster.join()
        else:
            cluster.lose(number, comes_back=what == "replace")
        cluster.place()
    while len(cluster.holders) < WORKERS:
        cluster.join()
    for _ in range(2 * len(cluster.ranks) + 1):  # no deadlock: when runs end, the others follow
        cluster.place()
        cluster.end(0)
    assert not cluster.queue
    assert not any(cluster.holders.values())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_a_flood_of_small_runs_that_never_end_does_not_keep_the_first_from_its_workers(
    there: list[int], ranks: int, data: st.DataObject
) -> None:
    """Once all have ended that were there before it, it starts, though none of those behind it ever ends."""
    cluster = Cluster()
    for size in there:
        cluster.submit(size)
    cluster.place()
    cluster.submit(ranks)
    first = f"r{len(there)}"
    behind: set[str] = set()
    for _ in range(15):
        cluster.submit(1)
        behind.add(f"r{len(cluster.ranks) - 1}")
        cluster.place()
        old = sorted(set(cluster.holders.values()) - {"", first} - behind)
        if old and data.draw(st.booleans()):
            cluster._release(data.draw(st.sampled_from(old)))
            cluster.place()
    for _ in there:
        for run_id in sorted(set(cluster.holders.values()) - {"", first} - behind):
            cluster._release(run_id)
        cluster.place()
    assert first in cluster.holders.values()


@with_cluster(WORKERS)
async def test_runs_with_retries_all_succeed_though_workers_are_lost_and_replaced(
    cluster: RealCluster,
) -> None:
    chance = random.Random(5)
    runs = [await cluster.submit(chance.randint(1, 4), retries=9) for _ in range(8)]
    dispatcher = cluster.controller._dispatcher
    assert dispatcher is not None
    steps = losses = 0
    while not all(dispatcher.runs[run_id].machine.is_over for run_id in runs):
        holders = {n: dispatcher.holder(worker.address) for n, worker in enumerate(cluster.workers)}
        assert all(
            list(holders.values()).count(r) <= dispatcher.runs[r].spec.ranks for r in holders.values() if r
        )
        held = [
            n
            for n, run_id in holders.items()
            if run_id and str(dispatcher.runs[run_id].machine.state) == "RUNNING"
        ]
        steps += bool(held)
        if held and steps in (2, 4, 6):
            losses += 1
            await cluster.lose_worker(chance.choice(held))
            await cluster.add_worker()
        elif held:
            run_id = holders[chance.choice(held)]
            assert run_id is not None
            attempt = dispatcher.runs[run_id].machine.attempt
            for n in (
                n for n in held if holders[n] == run_id and (run_id, attempt) in cluster.agent(n).ranks
            ):
                cluster.agent(n).exit(run_id, attempt=attempt)
        await asyncio.sleep(0.01)
    assert losses == 3
    for run_id in runs:
        view = await cluster.view(run_id)
        assert view.state == "SUCCEEDED", view.reason
