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


def _decode(value: Any, arrays: memoryview) -> Any:
    if isinstance(value, dict):
        if "$a" in value:
            dtype, shape, offset, size = value["$a"]
            kind = np.dtype(dtype)
            if kind.hasobject:
                raise ValueError("arrays of objects are not part of the format")
            return np.frombuffer(arrays[offset : offset + size], kind).reshape(shape)
        if "$f" in value:
            return float(value["$f"])
        return {k[1:] if k.startswith("$") else k: _decode(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_decode(v, arrays) for v in value]
    return value


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
        head = json.loads(bytes(view[_PREFIX.size : _PREFIX.size + head_size]))
        event = Event(
            run_id=head["run_id"],
            seq=head["seq"],
            attempt=head["attempt"],
            rank=head["rank"],
            rank_seq=head["rank_seq"],
            time=head["time"],
            kind=EventKind(head["kind"]),
            payload=_decode(head["payload"], view[_PREFIX.size + head_size :]),
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
