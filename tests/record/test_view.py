"""The fold from events to a view: pure, the same in pieces, deaf to repetitions."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyter_train.record import (
    Curve,
    Event,
    EventKind,
    Progress,
    RunSpec,
    RunState,
    RunView,
    WholeLoop,
    fold,
)
from jupyter_train.record.folding import LOG_LINES_KEPT, USAGE_READINGS_KEPT
from tests.record.conftest import RUN, Make

S = RunState


def shown(view: RunView) -> Any:
    """All that a view holds, in a form that can be compared."""
    curves = {
        name: {rank: (c.steps.tolist(), [repr(v) for v in c.values.tolist()]) for rank, c in ranks.items()}
        for name, ranks in view.curves.items()
    }
    rest = {f: getattr(view, f) for f in view.__dataclass_fields__ if f != "curves"}
    return curves, rest


RESUME = {"run_id": RUN, "attempt": 1, "number": 1, "step": 10, "files": ["checkpoint-1-1.pt"]}
STEPS = st.lists(st.tuples(st.integers(0, 1000), st.floats()), max_size=5)
PAYLOADS = st.one_of(
    st.tuples(
        st.just(EventKind.METRICS),
        st.dictionaries(st.sampled_from(["loss", "lr"]), STEPS).map(
            lambda columns: {
                "columns": {
                    name: {
                        "step": np.array([s for s, _ in points], np.int64),
                        "value": np.array([v for _, v in points], np.float64),
                    }
                    for name, points in columns.items()
                }
            }
        ),
    ),
    st.tuples(
        st.just(EventKind.STATE),
        st.sampled_from([s for s in S if s is not S.LOST]).map(
            lambda s: {"state": str(s), "reason": f"why {s}", "placement": [{}], "resume": RESUME}
        ),
    ),
    st.tuples(
        st.just(EventKind.LOG),
        st.sampled_from(
            [
                {"stream": "stdout", "text": "a\n"},
                {"stream": "remark", "text": "look"},
                {"stream": "progress", "bar": "1", "label": "epoch", "done": 3, "total": None},
            ]
        ),
    ),
    st.tuples(st.just(EventKind.USAGE), st.just({"cpu_cores": 1.5, "memory_bytes": 7, "worker": "w"})),
    st.tuples(st.just(EventKind.ERROR), st.just({"type": "ValueError", "message": "no"})),
    st.tuples(st.just(EventKind.ARTIFACT), st.just({"name": "result", "file": "result-1.bin"})),
    st.tuples(
        st.just(EventKind.CHECKPOINT),
        st.builds(
            lambda number, dropped: {
                "number": number,
                "step": 10 * number,
                "file": f"checkpoint-1-{number}.pt",
                "dropped": dropped,
            },
            st.integers(0, 3),
            st.booleans(),
        ),
    ),
    st.tuples(
        st.sampled_from(EventKind), st.sampled_from([{}, {"columns": 5}, {"state": "?"}, {"text": None}])
    ),
)
EVENTS = st.lists(st.tuples(PAYLOADS, st.sampled_from([None, 0, 1])), min_size=1, max_size=30).map(
    lambda items: [
        Event(run_id=RUN, seq=n, attempt=1, rank=rank, time=float(n), kind=kind, payload=payload)
        for n, ((kind, payload), rank) in enumerate(items, 1)
    ]
)


@settings(deadline=None, max_examples=150)
@given(events=EVENTS, cuts=st.lists(st.integers(0, 30), max_size=4))
def test_folding_in_pieces_is_folding_whole(events: list[Event], cuts: list[int]) -> None:
    view = RunView(run_id=RUN)
    edges = [0, *sorted(cuts), len(events)]
    for start, end in itertools.pairwise(edges):
        view = fold(events[start:end], view)
    assert shown(view) == shown(fold(events))


@settings(deadline=None, max_examples=100)
@given(events=EVENTS, data=st.data())
def test_events_that_come_again_change_nothing(events: list[Event], data: st.DataObject) -> None:
    whole = fold(events)
    start = data.draw(st.integers(0, len(events) - 1))
    again = fold(events[start:], whole)
    assert again is whole
    assert shown(fold([e for e in events for _ in (1, 2)])) == shown(whole)


@settings(deadline=None, max_examples=50)
@given(events=EVENTS)
def test_folding_leaves_the_old_view_and_the_events_alone(events: list[Event]) -> None:
    half = fold(events[: len(events) // 2], RunView(run_id=RUN))
    before = copy.deepcopy(shown(half))
    fold(events, half)
    assert shown(half) == before


def test_no_events_and_no_view_is_an_error() -> None:
    with pytest.raises(ValueError, match="no events"):
        fold([])
    assert fold([], RunView(run_id=RUN)) == RunView(run_id=RUN)


def test_events_of_another_run_are_not_this_run(make: Make) -> None:
    view = fold([make("log", text="mine", seq=1), make("log", text="not mine", seq=2, run_id="other")])
    assert [line.text for line in view.log] == ["mine"]
    assert view.seq == 1


def test_a_run_from_start_to_end(make: Make) -> None:
    spec = RunSpec(run_id=RUN, name="digits", source="", ranks=2)
    placement = [{"rank": 0, "local_rank": 0, "worker": "w", "host": "h"}]
    states: list[dict[str, Any]] = [
        {"state": "PENDING", "spec": spec.to_dict(for_journal=True), "attempt": 0},
        {"state": "PENDING", "queue_place": 1, "attempt": 0},
        {"state": "STARTING", "placement": placement},
        {"state": "RUNNING"},
        {"state": "FAILED", "reason": "ValueError: no"},
    ]
    events = [make("state", seq=n, time=float(n), rank=None, **p) for n, p in enumerate(states, 1)]
    views = [fold(events[:n]) for n in range(1, 6)]
    assert [v.state for v in views] == [S.PENDING, S.PENDING, S.STARTING, S.RUNNING, S.FAILED]
    end = views[-1]
    assert end.spec == spec
    assert end.placement == tuple(placement)
    assert end.changes == ((1.0, S.PENDING), (3.0, S.STARTING), (4.0, S.RUNNING), (5.0, S.FAILED))
    assert (end.started, end.running_since, end.ended) == (1.0, 4.0, 5.0)
    assert end.reason == "ValueError: no"
    assert views[3].ended is None
    assert views[3].reason == ""


def test_a_move_that_is_not_legal_is_passed_over(make: Make) -> None:
    states = ["RUNNING", "PENDING", "SUCCEEDED", "STARTING", "LOST", "RUNNING", "SUCCEEDED", "FAILED"]
    view = fold([make("state", seq=n, state=s) for n, s in enumerate(states, 1)])
    assert view.state is S.SUCCEEDED
    assert [s for _, s in view.changes] == [S.PENDING, S.STARTING, S.RUNNING, S.SUCCEEDED]


def test_late_logs_still_come_in_after_the_end(make: Make) -> None:
    states = ["PENDING", "STARTING", "RUNNING", "SUCCEEDED"]
    events = [make("state", seq=n, state=s) for n, s in enumerate(states, 1)]
    view = fold([*events, make("log", seq=5, stream="stdout", text="bye")])
    assert view.state is S.SUCCEEDED
    assert view.log[-1].text == "bye"


def test_nan_and_infinity_are_points_like_others(make: Make) -> None:
    column = {"step": np.arange(3), "value": np.array([1.0, np.nan, np.inf])}
    curve = fold([make("metrics", columns={"loss": column}, seq=1)]).curves["loss"][0]
    assert curve.steps.tolist() == [0, 1, 2]
    assert math.isnan(curve.values[1])
    assert curve.last == (2, math.inf)


def test_each_rank_has_its_curve_and_its_bars(make: Make) -> None:
    events = []
    for rank in (0, 1):
        columns = {"loss": {"step": np.array([5]), "value": np.array([rank + 0.5])}}
        events += [make("metrics", rank=rank, columns=columns)]
        events += [make("log", rank=rank, stream="progress", bar="b", label="x", done=rank, total=9)]
    view = fold(events)
    assert {rank: c.last for rank, c in view.curves["loss"].items()} == {0: (5, 0.5), 1: (5, 1.5)}
    assert view.progress[1, "b"] == Progress(label="x", done=1, total=9)
    assert not view.log


def test_a_new_attempt_forgets_the_bars_of_the_last(make: Make) -> None:
    first = [make("state", seq=n, state=s) for n, s in enumerate(["PENDING", "STARTING", "RUNNING"], 1)]
    bar = make("log", seq=4, stream="progress", bar="b", done=1)
    retried = make("state", seq=5, state="RETRYING", attempt=2)
    assert fold([*first, bar]).progress
    assert not fold([*first, bar, retried]).progress


def test_many_small_chunks_make_one_curve_in_order(make: Make) -> None:
    events = [
        make("metrics", seq=n, columns={"loss": {"step": np.array([n]), "value": np.array([n / 2])}})
        for n in range(1, 1001)
    ]
    curve = fold(events).curves["loss"][0]
    assert curve.steps.tolist() == list(range(1, 1001))
    assert curve.values[-1] == 500.0
    assert len(curve.chunks) < 80


def test_an_empty_column_does_not_hide_the_last_point() -> None:
    curve = Curve().extended(np.array([1]), np.array([2.0])).extended(np.array([], np.int64), np.array([]))
    assert curve.last == (1, 2.0)
    assert Curve().last is None
    assert Curve().steps.shape == Curve().values.shape == (0,)


def test_a_column_of_unequal_lengths_is_passed_over(make: Make) -> None:
    good = make("metrics", seq=1, columns={"loss": {"step": [1], "value": [1.0]}})
    bad = make("metrics", seq=2, columns={"loss": {"step": [1, 2], "value": [1.0]}})
    view = fold([good, bad])
    assert view.seq == 2
    assert view.curves["loss"][0].last == (1, 1.0)


def test_remarks_are_told_once_but_logged_each_time(make: Make) -> None:
    view = fold([make("log", seq=n, stream="remark", text="not sharded") for n in (1, 2)])
    assert view.remarks == ("not sharded",)
    assert len(view.log) == 2


def test_the_log_keeps_its_newest_lines(make: Make) -> None:
    view = fold([make("log", seq=n, stream="stdout", text=str(n)) for n in range(1, LOG_LINES_KEPT + 11)])
    assert len(view.log) == LOG_LINES_KEPT
    assert view.log[-1].text == str(LOG_LINES_KEPT + 10)


def test_usage_of_a_long_run_is_thinned_over_its_whole_length(make: Make) -> None:
    count = 5 * USAGE_READINGS_KEPT
    view = fold(
        [make("usage", seq=n, time=float(n), cpu_cores=1.0, memory_bytes=n) for n in range(1, count + 1)]
    )
    times = [reading.time for reading in view.usage[0]]
    assert USAGE_READINGS_KEPT // 4 <= len(times) <= USAGE_READINGS_KEPT
    assert times == sorted(times)
    assert times[-1] == count
    assert times[0] == 1.0
    assert max(np.diff(times)) < 4 * count / USAGE_READINGS_KEPT


def test_errors_are_kept_per_rank_and_one_of_no_rank(make: Make) -> None:
    view = fold(
        [make("error", rank=1, seq=1, type="ValueError"), make("error", rank=None, seq=2, type="RankLost")]
    )
    assert view.errors == {1: {"type": "ValueError"}, -1: {"type": "RankLost"}}


@pytest.mark.parametrize("kind", list(EventKind))
@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"state": "WHAT"},
        {"state": None},
        {"state": "PENDING", "spec": {"name": 1}},
        {"columns": []},
        {"columns": {"x": None}},
        {"columns": {"x": {"step": ["a"], "value": [1]}}},
        {"cpu_cores": "many"},
        {"memory_bytes": math.inf},
        {"stream": "progress"},
        {"stream": "progress", "bar": 1, "done": None},
        {"name": []},
    ],
)
def test_a_payload_that_is_not_as_documented_never_hides_the_run(
    make: Make, kind: EventKind, payload: dict[str, Any]
) -> None:
    odd = Event(run_id=RUN, seq=1, time=1.0, kind=kind, payload=payload)
    view = fold([odd, make("log", seq=2, stream="stdout", text="still here")])
    assert view.log[-1].text == "still here"
    assert view.seq == 2


def test_a_bar_that_is_gone_is_not_shown_any_more() -> None:
    def bar(seq: int, **more: object) -> Event:
        payload = {"stream": "progress", "bar": "b", "label": "epoch", "done": 1, "total": 2, **more}
        return Event(run_id="r", seq=seq, rank=0, time=0.0, kind=EventKind.LOG, payload=payload)

    view = fold([bar(1, note="3 it/s")])
    assert view.progress[0, "b"].note == "3 it/s"
    assert fold([bar(2, gone=True)], view).progress == {}


def test_a_display_is_its_plain_text_in_the_log() -> None:
    def log(seq: int, **payload: object) -> Event:
        return Event(run_id="r", seq=seq, rank=0, time=0.0, kind=EventKind.LOG, payload=payload)

    view = fold(
        [
            log(1, stream="display", data={"text/plain": "<Figure>", "image/png": "x"}),
            log(2, stream="clear", wait=True),
            log(3, stream="display", data={"text/plain": "<Figure>"}, update=True),
            log(4, stream="display", data="damaged"),
        ]
    )
    assert [line.text for line in view.log] == ["<Figure>\n"]


def test_of_an_attempt_that_was_given_up_only_log_and_usage_stay(make: Make) -> None:
    curve = {"loss": {"step": np.array([1]), "value": np.array([2.0])}}
    loop = {"file": "", "line": 4, "why": "line 6: the loss compares samples"}

    def told(seq: int, attempt: int, rank: int | None = 0) -> list[Event]:
        return [
            make("metrics", seq=seq, attempt=attempt, rank=rank, columns=curve),
            make("error", seq=seq + 1, attempt=attempt, rank=rank, type="PeerLost"),
            make("log", seq=seq + 2, attempt=attempt, rank=rank, stream="remark", text=f"said by {attempt}"),
            make(
                "log", seq=seq + 3, attempt=attempt, rank=rank, stream="stdout", text=f"printed by {attempt}"
            ),
            make("artifact", seq=seq + 4, attempt=attempt, rank=rank, name=f"result-{attempt}"),
            make("usage", seq=seq + 5, attempt=attempt, rank=rank, cpu_cores=1.0),
        ]

    states = ["PENDING", "STARTING", "RUNNING"]
    events = [make("state", seq=n, attempt=1, rank=None, state=s) for n, s in enumerate(states, 1)]
    events += [make("log", seq=4, attempt=1, rank=None, stream="remark", text="the disk is full")]
    events += told(5, 1)
    events += [make("state", seq=11, attempt=1, rank=None, state="RETRYING", reason="why", whole=[loop, 5])]
    view = fold(events)
    assert (view.curves, view.errors, view.artifacts) == ({}, {}, {})
    assert view.remarks == ("the disk is full",), "the controller's remarks are the run's"
    assert view.whole == (WholeLoop(line=4, why=loop["why"]),)
    assert len(view.usage[0]) == 1
    events += [make("state", seq=12, attempt=2, rank=None, state="STARTING")]
    events += told(13, 2)
    events += told(19, 1)  # late news, through the file of a lost worker
    view = fold(events)
    assert len(view.curves["loss"][0].steps) == 1
    assert view.remarks == ("the disk is full", "said by 2")
    assert view.artifacts.keys() == {"result-2"}
    assert [line.attempt for line in view.log if line.stream == "stdout"] == [1, 2, 1]


# An attempt that goes on from a checkpoint


def part(rank: int, number: int, attempt: int = 1, *, dropped: bool = False) -> dict[str, Any]:
    own = f".{rank}" if rank else ""
    return {
        "number": number,
        "step": 10 * number,
        "epoch": number,
        "file": f"checkpoint-{attempt}-{number}{own}.pt",
        "size_bytes": 5 + rank,
        "worker": f"w{rank}",
        "dropped": dropped,
        **({"names": ["model"], "metric": {"loss": 0.5}} if rank == 0 else {}),
    }


class Story:
    """Events of a run of two ranks, numbered as they come."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.events: list[Event] = []
        self("state", None, state="PENDING", spec=SPEC)
        self("state", None, state="STARTING")
        self("state", None, state="RUNNING")

    def __call__(self, kind: str, rank: int | None = 0, attempt: int = 1, **payload: Any) -> None:
        seq = len(self.events) + 1
        self.events.append(self.make(kind, seq=seq, time=float(seq), rank=rank, attempt=attempt, **payload))

    def logs(self, rank: int, *steps: int, attempt: int = 1, name: str = "loss") -> None:
        column = {"step": np.array(steps), "value": np.array(steps) / 2}
        self("metrics", rank, attempt, columns={name: column})

    @property
    def view(self) -> RunView:
        return fold(self.events)

    def steps(self, rank: int, name: str = "loss") -> list[int]:
        return list(self.view.curves[name][rank].steps.tolist())


