from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jupyter_train.runtime.parallel.shares import cut, digest, sizes


@given(total=st.integers(0, 200), ranks=st.integers(1, 9), uneven=st.booleans())
def test_sizes_add_up_and_hardly_differ(total: int, ranks: int, uneven: bool) -> None:
    parts = sizes(total, ranks, uneven=uneven)
    assert sum(parts) == total
    assert len(parts) == ranks
    assert max(parts) - min(parts) <= (2 if uneven else 1)
    assert min(parts) >= min(1, total // ranks)


@given(
    batch=st.lists(st.integers(0, 10**12), min_size=1, max_size=60),
    ranks=st.integers(1, 9),
    uneven=st.booleans(),
)
def test_shares_are_disjoint_and_cover_the_batch_in_order(batch: list[int], ranks: int, uneven: bool) -> None:
    together = []
    for rank in range(ranks):
        part, share = cut(batch, rank=rank, ranks=ranks, uneven=uneven)
        assert share.total == len(batch)
        assert share.digest == digest(batch)
        if share.is_empty:
            assert part == batch[:1], "one sample stands in, and counts nothing"
        else:
            assert len(part) == share.mine
            together += part
    assert together == batch


def test_an_even_batch_can_be_cut_unevenly() -> None:
    assert sizes(16, 2) == (8, 8)
    assert sizes(16, 2, uneven=True) == (9, 7)
    assert sizes(4, 4, uneven=True) == (1, 1, 1, 1), "nobody is left without a sample for it"


def test_batches_of_other_indices_have_other_digests() -> None:
    assert digest([1, 2, 3]) != digest([1, 3, 2])
    assert digest(["a", "b"]) == 0
    assert digest([1 << 70]) == 0
