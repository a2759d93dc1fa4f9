"""What is recorded arrives: numbered, in order, all of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from jupyter_train.record import Event, EventKind, unpack_event
from jupyter_train.runtime.channel import Cause, FrameKind
from jupyter_train.runtime.recorder import MAX_POINTS, Recorder
from jupyter_train.runtime.stopping import StopRun


class MemorySink:
    """Keeps what a recorder writes."""

    def __init__(self) -> None:
        self.seen: list[Event | FrameKind] = []
        self.urgent: list[bool] = []
        self.closed = False

    def events(self, packed: list[bytes], *, urgent: bool) -> None:
        self.seen += map(unpack_event, packed)
        self.urgent += [urgent] * len(packed)

    def word(self, kind: FrameKind, cause: Cause | None = None) -> None:
        self.seen.append(kind)

    def close(self) -> None:
        self.closed = True

    def of(self, kind: EventKind) -> list[Event]:
        return [each for each in self.seen if isinstance(each, Event) and each.kind is kind]

    def column(self, name: str) -> tuple[list[int], list[float]]:
        columns = [
            e.payload["columns"][name] for e in self.of(EventKind.METRICS) if name in e.payload["columns"]
        ]
        return (
            [int(step) for column in columns for step in column["step"]],
            [float(value) for column in columns for value in column["value"]],
        )


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def recorder(sink: MemorySink) -> Iterator[Recorder]:
    recorder = Recorder(sink, run_id="r", attempt=1, rank=2, clock=lambda: 5.0)
    recorder.start()
    yield recorder
    recorder.close()


def test_every_value_arrives_in_order(recorder: Recorder, sink: MemorySink) -> None:
    for step in range(20_000):
        recorder.metric("loss", step / 2, step)
    assert recorder.flush()
    steps, values = sink.column("loss")
    assert steps == list(range(20_000))
    assert values == [step / 2 for step in range(20_000)]


def test_values_of_several_threads_all_arrive(recorder: Recorder, sink: MemorySink) -> None:
    def log(name: str) -> None:
        for step in range(5_000):
            recorder.metric(name, 1.0, step)

    threads = [threading.Thread(target=log, args=(f"m{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.flush()
    assert all(sink.column(f"m{i}")[0] == list(range(5_000)) for i in range(4))


def test_more_values_than_are_kept_make_the_caller_wait_and_are_not_lost(
    recorder: Recorder, sink: MemorySink
) -> None:
    for step in range(MAX_POINTS + 1000):
        recorder.metric("loss", 0.0, step)
    assert recorder.flush()
    assert len(sink.column("loss")[0]) == MAX_POINTS + 1000


def test_events_are_numbered_without_gaps(recorder: Recorder, sink: MemorySink) -> None:
    recorder.log("stdout", "a\n")
    recorder.remark("b")
    recorder.metric("c", 1.0, 0)
    recorder.error({"type": "E"})
    assert recorder.flush()
    events = [each for each in sink.seen if isinstance(each, Event)]
    assert [event.rank_seq for event in events] == [1, 2, 3, 4]
    assert {(event.run_id, event.attempt, event.rank, event.time) for event in events} == {("r", 1, 2, 5.0)}


def test_what_was_recorded_before_a_word_comes_before_it(recorder: Recorder, sink: MemorySink) -> None:
    recorder.metric("loss", 1.0, 0)
    recorder.log("stdout", "no newline")
    recorder.word(FrameKind.CAUSE, Cause(kind="done"))
    assert recorder.flush()
    assert sink.seen[-1] is FrameKind.CAUSE
    assert len(sink.seen) == 3


def test_errors_are_urgent(recorder: Recorder, sink: MemorySink) -> None:
    recorder.error({"type": "E"})
    assert recorder.flush()
    assert sink.urgent == [True]


def test_of_a_bar_only_the_newest_stand_is_kept(sink: MemorySink) -> None:
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    for done in range(100):
        recorder.progress("bar", "epoch", done, 100)
    recorder.start()
    recorder.close()
    (event,) = sink.of(EventKind.LOG)
    assert event.payload == {"stream": "progress", "bar": "bar", "label": "epoch", "done": 99, "total": 100}


def test_closing_writes_what_waits_and_ends_the_thread(sink: MemorySink) -> None:
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    recorder.start()
    recorder.metric("loss", np.nan, 7)
    recorder.close()
    recorder.close()
    steps, values = sink.column("loss")
    assert steps == [7]
    assert np.isnan(values).all()
    assert sink.closed


def test_a_disowned_recorder_keeps_nothing_and_blocks_nobody(sink: MemorySink) -> None:
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    recorder.disown()
    for step in range(MAX_POINTS + 10):
        recorder.metric("loss", 0.0, step)
    recorder.log("stdout", "x")
    assert not recorder.flush()
    assert not sink.seen


def test_a_value_that_is_no_number_is_refused_at_the_call(recorder: Recorder) -> None:
    bad: Any = "high"
    with pytest.raises(TypeError, match="a str"):
        recorder.metric("loss", bad, 0)


def test_what_cannot_be_written_costs_itself_only(recorder: Recorder, sink: MemorySink) -> None:
    recorder.artifact({"name": object()})
    recorder.metric("loss", 1.0, 1)
    recorder.word(FrameKind.CAUSE, Cause(kind="done"))
    recorder.close()
    (remark,) = sink.of(EventKind.LOG)
    assert "artifact could not be recorded" in remark.payload["text"]
    assert sink.column("loss") == ([1], [1.0])
    assert sink.seen[-1] is FrameKind.CAUSE


class SlowSink(MemorySink):
    """Takes nothing until it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def events(self, packed: list[bytes], *, urgent: bool) -> None:
        self.may.wait()
        super().events(packed, urgent=urgent)