SPEC = RunSpec(run_id=RUN, name="digits", source="", ranks=2).to_dict(for_journal=True)


def point(number: int, attempt: int = 1, run_id: str = RUN) -> dict[str, Any]:
    files = [f"checkpoint-{attempt}-{number}.pt", f"checkpoint-{attempt}-{number}.1.pt"]
    return {"run_id": run_id, "attempt": attempt, "number": number, "step": 10 * number, "files": files}


def test_a_checkpoint_counts_once_every_rank_has_told_its_part(make: Make) -> None:
    story = Story(make)
    story("checkpoint", 1, **part(1, 1))
    assert story.view.checkpoints == ()
    story("checkpoint", 0, **part(0, 1))
    (one,) = story.view.checkpoints
    assert (one.attempt, one.number, one.step, one.epoch, one.time) == (1, 1, 10, 1, 5.0)
    assert one.files == ("checkpoint-1-1.pt", "checkpoint-1-1.1.pt")
    assert one.workers == ("w0", "w1")
    assert (one.size_bytes, one.names, one.metric) == (11, ("model",), {"loss": 0.5})
    assert one.resume_point(RUN).step == 10
    story("checkpoint", 0, **part(0, 2))
    story("checkpoint", 1, **part(1, 1, dropped=True))
    assert story.view.checkpoints == (), "of the second only a part is there, of the first not all any more"


