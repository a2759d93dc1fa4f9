"""What a rank records: metrics, text, progress, errors; each becomes an event that survives the rank.

Recording appends to a queue and returns. One thread, ``jupyter-train-recorder``,
turns the queue into numbered events and is the only writer, so that an exception
raised asynchronously in the main thread cannot leave half an event behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.runtime.channel import Cause, FrameKind
from jupyter_train.runtime.text import OutputBuffer
from jupyter_train.runtime.values import Snapshot, resolve, snapshot

if TYPE_CHECKING:
    import torch

#: Metrics wait at most this long: each flush is an event that agent, scheduler and reader have to handle.
FLUSH_INTERVAL_S = 0.5
TEXT_INTERVAL_S = 0.05  #: text at most this long, and never more often
MAX_POINTS = 200_000  #: waiting; more than that make the caller wait
POINTS_PER_EVENT = 50_000
SINK_BYTES = 1 << 20  #: handed to the sink at once, about
CLOSE_S = 10.0  #: without any progress before closing gives up


class Sink(Protocol):
    """Where packed events go. Called by the recorder's thread only."""

    def events(self, packed: list[bytes], *, urgent: bool) -> None:
        """Take events in order. ``urgent`` ones are passed on at once."""

    def word(self, kind: FrameKind, told: Cause | bytes | None = None) -> None:
        """Take a word to the agent that is no event."""

    def close(self) -> None:
        """No more will come."""


@dataclass(frozen=True, slots=True)
class _Item:
    kind: EventKind | FrameKind | None  #: None: set the `threading.Event` in the payload
    payload: Any
    time: float
    urgent: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """An event whose place among the metrics matters."""

    payload: Mapping[str, Any]
    time: float


