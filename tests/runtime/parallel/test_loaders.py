"""All kinds of loaders on two and four ranks against the plain cell: weights, losses, and who saw which sample."""

from __future__ import annotations

import re
from pathlib import Path

from tests.runtime.parallel.cells import WHOLE
from tests.runtime.parallel.loaders import HEAD, ROWS
from tests.runtime.parallel.ranks import difference, on_ranks, plain


def test_a_data_set_that_looks_at_its_rank_keeps_its_samples() -> None:
    cell = (
        HEAD
        + """
class Own(IterableDataset):
    def __iter__(self):
        for i in range(int(os.environ["RANK"]), 80, int(os.environ["WORLD_SIZE"])): yield X[i], Y[i], i
loader = DataLoader(Own(), batch_size=8)
for x, y, i in loader: seen[0].append(i.tolist()); step(x, y)
"""
    )
    alone = (
        HEAD
        + """
for k in range(0, 80, 16): step(X[k:k + 16], Y[k:k + 16])
"""
    )
    outcomes = on_ranks(cell, 2, keep=("seen",))
    assert not outcomes[0].error
    for rank, outcome in enumerate(outcomes):
        assert outcome.names["seen"][0] == [list(range(k + rank, k + 16, 2)) for k in range(0, 80, 16)]
        assert difference(plain(alone).weights, outcome.weights) < 1e-9
    assert len(outcomes[0].remarks) == 1
    assert "deals samples out by rank" in outcomes[0].remarks[0]


def test_streams_that_differ_between_ranks_are_an_error_that_names_the_line() -> None:
    cell = (
        HEAD
        + """
class Own(IterableDataset):
    def __init__(self, rows): self.rows = rows
    def __iter__(self): return ((X[i], Y[i]) for i in self.rows)
for x, y in DataLoader(Own(range(train.rank, N, 2)), batch_size=8): step(x, y)
"""
    )
    for outcome in on_ranks(cell, 2):
        assert outcome.kind == "RanksDiverged"
        assert "work on different batches" in outcome.error


def test_streams_per_rank_have_batches_of_the_written_size_on_each() -> None:
    cell = (
        HEAD
        + """
class Sized(Stream):
    def __len__(self): return N
loader = DataLoader(Sized(), batch_size={size}, drop_last={drop}); sizes = []
for x, y, i in loader: sizes.append(len(x)); seen[0].extend(i.tolist()); step(x, y)
sizes.append(len(loader))
"""
    )
    for drop, steps in ((False, 6), (True, 5)):
        wanted = plain(cell.format(size=16, drop=drop), keep=("sizes",))
        outcomes = on_ranks(cell.format(size=8, drop=drop), 2, batch="per-rank", keep=("seen", "sizes"))
        for outcome in outcomes:
            assert not outcome.error
            assert difference(wanted.weights, outcome.weights) < 1e-9
            assert outcome.names["sizes"][1] == 8
            assert len(outcome.names["sizes"]) == steps + 1
            assert outcome.names["sizes"][-1] == steps
        both = sorted(i for outcome in outcomes for i in outcome.names["seen"][0])
        assert both == list(range(80 if drop else 83))


def test_workers_whose_streams_end_apart_give_every_rank_the_same_batches() -> None:
    cell = (
        HEAD
        + """
import warnings; warnings.simplefilter("ignore")  # more workers than cores
pace = os.getpid() % 7
class Uneven(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        for i in range(info.id, N, 3):
            if info.id == 1 and i > 30: return
            time.sleep(.002 * (i * pace % 3)); yield X[i], Y[i], i
loader = DataLoader(Uneven(), batch_size=4, num_workers=3)
for x, y, i in loader: seen[0].extend(i.tolist()); step(x, y)
"""
    )
    outcomes = on_ranks(cell, 2, keep=("seen",))
    assert [outcome.error for outcome in outcomes] == ["", ""]
    both = [i for outcome in outcomes for i in outcome.names["seen"][0]]
    assert sorted(both) == [i for i in range(83) if i % 3 != 1 or i <= 30]


def test_the_table_in_the_documentation_names_tests_that_there_are() -> None:
    page = Path(__file__).parents[3] / "docs" / "data-parallel.md"
    named = re.findall(r"^\|.*\| `([^`]+)` \|$", page.read_text(), re.MULTILINE)
    assert len(named) > 20
    assert [name for name in named if name not in {*ROWS, *WHOLE, *globals()}] == []