def test_curves_are_cut_back_to_what_each_rank_had_told_before_its_part(make: Make) -> None:
    story = Story(make)
    story.logs(0, 1, 2)
    story.logs(1, 1)
    story("checkpoint", 0, **part(0, 1))
    story.logs(0, 3)
    story.logs(0, 3, name="val")
    story.logs(1, 2)
    story("checkpoint", 1, **part(1, 1))
    story.logs(1, 3)
    story("error", 0, type="PeerLost")
    story("artifact", 0, name="result")
    story("log", 0, stream="progress", bar="b", done=3)
    story("log", 1, stream="remark", text="said by rank 1")
    story("state", None, state="RETRYING", reason="rank 1 was killed", resume=point(1))
    view = story.view
    assert story.steps(0) == [1, 2]
    assert story.steps(1) == [1, 2]
    assert "val" not in view.curves
    assert (view.errors, view.artifacts, view.progress) == ({}, {}, {})
    assert view.remarks == ("said by rank 1",), "what was said of the part that counts still holds"
    assert view.resume is not None
    assert view.resume.step == 10
    assert [(p.attempt, p.reason, p.resume is not None) for p in view.past] == [
        (1, "rank 1 was killed", True)
    ]
    story.logs(0, 4)  # late, of the attempt that is given up
    story("checkpoint", 0, **part(0, 2))
    story("state", None, 2, state="STARTING")
    story.logs(0, 3, attempt=2)
    assert story.steps(0) == [1, 2, 3]
    assert [one.number for one in story.view.checkpoints] == [1]


