"""The bytes of an event carry every value through, and nothing damaged gets past them."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jupyter_train.record import Event, EventKind, pack_event, split_events, unpack_event, unpack_events
from tests.record.conftest import RUN, Make

# Two lone surrogates that make a pair become the character that they stand for, hence one alphabet without them.
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.just("caf\udce9.csv") | st.just('\\"\udc80\n')
NUMBERS = (
    arrays.boolean_dtypes()
    | arrays.integer_dtypes(endianness="?")
    | arrays.unsigned_integer_dtypes(endianness="?")
    | arrays.floating_dtypes(sizes=(16, 32, 64), endianness="?")
)
ARRAYS = arrays.arrays(NUMBERS, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT | st.sampled_from(["$a", "$f", "$$"]), inner)
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equality in which NaN equals NaN and arrays are compared by value and shape."""
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and isinstance(right, np.ndarray)
            and left.shape == right.shape
            and left.dtype.newbyteorder("=") == right.dtype.newbyteorder("=")
            and np.array_equal(left, right, equal_nan=left.dtype.kind == "f")
        )
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return isinstance(right, float) and math.isnan(right)
    return type(left) is type(right) and bool(left == right)


@settings(deadline=None, max_examples=200)
@given(
    payload=st.dictionaries(TEXT, VALUES, max_size=4),
    seq=st.integers(0, 2**63 - 1),
    rank=st.none() | st.integers(0, 10**6),
    kind=st.sampled_from(EventKind),
)
def test_every_payload_survives_the_way_there_and_back(
    payload: dict[str, Any], seq: int, rank: int | None, kind: EventKind
) -> None:
    event = Event(
        run_id=RUN, seq=seq, attempt=2, rank=rank, rank_seq=7, time=1763825400.25, kind=kind, payload=payload
    )
    back = unpack_event(pack_event(event))
    assert (back.run_id, back.seq, back.attempt, back.rank, back.rank_seq, back.time, back.kind) == (
        (RUN, seq, 2, rank, 7, 1763825400.25, kind)
    )
    assert same(payload, back.payload)


def test_the_head_is_strict_json_so_that_any_language_can_read_it(make: Make) -> None:
    packed = pack_event(
        make("metrics", columns={"loss": {"step": np.arange(2)}}, worst=math.inf, ratio=math.nan)
    )
    (size,) = struct.unpack_from("<I", packed, 5)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    head = json.loads(packed[9 : 9 + size], parse_constant=refuse)
    assert head["payload"]["worst"] == {"$f": "inf"}
    assert head["payload"]["ratio"] == {"$f": "nan"}
    assert head["payload"]["columns"]["loss"]["step"] == {"$a": ["<i8", [2], 0, 16]}


def test_a_metric_may_be_named_like_a_mark_of_the_format(make: Make) -> None:
    columns = {"$a": {"step": [1]}, "$f": {"step": [2]}, "$": {}, "$$a": {}}
    assert unpack_event(pack_event(make("metrics", columns=columns))).payload == {"columns": columns}


@given(
    names=st.lists(TEXT | st.sampled_from(["$a", "loss", '"}}']), min_size=1, max_size=3, unique=True),
    count=st.integers(0, 3),
    more=st.dictionaries(TEXT, st.integers(), max_size=1),
)
def test_metrics_are_read_as_any_payload_however_often_their_form_was_seen(
    names: list[str], count: int, more: dict[str, int]
) -> None:
    for start in (0, 100):
        steps = np.arange(start, start + count)
        columns = {name: {"step": steps, "value": steps / 3} for name in names}
        event = Event(run_id="r", time=1.0, kind=EventKind.METRICS, payload={"columns": columns, **more})
        read = unpack_event(pack_event(event))
        assert same(read.payload, event.payload)


def test_metrics_of_a_known_form_that_are_cut_short_are_refused() -> None:
    steps = np.arange(4)
    payload = {"columns": {"loss": {"step": steps, "value": steps / 3}}}
    packed = pack_event(Event(run_id="r", time=1.0, kind=EventKind.METRICS, payload=payload))
    assert unpack_event(packed).payload["columns"]["loss"]["step"].tolist() == [0, 1, 2, 3]
    short = packed[:-8]
    with pytest.raises(ValueError):
        unpack_event(struct.pack("<I", len(short) - 4) + short[4:])


