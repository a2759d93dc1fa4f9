"""Events for the tests of this folder, in one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jupyter_train.record import Event, EventKind

RUN = "20261122-153000-ab12cd"
Make = Callable[..., Event]


@pytest.fixture
def make() -> Make:
    """``make("log", text="x", seq=3)``: an event; what is no field of Event is payload."""

    def event(kind: str, **given: Any) -> Event:
        own = {"run_id": RUN, "time": 1.5, "seq": 0, "attempt": 1, "rank": 0, "rank_seq": 0}
        fields = {name: given.pop(name, value) for name, value in own.items()}
        return Event(kind=EventKind(kind), payload=given, **fields)

    return event
