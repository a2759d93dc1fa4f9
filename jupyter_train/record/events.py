"""One event, and the bytes that carry it everywhere: pipe, Dask comm, journal, web socket.

Bytes of one event, little endian::

    u32 length of all that follows
    u8  version (1)
    u32 length of the head
    head: JSON, UTF-8; an array in the payload stands as {"$a": [dtype, shape, offset, bytes]},
          a float that JSON lacks as {"$f": "nan" | "inf" | "-inf"},
          a key that begins with "$" has one "$" more
    arrays: C order, one after the other

Events are self-delimiting, so that a file or a stream of them needs no index,
and a half-written last one is recognised by its length.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import numpy as np

VERSION = 1
_PREFIX = struct.Struct("<IBI")


class EventKind(StrEnum):
    """What an event tells. Payloads are documented in docs/events.md."""

    STATE = "state"
    METRICS = "metrics"
    USAGE = "usage"
    LOG = "log"
    CHECKPOINT = "checkpoint"
    ARTIFACT = "artifact"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a run.

    ``seq`` is the controller's number within the run, from 1; 0 until it is
    numbered. ``(attempt, rank, rank_seq)`` is the rank's own number, from 1;
    0 where an agent or the controller speaks.
    """

    run_id: str
    seq: int = 0
    attempt: int = 0
    rank: int | None = None
    rank_seq: int = 0
    time: float  #: unix time, seconds
    kind: EventKind
    payload: Mapping[str, Any]  #: JSON values and numpy arrays; never trusted


