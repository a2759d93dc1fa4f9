"""Frames between a rank and its agent."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.runtime.channel import (
    HEAD,
    Cause,
    FrameKind,
    FrameReader,
    cause_frame,
    frame,
    split_events,
)


@given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 30))
def test_frames_survive_any_cut(bodies: list[bytes], piece: int) -> None:
    stream = b"".join(frame(FrameKind.EVENTS, body) for body in bodies)
    reader = FrameReader()
    read = [body for at in range(0, len(stream), piece) for _, body in reader.feed(stream[at : at + piece])]
    assert read == bodies


def test_frames_of_an_unknown_kind_are_passed_over() -> None:
    stream = HEAD.pack(200, 3) + b"new" + frame(FrameKind.READY)
    assert list(FrameReader().feed(stream)) == [(FrameKind.READY, b"")]


def test_a_cause_comes_back_as_it_was() -> None:
    cause = Cause(kind="signal", signal=9, text="killed")
    ((kind, body),) = FrameReader().feed(cause_frame(cause))
    assert kind is FrameKind.CAUSE
    assert Cause(**json.loads(body)) == cause


def test_a_half_written_event_is_left_out() -> None:
    event = pack_event(Event(run_id="r", time=0.0, kind=EventKind.LOG, payload={"text": "x"}))
    assert split_events(event + event + event[:-1]) == [event, event]