def test_numpy_scalars_and_tuples_become_plain_values(make: Make) -> None:
    event = make("metrics", a=np.float32(0.5), b=np.int64(3), c=np.bool_(True), d=(1, (2.0, "x")))
    assert unpack_event(pack_event(event)).payload == {"a": 0.5, "b": 3, "c": True, "d": [1, [2.0, "x"]]}


def test_arrays_that_are_not_contiguous_travel_whole(make: Make) -> None:
    table = np.arange(12.0).reshape(3, 4)
    back = unpack_event(
        pack_event(make("metrics", column=table[:, 1], turned=table.T, backwards=table[::-1]))
    )
    np.testing.assert_array_equal(back.payload["column"], [1.0, 5.0, 9.0])
    np.testing.assert_array_equal(back.payload["turned"], table.T)
    np.testing.assert_array_equal(back.payload["backwards"], table[::-1])


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 1j, np.array([object()]), lambda: 0])
def test_what_is_neither_json_nor_an_array_of_numbers_is_refused(make: Make, value: Any) -> None:
    with pytest.raises(TypeError, match="event"):
        pack_event(make("artifact", value=value))


def test_every_half_written_tail_is_left_out(make: Make) -> None:
    whole = [pack_event(make("log", text=f"line {n}", column=np.arange(n))) for n in range(3)]
    data = b"".join(whole)
    for cut in range(len(data) + 1):
        complete = [len(b"".join(whole[:n])) <= cut for n in (1, 2, 3)].count(True)
        texts = [e.payload["text"] for e in unpack_events(data[:cut])]
        assert texts == [f"line {n}" for n in range(complete)]


def test_events_can_be_split_without_being_read(make: Make) -> None:
    whole = [pack_event(make("log", text=text)) for text in ("a", "bb", "")]
    assert [bytes(piece) for piece in split_events(memoryview(b"".join(whole) + b"\x09\x00"))] == whole


def test_an_event_of_a_newer_version_is_refused_by_its_number(make: Make) -> None:
    packed = bytearray(pack_event(make("log", text="x")))
    packed[4] = 2
    with pytest.raises(ValueError, match="version 2; this jupyter_train reads version 1"):
        unpack_event(bytes(packed))


@pytest.mark.parametrize("cut", [0, 3, 8, 9, 20, -1])
def test_a_single_event_that_is_cut_short_is_refused(make: Make, cut: int) -> None:
    with pytest.raises(ValueError):
        unpack_event(pack_event(make("log", text="hello"))[:cut])


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_but_valueerror(data: st.DataObject) -> None:
    packed = bytearray(
        pack_event(
            Event(
                run_id=RUN,
                seq=1,
                time=1.0,
                kind=EventKind.METRICS,
                payload={"columns": {"loss": {"step": np.arange(3), "value": np.zeros(3)}}, "x": math.nan},
            )
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        for event in unpack_events(bytes(packed)):
            assert isinstance(event, Event)
    except ValueError:
        pass


def with_head(**changes: Any) -> bytes:
    """An event whose head is changed as only a rank of ill will would."""
    head = {
        "run_id": RUN,
        "seq": 1,
        "attempt": 1,
        "rank": 0,
        "rank_seq": 1,
        "time": 1.0,
        "kind": "log",
        "payload": {},
    }
    raw = json.dumps(head | changes).encode()
    return struct.pack("<IBI", 5 + len(raw), 1, len(raw)) + raw


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": 5},
        {"seq": "1"},
        {"seq": -1},
        {"seq": 2**70},
        {"attempt": None},
        {"rank": [0]},
        {"rank": True},
        {"rank_seq": 1.5},
        {"time": "now"},
        {"time": math.nan},
        {"kind": "unheard-of"},
        {"kind": ["log"]},
        {"payload": [1]},
        {"payload": {"x": {"$a": ["O", [1], 0, 8]}}},
        {"payload": {"x": {"$a": ["<f8", [1], 0, 8]}}},
        {"payload": {"x": {"$a": ["rubbish", [1], 0, 8]}}},
        {"payload": {"x": {"$a": 1}}},
        {"payload": {"x": {"$f": []}}},
    ],
)
def test_a_field_of_another_type_is_refused_where_bytes_come_in(changes: dict[str, Any]) -> None:
    assert unpack_event(with_head()).seq == 1
    with pytest.raises(ValueError):
        unpack_event(with_head(**changes))


def test_nesting_without_end_is_refused() -> None:
    raw = b'{"run_id":' + b"[" * 200_000
    with pytest.raises(ValueError, match="damaged"):
        unpack_event(struct.pack("<IBI", 5 + len(raw), 1, len(raw)) + raw)