class _Encoder:
    def __init__(self) -> None:
        self.arrays: list[bytes] = []
        self.size = 0

    def encode(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value)
            if data.dtype.hasobject:
                raise TypeError("an event carries numbers and text, not arrays of objects")
            raw = data.astype(data.dtype.newbyteorder("<"), copy=False).tobytes()
            head = [data.dtype.newbyteorder("<").str, list(value.shape), self.size, len(raw)]
            self.arrays.append(raw)
            self.size += len(raw)
            return {"$a": head}
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            return {"$f": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
        if isinstance(value, Mapping):
            return {_escaped(str(k)): self.encode(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.encode(v) for v in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"an event cannot carry a {type(value).__name__}")


def _escaped(key: str) -> str:
    # Metrics and parameters are named by anybody: a curve called "$a" is no array.
    return "$" + key if key.startswith("$") else key


def _decode(value: Any, arrays: memoryview, *, escaped: bool) -> Any:
    """``value`` as it was before it was packed, in place.

    A run's history is some ten thousand events, read while somebody waits: what needs no decoding costs nothing here.

    Args:
        value: a dict or a list.
        arrays: the bytes behind the head.
        escaped: whether a key may begin with two dollar signs.
    """
    if type(value) is list:
        return [_decode(v, arrays, escaped=escaped) if type(v) in (dict, list) else v for v in value]
    if "$a" in value:
        return _array(value["$a"], arrays)
    if "$f" in value:
        return float(value["$f"])
    for key, item in value.items():
        if type(item) is dict or type(item) is list:
            value[key] = _decode(item, arrays, escaped=escaped)
    return {k[1:] if k.startswith("$") else k: v for k, v in value.items()} if escaped else value


def _array(told: Any, arrays: memoryview) -> np.ndarray[Any, Any]:
    dtype, shape, offset, size = told
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise ValueError("arrays of objects are not part of the format")
    count, odd = divmod(size, kind.itemsize)
    if odd or offset < 0 or size < 0:
        raise ValueError("an array cut short")
    flat = np.frombuffer(arrays, kind, count, offset) if count else np.empty(0, kind)
    return flat if shape == [count] else flat.reshape(shape)


_COLUMNS = ',"payload":{"columns":'
_COLUMNS_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class _Column:
    """Where the two arrays of a metric lie: what its JSON says."""

    step: tuple[np.dtype[Any], int, int]  #: kind, count, offset
    value: tuple[np.dtype[Any], int, int]

    def read(self, arrays: memoryview) -> dict[str, np.ndarray[Any, Any]]:
        return {"step": np.frombuffer(arrays, *self.step), "value": np.frombuffer(arrays, *self.value)}


@lru_cache(maxsize=512)
def _columns_in(rest: str) -> dict[str, _Column] | None:
    """The metrics in ``rest``, the end of an event's head; None where it is not just metrics.

    Most of a run's history are events that tell of as many steps of the same
    metrics as others do: their heads end alike, and JSON is the largest part of reading them.
    """
    try:
        columns = {}
        for name, column in json.loads(rest.removesuffix("}}")).items():
            if column.keys() != {"step", "value"}:
                return None
            columns[name[1:] if name.startswith("$") else name] = _Column(
                _plain_array(column["step"]), _plain_array(column["value"])
            )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return columns


def _plain_array(told: dict[str, Any]) -> tuple[np.dtype[Any], int, int]:
    """Raises ValueError where it is not an array of one axis with something in it."""
    dtype, (count,), offset, size = told["$a"]
    kind = np.dtype(dtype)
    if kind.hasobject or len(told) != 1 or min(count, offset + 1) < 1 or count * kind.itemsize != size:
        raise ValueError("another array")
    return kind, count, offset


def pack_event(event: Event) -> bytes:
    """The bytes of ``event``.

    Raises:
        TypeError: the payload holds something that is neither JSON nor a numpy array of numbers.
    """
    encoder = _Encoder()
    payload = encoder.encode(event.payload)
    head = json.dumps(
        {
            "run_id": event.run_id,
            "seq": event.seq,
            "attempt": event.attempt,
            "rank": event.rank,
            "rank_seq": event.rank_seq,
            "time": event.time,
            "kind": str(event.kind),
            "payload": payload,
        },
        separators=(",", ":"),
        ensure_ascii=False,
    ).encode("utf-8", "backslashreplace")
    length = _PREFIX.size - 4 + len(head) + encoder.size
    return b"".join([_PREFIX.pack(length, VERSION, len(head)), head, *encoder.arrays])


def unpack_event(data: bytes | memoryview) -> Event:
    """The event in ``data``, which holds exactly one.

    Raises:
        ValueError: the bytes are cut short, damaged or of a newer version.
    """
    view = memoryview(data)
    if len(view) < _PREFIX.size:
        raise ValueError("event cut short")
    length, version, head_size = _PREFIX.unpack_from(view)
    if version != VERSION:
        raise ValueError(f"event of version {version}; this jupyter_train reads version {VERSION}")
    if length + 4 != len(view) or _PREFIX.size + head_size > len(view):
        raise ValueError("event cut short")
    try:
        text = str(view[_PREFIX.size : _PREFIX.size + head_size], "utf-8")
        arrays = view[_PREFIX.size + head_size :]
        front, found, rest = text.partition(_COLUMNS)
        columns = _columns_in(rest) if found and len(rest) <= _COLUMNS_CHARACTERS else None
        if columns is not None:
            head = json.loads(front + "}")
            payload: Any = {"columns": {name: column.read(arrays) for name, column in columns.items()}}
        else:
            head = json.loads(text)
            payload = head["payload"]
            if type(payload) is dict:
                payload = _decode(payload, arrays, escaped='"$$' in text)
        event = Event(
            run_id=head["run_id"],
            seq=head["seq"],
            attempt=head["attempt"],
            rank=head["rank"],
            rank_seq=head["rank_seq"],
            time=head["time"],
            kind=EventKind(head["kind"]),
            payload=payload,
        )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"damaged event: {error!r}") from None
    _check(event)
    return event


def _check(event: Event) -> None:
    """Whether the fields have the types that the controller, which reads what ranks send, relies on."""
    numbers = (event.seq, event.attempt, event.rank_seq, 0 if event.rank is None else event.rank)
    if not (
        isinstance(event.run_id, str)
        and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
        and type(event.time) in (int, float)
        and math.isfinite(event.time)
        and isinstance(event.payload, dict)
    ):
        raise ValueError("damaged event: a field is not of its type")


def split_events(data: bytes | memoryview) -> Iterator[memoryview]:
    """The bytes of each event in ``data``, unread; a half-written last one is left out."""
    view = memoryview(data)
    at = 0
    while at + 4 <= len(view):
        (length,) = struct.unpack_from("<I", view, at)
        end = at + 4 + length
        if end > len(view):
            return
        yield view[at:end]
        at = end


def unpack_events(data: bytes | memoryview) -> Iterator[Event]:
    """The events in ``data``, one after the other; a half-written last one is left out.

    Raises:
        ValueError: an event before the last is damaged or of a newer version.
    """
    for piece in split_events(data):
        yield unpack_event(piece)
