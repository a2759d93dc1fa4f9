from __future__ import annotations

from jupyter_train.control.clock import SteadyClock


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