def test_what_was_told_while_a_checkpoint_was_written_is_not_of_it(make: Make) -> None:
    story = Story(make)
    for rank in (0, 1):
        story.logs(rank, 1)
        story("checkpoint", rank, number=1, begun=True)
        story.logs(rank, 2)
    assert story.view.checkpoints == ()
    story("checkpoint", 0, **part(0, 1))
    story.logs(0, 3)
    story("checkpoint", 1, **part(1, 1))
    story("checkpoint", 0, number=2, begun=True)  # left out: the disk was too slow
    story("checkpoint", 0, **part(0, 3))
    assert (1, 2) not in story.view.marks
    story("state", None, state="RETRYING", resume=point(1))
    assert story.steps(0) == story.steps(1) == [1]


def test_a_later_attempt_may_go_on_from_an_earlier_ones_checkpoint(make: Make) -> None:
    story = Story(make)
    for number in (1, 2):
        story.logs(0, number)
        story("checkpoint", 0, **part(0, number))
        story("checkpoint", 1, **part(1, number))
    story("state", None, state="RETRYING", resume=point(2))
    story("state", None, 2, state="STARTING")
    story.logs(0, 3, attempt=2)
    story("state", None, 2, state="RETRYING", resume=point(1))
    assert story.steps(0) == [1]
    story("state", None, 3, state="STARTING")
    story("state", None, 3, state="RETRYING")
    view = story.view
    assert view.curves == {}, "from the start"
    assert view.checkpoints == ()
    assert view.resume is None
    assert [p.attempt for p in view.past] == [1, 2, 3]


