"""Ranks that part, fail or vanish; losses that shares cannot give."""

from __future__ import annotations

import signal

import pytest

from tests.runtime.parallel.cells import PARTING, SETUP
from tests.runtime.parallel.ranks import FIRST_LINE, on_ranks


@pytest.mark.parametrize("hosts", [1, 2])
@pytest.mark.parametrize("name", PARTING)
def test_ranks_that_part_get_an_error_with_their_lines(name: str, hosts: int) -> None:
    outcomes = on_ranks(PARTING[name], 2, hosts=hosts, limit_s=30)
    kinds = [outcome.kind for outcome in outcomes]
    assert "hung" not in kinds
    assert "RanksDiverged" in kinds
    assert set(kinds) <= {"RanksDiverged", "", "PeerLost"}
    diverged = next(outcome for outcome in outcomes if outcome.kind == "RanksDiverged")
    assert "line " in diverged.error
    if "work on different batches" not in diverged.error:
        assert "rank 0: " in diverged.error
        assert "rank 1: " in diverged.error
    assert max(outcome.seconds for outcome in outcomes) < 15


def test_an_error_on_one_rank_reaches_the_others_at_once() -> None:
    cell = (
        SETUP
        + """
for k, (x, y) in enumerate(loader):
    if train.rank == 1 and k == 3: raise ValueError('bad sample')
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
    )
    one, other = on_ranks(cell, 2)
    assert other.error == "ValueError: bad sample"
    assert one.kind == "PeerLost"
    assert "rank 1 failed while this rank was at line" in one.error


def test_a_killed_rank_is_noticed_at_once() -> None:
    cell = (
        SETUP
        + f"""
for k, (x, y) in enumerate(loader):
    began = time.monotonic()
    if train.rank == 1 and k == 3: os.kill(os.getpid(), {int(signal.SIGKILL)})
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
    )
    one, other = on_ranks(cell, 2)
    assert other.kind == "nothing"
    assert one.kind == "PeerLost"
    assert "another rank was lost" in one.error


def test_a_rank_that_is_only_slow_is_waited_for() -> None:
    cell = (
        SETUP
        + """
for k, (x, y) in enumerate(loader):
    if train.rank == 1 and k == 3: time.sleep(2)
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
    )
    assert [outcome.error for outcome in on_ranks(cell, 2)] == ["", ""]


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_rank_that_is_waited_for_is_named_with_its_line(hosts: int) -> None:
    cell = (
        SETUP
        + """
def evaluate():
    end = time.monotonic() + 3.5
    while time.monotonic() < end: sum(range(1000))
for k, (x, y) in enumerate(loader):
    if train.rank == 0 and k == 2: evaluate()
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
    )
    zero, one = on_ranks(cell, 2, hosts=hosts, parting_timeout_s=2.5)
    assert [zero.error, one.error] == ["", ""]
    (told,) = one.remarks
    assert (
        f"rank 0 is at line {FIRST_LINE + 7} while rank 1 waits for it at line {FIRST_LINE + 10} in backward()"
        in told
    )


def test_weights_that_one_rank_changes_alone_are_found() -> None:
    cell = (
        SETUP
        + """
crit = nn.CrossEntropyLoss()
for ep in range(60):
    for x, y in loader:
        opt.zero_grad(); l = crit(model(x), y); l.backward(); opt.step()
        if train.rank == 1:
            with torch.no_grad(): model[0].weight[0, 0] += 1e-3
"""
    )
    outcomes = on_ranks(cell, 2)
    assert {outcome.kind for outcome in outcomes} == {"RanksDiverged"}
    assert "weights are no longer the same" in outcomes[0].error


def test_no_file_of_shared_memory_is_left() -> None:
    one, _ = on_ranks(
        """
        def shared(where): return {name for name in os.listdir(where) if name.startswith("jupyter-train-")}
        mapped = {line.split("/dev/shm/")[1].split()[0] for line in open("/proc/self/maps") if "/dev/shm/jupyter-train-" in line}
        out = [train.sum(1), sorted(mapped & shared("/dev/shm")), len(mapped)]
        """,
        2,
    )
    assert one.out[0] == 2
    assert one.out[2] > 0
    assert not one.out[1], "what ranks share has no name any more once they have met"
