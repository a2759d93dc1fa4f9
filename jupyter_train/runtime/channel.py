"""What a rank and its agent say to each other over their socket pair.

Rank → agent, frames: ``u8 kind, u32 length, body``, little endian.
Agent → rank, one byte each: see `Command`. End of file means that the other is gone.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any, Literal

HEAD = struct.Struct("<BI")
_LENGTH = struct.Struct("<I")


class FrameKind(IntEnum):
    """What a frame's body holds."""

    EVENTS = 1  #: packed events, one after the other; may wait for company
    URGENT_EVENTS = 2  #: the same, to be passed on at once
    READY = 3  #: the cell begins; no body
    LEFT = 4  #: the cell has ended, its results are being written; no body
    CAUSE = 5  #: JSON of a `Cause`: the rank's last word
    PROVE = 6  #: rank 0: JSON of an `Order`: somebody should compare; or of a proof: nobody needs to
    WAITS = 8  #: JSON: the rank that is waited for long, ``on``, and in what way it hangs, ``hung``, empty if it does not
    PROOF = 7  #: a shadow: JSON of the payload of what it found


class Command(IntEnum):
    """What an agent tells its rank."""

    STOP = ord("s")  #: set the stop flag


CauseKind = Literal["done", "error", "again", "stopped", "signal", "exit", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a rank's process ended."""

    kind: CauseKind
    signal: int = 0
    code: int = 0
    text: str = ""
    out_of_memory: bool | None = None  #: whether Linux killed it for want of memory; None: not known
    whole: list[dict[str, Any]] = field(
        default_factory=list
    )  #: with "again": what it found, as dicts of `WholeLoop`

    def to_dict(self) -> dict[str, Any]:
        """JSON values; ``whole`` only where there are some."""
        told = asdict(self)
        if not self.whole:
            del told["whole"]
        return told


def frame(kind: FrameKind, body: bytes = b"") -> bytes:
    """The bytes of one frame."""
    return HEAD.pack(kind, len(body)) + body


def cause_frame(cause: Cause) -> bytes:
    """The frame of a rank's last word."""
    return frame(FrameKind.CAUSE, json.dumps(cause.to_dict()).encode())


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[FrameKind, bytes]]:
        """The frames completed by ``data``; kinds of a newer version are left out."""
        self._pending += data
        at = 0
        try:
            while at + HEAD.size <= len(self._pending):
                kind, length = HEAD.unpack_from(self._pending, at)
                end = at + HEAD.size + length
                if end > len(self._pending):
                    break
                body = bytes(self._pending[at + HEAD.size : end])
                at = end
                if kind in FrameKind.__members__.values():
                    yield FrameKind(kind), body
        finally:
            del self._pending[:at]


def split_events(body: bytes) -> list[bytes]:
    """The packed events in ``body``, each by itself, nothing decoded; a half-written last one is left out."""
    events = []
    at = 0
    while at + _LENGTH.size <= len(body):
        end = at + _LENGTH.size + _LENGTH.unpack_from(body, at)[0]
        if end > len(body):
            break
        events.append(body[at:end])
        at = end
    return events
