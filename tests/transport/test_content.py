from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest
import xxhash

from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.quota import Quota


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "content")


def test_a_key_is_the_hash_of_the_bytes(store: ContentStore) -> None:
    ref = store.put(b"ab", b"", bytearray(b"c"))

    assert ref.key == xxhash.xxh3_128_hexdigest(b"abc")
    assert ref.size_bytes == 3
    assert store.path(ref.key).read_bytes() == b"abc"


def test_the_same_bytes_are_written_once(store: ContentStore) -> None:
    first = store.put(b"data")
    written = store.path(first.key).stat().st_ino

    assert store.put(b"da", b"ta") == first
    assert store.path(first.key).stat().st_ino == written


def test_a_file_cut_short_by_a_crash_is_written_again(store: ContentStore) -> None:
    ref = store.put(b"data")
    os.truncate(store.path(ref.key), 1)

    store.put(b"data")

    assert store.path(ref.key).read_bytes() == b"data"


def test_only_the_owner_can_read_what_was_captured(store: ContentStore) -> None:
    path = store.path(store.put(b"secret").key)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700


def test_what_is_written_to_mapped_bytes_stays_private(store: ContentStore) -> None:
    ref = store.put(b"data")
    mapped = store.map(ref.key)

    mapped[0:1] = b"X"

    assert bytes(mapped) == b"Xata"
    assert bytes(store.map(ref.key)) == b"data"


def test_nothing_is_mapped_for_no_bytes(store: ContentStore) -> None:
    assert bytes(store.map(store.put().key)) == b""


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 32, "a" * 31])
def test_only_a_hash_becomes_a_path(store: ContentStore, key: str) -> None:
    with pytest.raises(ValueError, match="is not the key"):
        store.path(key)


def test_chunks_in_order_become_the_file(store: ContentStore) -> None:
    data = np.random.default_rng(0).bytes(1000)
    key = xxhash.xxh3_128_hexdigest(data)

    assert not store.receive(key, 0, 1000, data[:400])
    assert not store.has(key)
    assert not store.receive(key, 200, 1000, data[200:700])  # sent again after a lost answer
    assert store.receive(key, 700, 1000, memoryview(data)[700:])

    assert bytes(store.map(key)) == data
    assert store.receive(key, 0, 1000, data[:400])  # somebody else sends what is here already


def test_a_chunk_left_out_is_refused(store: ContentStore) -> None:
    key = xxhash.xxh3_128_hexdigest(b"abcdef")
    store.receive(key, 0, 6, b"ab")

    with pytest.raises(ValueError, match="expected one at 2"):
        store.receive(key, 4, 6, b"ef")


def test_wrong_bytes_never_become_a_file(store: ContentStore) -> None:
    key = xxhash.xxh3_128_hexdigest(b"right!")

    with pytest.raises(ValueError, match="do not have that hash"):
        store.receive(key, 0, 6, b"wrong!")

    assert not store.has(key)
    assert store.receive(key, 0, 6, b"right!")


def test_missing_names_only_what_is_not_here(store: ContentStore) -> None:
    here = store.put(b"here").key
    absent = xxhash.xxh3_128_hexdigest(b"absent")

    assert store.missing([here, absent]) == [absent]


def test_pruning_removes_what_was_used_least_recently(store: ContentStore) -> None:
    refs = [store.put(bytes([number]) * 100) for number in range(4)]
    now = time.time()
    for age, ref in zip((400, 300, 200, 100), refs, strict=True):
        os.utime(store.path(ref.key), (now - age, now - age))
    store.put(bytes([0]) * 100)  # the oldest is used again

    removed = store.prune(Quota(max_bytes=200), min_age_s=50, now=now)

    assert removed == 200
    assert [store.has(ref.key) for ref in refs] == [True, False, False, True]


def test_pruning_leaves_what_a_queued_run_may_need(store: ContentStore) -> None:
    ref = store.put(b"fresh")

    assert store.prune(Quota(max_bytes=0, max_age_s=0)) == 0
    assert store.has(ref.key)


def aged(store: ContentStore, *ages_s: float) -> list[str]:
    """Keys of files of 100 bytes, last used so many seconds ago."""
    keys = [store.put(bytes([number]) * 100).key for number in range(len(ages_s))]
    for key, age_s in zip(keys, ages_s, strict=True):
        os.utime(store.path(key), (time.time() - age_s, time.time() - age_s))
    return keys


def test_what_an_active_run_needs_is_never_evicted(store: ContentStore) -> None:
    old, older = aged(store, 9000, 10_000)

    assert store.prune(Quota(max_bytes=0, max_age_s=0), needed={older}) == 100
    assert store.has(older)
    assert not store.has(old)


def test_what_nobody_used_for_long_goes_though_there_is_room(store: ContentStore) -> None:
    month, day = aged(store, 31 * 86400, 86400)

    store.prune(Quota())

    assert not store.has(month)
    assert store.has(day)


def test_a_disk_that_gets_full_takes_as_much_as_it_lacks(store: ContentStore) -> None:
    oldest, older, old = aged(store, 9000, 8000, 7000)

    store.prune(Quota(min_free_bytes=1150), free_bytes=lambda: 1000)

    assert [store.has(key) for key in (oldest, older, old)] == [False, False, True]


def test_what_a_rank_loads_counts_as_used(store: ContentStore) -> None:
    (key,) = aged(store, 9000)
    store.map(key)

    assert store.prune(Quota(max_bytes=0)) == 0


def test_a_full_disk_makes_room_by_itself(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    waits, old = aged(store, 9000, 9000)
    store = ContentStore(store.folder, needed=lambda: {waits})
    real_write = os.write

    def write(descriptor: int, data: bytes) -> int:
        if store.has(old):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    new = store.put(b"new").key

    assert store.path(new).read_bytes() == b"new"
    assert store.has(waits)


def test_a_folder_keeps_its_id(store: ContentStore, tmp_path: Path) -> None:
    assert store.folder_id() == ContentStore(store.folder).folder_id() != ""
    assert ContentStore(tmp_path / "other").folder_id() != store.folder_id()
    assert [path.name for path in store.folder.iterdir()] == ["id"]


def test_pruning_removes_parts_of_dead_senders(store: ContentStore) -> None:
    key = xxhash.xxh3_128_hexdigest(b"never finished")
    store.receive(key, 0, 14, b"never")

    store.prune(Quota(), now=time.time() + 90_000)

    assert not list(store.folder.glob("*/*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_and_leaves_nothing(
    store: ContentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    real_open = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, flags, mode=0o777: full if flags & os.O_WRONLY else real_open(path, flags, mode),
    )

    with pytest.raises(OSError, match="No space left"):
        store.put(b"data")

    assert [path.name for path in store.folder.rglob("*") if path.is_file()] == []
