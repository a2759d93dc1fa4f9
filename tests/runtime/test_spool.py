"""The file beside a rank."""

from __future__ import annotations

import socket
from pathlib import Path

from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.runtime.channel import FrameKind, FrameReader, split_events
from jupyter_train.runtime.spool import (
    SPOOL_MOST_BYTES,
    SPOOL_TAIL_BYTES,
    ChannelSink,
    read_spools,
    spool_name,
)


def event(number: int, text: str = "x") -> bytes:
    return pack_event(
        Event(run_id="r", rank_seq=number, time=0.0, kind=EventKind.LOG, payload={"text": text})
    )


def test_events_reach_the_file_and_the_agent(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = ChannelSink(theirs, tmp_path / "run" / spool_name(1, 0))
        sink.events([event(1), event(2)], urgent=False)
        sink.events([event(3)], urgent=True)
        sink.close()
        frames = list(FrameReader().feed(ours.recv(1 << 16)))
    assert [kind for kind, _ in frames] == [FrameKind.EVENTS, FrameKind.URGENT_EVENTS]
    assert [e for _, body in frames for e in split_events(body)] == [event(1), event(2), event(3)]
    assert read_spools(tmp_path / "run", 1) == [event(1), event(2), event(3)]
    assert (tmp_path / "run" / spool_name(1, 0)).stat().st_mode & 0o077 == 0


def test_spools_of_all_ranks_of_one_attempt_are_read(tmp_path: Path) -> None:
    for rank in (0, 1):
        (tmp_path / spool_name(2, rank)).write_bytes(event(rank))
    (tmp_path / spool_name(1, 0)).write_bytes(event(9))
    assert read_spools(tmp_path, 2) == [event(0), event(1)]


def test_a_half_written_end_is_left_out(tmp_path: Path) -> None:
    (tmp_path / spool_name(1, 0)).write_bytes(event(1) + event(2)[:-3])
    assert read_spools(tmp_path, 1) == [event(1)]


def test_of_a_long_spool_the_end_is_read(tmp_path: Path) -> None:
    big = [event(number, "x" * 100_000) for number in range(60)]
    (tmp_path / spool_name(1, 0)).write_bytes(b"".join(big))
    read = read_spools(tmp_path, 1)
    assert read == big[-len(read) :]
    assert SPOOL_TAIL_BYTES <= sum(map(len, read)) < SPOOL_TAIL_BYTES + 200_000


def test_a_disk_that_cannot_be_written_does_not_keep_events_from_the_agent(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sink = ChannelSink(theirs, tmp_path / "file" / spool_name(1, 0))
        sink.events([event(1)], urgent=False)
        ((_, body),) = FrameReader().feed(ours.recv(1 << 16))
    assert body == event(1)


def test_an_agent_that_is_gone_does_not_keep_events_from_the_file(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        sink = ChannelSink(theirs, tmp_path / spool_name(1, 0))
        sink.events([event(1)], urgent=False)
        sink.events([event(2)], urgent=False)
        sink.close()
    assert read_spools(tmp_path, 1) == [event(1), event(2)]


def test_a_spool_stays_bounded_and_keeps_its_end(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        sizes = spooled(theirs, tmp_path)
    assert max(sizes) <= SPOOL_MOST_BYTES + 2_000_000
    assert min(sizes[20:]) >= SPOOL_TAIL_BYTES
    assert [path.name for path in tmp_path.iterdir()] == [spool_name(1, 0)]


def spooled(channel: socket.socket, folder: Path) -> list[int]:
    """Sizes of the file as 90 MB go through it."""
    sink = ChannelSink(channel, folder / spool_name(1, 0))
    sizes = []
    for number in range(90):
        sink.events([event(2 * number, "x" * 500_000), event(2 * number + 1, "y" * 500_000)], urgent=False)
        sizes.append((folder / spool_name(1, 0)).stat().st_size)
        assert read_spools(folder, 1)[-1] == event(2 * number + 1, "y" * 500_000)
    sink.close()
    return sizes