class Recorder:
    """Records for one rank of one attempt. Every method may be called from any thread.

    ``start`` begins writing; until then everything waits. ``close`` returns when all is written.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        run_id: str,
        attempt: int,
        rank: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._sink = sink
        self._run_id = run_id
        self._attempt = attempt
        self._rank = rank
        self._clock = clock
        self._points: deque[tuple[str, int, float | Snapshot | _Told]] = deque()
        self._withheld: list[tuple[str, int, float | Snapshot]] | None = None
        self._newest: dict[str, float | Snapshot] = {}
        self._items: deque[_Item] = deque()
        self._output = OutputBuffer()
        self._bars: dict[str, Mapping[str, Any]] = {}
        self._rank_seq = 0
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._alive = True

    def start(self) -> None:
        """Start the thread that writes."""
        self._thread = threading.Thread(target=self._run, name="jupyter-train-recorder", daemon=True)
        self._thread.start()

    def metric(self, name: str, value: float | torch.Tensor, step: int) -> None:
        """One value of a metric at a step. Never waits for the device; NaN is a value.

        Waits only where 200,000 values have not been written yet.
        """
        kept = value if type(value) is float else snapshot(value)
        self._newest[name] = kept
        if self._withheld is not None and len(self._withheld) < MAX_POINTS:
            self._withheld.append((name, step, kept))
            return
        self._points.append((name, step, kept))
        if len(self._points) > MAX_POINTS:
            self._wait_for_room()

    def newest(self, name: str) -> float | None:
        """The value of that metric that was recorded last; None where there is none. Waits for the device."""
        value = self._newest.get(name)
        return None if value is None else value if type(value) is float else resolve([value])[0]

    def withhold(self) -> None:
        """What is recorded from now on may be on record already: the attempt comes to where another one stood."""
        self._withheld = []

    def go_on(self, *, keep: bool) -> None:
        """No more is withheld.

        Args:
            keep: record what was, since the attempt never came to that place.
        """
        withheld, self._withheld = self._withheld, None
        if keep and withheld:
            self._points.extend(withheld)

    def remark(self, text: str) -> None:
        """One sentence for the user about how the run is carried out."""
        self._add(EventKind.LOG, {"stream": "remark", "text": text})

    def machine(self, told: Mapping[str, Any]) -> None:
        """What this rank runs on; its payload."""
        self._add(EventKind.LOG, told)

    def progress(
        self, bar: str, label: str, done: int, total: int | None, *, note: str = "", gone: bool = False
    ) -> None:
        """Where a progress bar stands; of several calls between two flushes the last one counts.

        ``note`` is said behind the bar; a bar that is ``gone`` is not shown any more.
        """
        if not self._alive:
            return
        payload = {"stream": "progress", "bar": bar, "label": label, "done": done, "total": total}
        if note:
            payload["note"] = note
        if gone:
            payload["gone"] = True
        self._bars[bar] = payload
        self._wake.set()

    def log(self, stream: str, text: str) -> None:
        """Text as it was written, newlines included; ``stream`` is stdout or stderr.

        Waits where it is written faster than it can be passed on.
        """
        if self._alive:
            self._output.write(stream, text)
            self._wake_for_output()

    def show(self, payload: Mapping[str, Any], size: int) -> None:
        """A display or a clear, in its place among the text; ``size`` in characters, about."""
        if self._alive:
            self._output.put(str(payload["stream"]), payload, size)
            self._wake_for_output()

    def error(self, payload: Mapping[str, Any]) -> None:
        """The rank's error; passed on at once."""
        self._add(EventKind.ERROR, payload, hurry=True)

    def artifact(self, payload: Mapping[str, Any]) -> None:
        """A file in the run's folder."""
        self._add(EventKind.ARTIFACT, payload)

    def checkpoint(self, payload: Mapping[str, Any]) -> None:
        """What this rank tells of a checkpoint: after all that it has logged until now, before what it logs later."""
        self._points.append(("", 0, _Told(payload, self._clock())))
        self._hurry_up()

    def word(self, kind: FrameKind, told: Cause | bytes | None = None) -> None:
        """A word to the agent, in order with the events; passed on at once."""
        self._add(kind, told, hurry=True)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until all that was recorded before this call is written; False after ``timeout_s``."""
        if self._thread is None or not self._alive:
            return False
        written = threading.Event()
        self._add(None, written, hurry=True)
        return written.wait(timeout_s)

    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Write all and end the thread, unless nothing could be written for ``timeout_s``. Twice does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None and self._alive:
            self._closing = True
            self._hurry_up()
            written = -1
            while thread.is_alive() and written < self._rank_seq:
                written = self._rank_seq
                thread.join(timeout_s)

    def disown(self) -> None:
        """Forget everything and record nothing from now on: for a fork of the rank, which has no thread."""
        self._alive = False
        self._points = deque(maxlen=0)
        self._items = deque(maxlen=0)
        self._output = OutputBuffer()

    def _add(self, kind: EventKind | FrameKind | None, payload: Any, *, hurry: bool = False) -> None:
        self._items.append(_Item(kind, payload, self._clock(), hurry))
        if hurry:
            self._hurry.set()
        self._wake.set()

    def _hurry_up(self) -> None:
        self._hurry.set()
        self._wake.set()

    def _ended(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def _wait_for_room(self) -> None:
        self._wait_while(lambda: len(self._points) > MAX_POINTS // 2)

    def _wake_for_output(self) -> None:
        self._wake.set()
        if self._output.is_full:
            self._wait_while(lambda: self._output.is_full)

    def _wait_while(self, is_full: Callable[[], bool]) -> None:
        """Asleep in short steps and without a lock: a stop raises its exception here."""
        while self._alive and not self._ended() and is_full():
            if threading.current_thread() is self._thread:
                return  # a warning while writing: who would make room?
            self._hurry_up()
            time.sleep(0.001)

    def _run(self) -> None:
        while True:
            try:
                self._loop()
                return
            except:  # noqa: E722  # a cell that rebinds builtins may have taken any name that would stand here
                time.sleep(TEXT_INTERVAL_S)  # they are put back at its end, and until then nobody else writes

    def _loop(self) -> None:
        last = 0.0
        while not self._closing:
            self._wake.wait(FLUSH_INTERVAL_S)
            if not self._hurry.is_set():
                self._hurry.wait(max(0.0, last + TEXT_INTERVAL_S - time.monotonic()))
            self._wake.clear()
            self._hurry.clear()
            last = time.monotonic()
            self._write_all()
        self._write_all(last=True)
        self._sink.close()

    def _write_all(self, *, last: bool = False) -> None:
        # Items first: what was recorded before one of them is then among the rest.
        items = [self._items.popleft() for _ in range(len(self._items))]
        urgent = last or any(item.urgent for item in items)
        self._pass_on(self._rest(everything=urgent), urgent)
        for item in items:
            if isinstance(item.kind, EventKind):
                self._pass_on([self._pack(item.kind, item.payload, item.time)], urgent)
            elif item.kind is None:
                item.payload.set()
            else:
                self._sink.word(item.kind, item.payload)

    def _pass_on(self, events: Iterable[bytes], urgent: bool) -> None:
        packed: list[bytes] = []
        size = 0
        for event in events:
            packed.append(event)
            size += len(event)
            if size >= SINK_BYTES:
                self._sink.events(packed, urgent=urgent)
                packed, size = [], 0
        if packed:
            self._sink.events(packed, urgent=urgent)

    def _rest(self, *, everything: bool) -> Iterator[bytes]:
        """Metrics, what was shown, and progress, as events."""
        yield from self._metrics()
        for stream, piece in self._output.take(everything=everything):
            payload = {"stream": stream, "text": _sendable(piece)} if isinstance(piece, str) else piece
            yield self._pack(EventKind.LOG, payload)
        for bar in list(self._bars):
            yield self._pack(EventKind.LOG, self._bars.pop(bar))

    def _metrics(self) -> Iterator[bytes]:
        while waiting := min(len(self._points), POINTS_PER_EVENT):
            names: list[tuple[str, int]] = []
            points: list[float | Snapshot] = []
            told: _Told | None = None
            while told is None and waiting:
                waiting -= 1
                name, step, point = self._points.popleft()
                if isinstance(point, _Told):
                    told = point
                else:
                    names.append((name, step))
                    points.append(point)
            if points:
                yield self._pack(EventKind.METRICS, _columns(names, resolve(points)))
            if told is not None:
                yield self._pack(EventKind.CHECKPOINT, told.payload, told.time)

    def _pack(self, kind: EventKind, payload: Mapping[str, Any], at: float | None = None) -> bytes:
        self._rank_seq += 1
        event = Event(
            run_id=self._run_id,
            attempt=self._attempt,
            rank=self._rank,
            rank_seq=self._rank_seq,
            time=self._clock() if at is None else at,
            kind=kind,
            payload=payload,
        )
        try:
            return pack_event(event)
        except Exception as error:  # this thread is the rank's voice: one bad value must not silence it
            text = f"something of the kind {kind} could not be recorded: {type(error).__name__}: {error}"
            return pack_event(replace(event, kind=EventKind.LOG, payload={"stream": "remark", "text": text}))


def _columns(names: Sequence[tuple[str, int]], numbers: Sequence[float]) -> dict[str, Any]:
    """The payload of values, ``names`` their metrics and steps."""
    columns: dict[str, tuple[list[int], list[float]]] = {}
    for (name, step), value in zip(names, numbers, strict=True):
        steps, values = columns.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)
    return {
        "columns": {
            name: {"step": np.array(steps, np.int64), "value": np.array(values, np.float64)}
            for name, (steps, values) in columns.items()
        }
    }


def _sendable(text: str) -> str:
    """``text`` with lone surrogates, which no encoding has, as their escapes."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