def test_a_run_that_begins_again_from_another_ones_checkpoint_has_curves_of_its_own(make: Make) -> None:
    story = Story(make)
    story.logs(0, 1)
    story("checkpoint", 0, **part(0, 1))
    story("checkpoint", 1, **part(1, 1))
    story("state", None, state="RETRYING", resume=point(1, run_id="20261122-153000-ffffff"))
    assert story.view.curves == {}
    assert story.view.resume is not None


def test_a_run_that_waits_for_its_next_attempt_says_for_what(make: Make) -> None:
    story = Story(make)
    story.logs(0, 1)
    story("state", None, state="RETRYING", reason="why", resume=None)
    story("state", None, state="RETRYING", reason="why; needs 2 workers, 1 of 2 free", queue_place=1)
    view = story.view
    assert (view.reason, view.queue_place) == ("why; needs 2 workers, 1 of 2 free", 1)
    assert len(view.past) == 1
    assert [s for _, s in view.changes][-2:] == [S.RUNNING, S.RETRYING]
    story("state", None, 2, state="STARTING")
    assert story.view.queue_place == 0


def test_what_a_rank_runs_on_is_the_newest_that_it_told_and_no_text(make: Make) -> None:
    told = {"stream": "machine", "hostname": "a", "cpu": "Z80", "versions": {"torch": "2.13"}}
    view = fold(
        [
            make("log", **told, rank=1),
            make("log", **{**told, "hostname": "b"}, rank=0),
            make("log", **{**told, "hostname": "c"}, rank=1, attempt=2),
        ]
    )
    assert {rank: machine["hostname"] for rank, machine in view.machines.items()} == {0: "b", 1: "c"}
    assert view.log == ()
