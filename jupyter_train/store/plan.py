"""What one transaction of the journal will hold. Pure: the writer's thread only carries it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.store.backlog import Gap, Item
from jupyter_train.store.rows import Batch
from jupyter_train.store.summary import RunSummary, summarize, without_environment

ROW_BYTES = 2**20


def journalled(event: Event) -> Event:
    """``event`` as it may be kept: a spec without the values of environment variables."""
    spec = event.payload.get("spec") if event.kind is EventKind.STATE else None
    if not isinstance(spec, Mapping) or "environment" not in spec:
        return event
    return replace(event, payload={**event.payload, "spec": without_environment(spec)})


def journalled_bytes(event: Event, data: bytes) -> tuple[Event, bytes]:
    """``event`` as it may be kept, and in bytes; ``data`` is it as it came."""
    kept = journalled(event)
    return kept, data if kept is event else pack_event(kept)


def by_run(items: Iterable[Item | Gap]) -> Iterator[tuple[str, list[Item | Gap]]]:
    """``items`` of each run, in their order."""
    in_order = sorted(items, key=lambda item: item.run_id)
    for run_id, of_run in groupby(in_order, key=lambda item: item.run_id):
        yield run_id, list(of_run)


def planned(items: Sequence[Item | Gap], before: RunSummary, *, now: float) -> tuple[RunSummary, list[Batch]]:
    """The run's summary with ``items`` added, and the rows to write; no rows for what it holds already."""
    new: list[Item] = []
    for item in items:
        if item.seq > (new[-1].seq if new else before.seq):
            new.append(item if isinstance(item, Item) else _remark(item, before.attempt, now))
    if not new:
        return before, []
    after = summarize((item.event for item in new if item.event is not None), before)
    return replace(after, seq=new[-1].seq), _rows(new)


def left_out(items: Iterable[Item | Gap], *, why: str) -> list[Item | Gap]:
    """One gap per run in the place of ``items``."""
    gaps: list[Item | Gap] = []
    for run_id, of_run in by_run(items):
        count = sum(item.count if isinstance(item, Gap) else 1 for item in of_run)
        first = of_run[0].first_seq if isinstance(of_run[0], Gap) else of_run[0].seq
        gaps.append(Gap(run_id=run_id, first_seq=first, seq=of_run[-1].seq, count=count, why=why))
    return gaps


def _remark(gap: Gap, attempt: int, now: float) -> Item:
    """What stands in the place of events that were left out; it has the number of the last of them."""
    which = f"number {gap.seq}" if gap.count == 1 else f"numbers {gap.first_seq} to {gap.seq}"
    events = "1 event" if gap.count == 1 else f"{gap.count} events"
    event = Event(
        run_id=gap.run_id,
        seq=gap.seq,
        attempt=attempt,
        time=now,
        kind=EventKind.LOG,
        payload={"stream": "remark", "text": f"{events} ({which}) could not be recorded: {gap.why}."},
    )
    return Item(run_id=gap.run_id, seq=gap.seq, data=pack_event(event), event=None)


def _rows(items: Sequence[Item]) -> list[Batch]:
    """``items`` in rows of about a megabyte: a reader that wants the last events reads little."""
    rows: list[list[Item]] = [[]]
    size = 0
    for item in items:
        if size >= ROW_BYTES:
            rows.append([])
            size = 0
        rows[-1].append(item)
        size += len(item.data)
    return [
        Batch(
            run_id=row[0].run_id,
            first_seq=row[0].seq,
            last_seq=row[-1].seq,
            data=b"".join(item.data for item in row),
        )
        for row in rows
    ]
