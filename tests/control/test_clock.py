from __future__ import annotations

import asyncio
import time

from jupyter_train.control.clock import SteadyClock
from jupyter_train.record import EventKind
from tests.control.conftest import Cluster, with_cluster
from tests.control.fake_agent import metrics


class Times:
    def __init__(self) -> None:
        self.wall, self.steady = 1000.0, 5.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(wall=lambda: self.wall, steady=lambda: self.steady)


def test_it_tells_the_time_of_the_machine() -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(2.5)
    assert clock.now() == 1002.5
    assert clock.set_back_s == 0


def test_two_readings_are_never_the_same() -> None:
    clock = Times().clock()
    assert clock.now() < clock.now() < clock.now()


def test_a_clock_that_is_set_back_is_not_followed_and_is_noticed() -> None:
    times = Times()
    clock = times.clock()
    times.wall -= 3600
    times.pass_by(10)
    assert clock.now() == 1010
    assert clock.set_back_s == 3600
    times.pass_by(10)
    assert clock.now() == 1020


def test_a_clock_that_is_set_forward_is_followed() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 60
    assert clock.now() == 1060


def test_the_time_goes_on_steadily_after_the_clock_was_set_forward_by_mistake_and_back() -> None:
    times = Times()
    clock = times.clock()
    times.wall += 60
    clock.now()
    times.wall -= 60
    times.pass_by(1)
    assert clock.now() == 1061


@with_cluster(1)
async def test_a_run_that_goes_on_while_the_clock_is_set_back_says_so_once_and_loses_nothing(
    cluster: Cluster,
) -> None:
    run_id = await cluster.submit()
    await cluster.until(run_id, "RUNNING")
    dispatcher = cluster.controller._dispatcher
    assert dispatcher is not None
    dispatcher._clock._wall = lambda: time.time() - 5400
    while not (view := await cluster.view(run_id)).remarks:
        await asyncio.sleep(0.01)
    for _ in range(3):
        dispatcher.look_at_clock()
    cluster.agent(0).send(run_id, metrics(run_id, 1))
    cluster.agent(0).exit(run_id)
    view = await cluster.end(run_id)
    assert [text for text in view.remarks if "was set back by 1 h 30 min" in text] == list(view.remarks)
    assert len(view.curves["loss"][0].steps) == 20
    states = [e.time for e in await cluster.events(run_id) if e.kind is EventKind.STATE]
    assert states == sorted(states)
    assert states[0] > time.time() - 600, "its times are those from before"