def printing(recorder: Recorder, lines: int) -> threading.Thread:
    def write() -> None:
        for number in range(lines):
            recorder.log("stdout", f"{number:>99}\n")

    thread = threading.Thread(target=write, name="printing")
    thread.start()
    return thread


def test_text_that_cannot_be_passed_on_makes_its_writer_wait_and_is_not_lost() -> None:
    sink = SlowSink()
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    recorder.start()
    thread = printing(recorder, 30_000)
    thread.join(0.5)
    assert thread.is_alive()
    sink.may.set()
    thread.join(20)
    recorder.close()
    text = "".join(event.payload["text"] for event in sink.of(EventKind.LOG))
    assert text == "".join(f"{number:>99}\n" for number in range(30_000))


def print_for_ever(recorder: Recorder) -> None:
    while True:
        recorder.log("stdout", "x" * 1000)


def test_a_stop_gets_through_to_a_writer_that_waits() -> None:
    sink = SlowSink()
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    recorder.start()

    def interrupt(number: int, frame: object) -> None:
        raise StopRun

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(StopRun):
            print_for_ever(recorder)
    finally:
        signal.signal(signal.SIGALRM, before)
        sink.may.set()
        recorder.close()


def test_displays_and_clears_stand_between_the_texts(recorder: Recorder, sink: MemorySink) -> None:
    recorder.log("stdout", "before")
    recorder.show({"stream": "display", "data": {"text/plain": "d"}}, 1)
    recorder.show({"stream": "clear", "wait": True}, 1)
    recorder.log("stdout", "after")
    assert recorder.flush()
    assert [event.payload.get("text", event.payload["stream"]) for event in sink.of(EventKind.LOG)] == [
        "before",
        "display",
        "clear",
        "after",
    ]


def test_a_cell_that_takes_our_tools_away_silences_the_recorder_only_so_long() -> None:
    class Crippled(MemorySink):
        is_crippled = True

        def events(self, packed: list[bytes], *, urgent: bool) -> None:
            if self.is_crippled:
                raise TypeError("'NoneType' object is not callable")
            super().events(packed, urgent=urgent)

    sink = Crippled()
    recorder = Recorder(sink, run_id="r", attempt=1, rank=0)
    recorder.start()
    recorder.remark("lost")
    while not recorder.flush(0.05):
        sink.is_crippled = False
    recorder.remark("told")
    recorder.close()
    assert sink.of(EventKind.LOG)[-1].payload["text"] == "told"
    assert sink.closed


def test_a_checkpoint_stands_among_the_metrics_where_it_was_told(sink: MemorySink) -> None:
    recorder = Recorder(sink, run_id="r", attempt=1, rank=2, clock=lambda: 5.0)
    recorder.metric("loss", 1.0, 1)
    recorder.checkpoint({"number": 1})
    recorder.metric("loss", 2.0, 2)
    recorder.start()  # only now, so that all of it is written at once
    recorder.close()
    kinds = [each.kind for each in sink.seen if isinstance(each, Event)]
    assert kinds == [EventKind.METRICS, EventKind.CHECKPOINT, EventKind.METRICS]
    assert sink.column("loss") == ([1, 2], [1.0, 2.0])
