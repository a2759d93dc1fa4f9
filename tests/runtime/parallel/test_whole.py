"""Loops that were split and must not be: which are found, by whom, and what the attempt after that gives."""

from __future__ import annotations

import pytest

from jupyter_train.record import WholeLoop
from jupyter_train.runtime.parallel.errors import not_splittable
from jupyter_train.runtime.parallel.sites import Site
from jupyter_train.runtime.parallel.whole import WholeLoops, remark
from tests.runtime.parallel.cells import SETUP
from tests.runtime.parallel.ranks import (
    FIRST_LINE,
    Outcome,
    Way,
    difference,
    on_ranks,
    plainly,
    side_by_side,
    together,
)
from tests.runtime.parallel.started_over import OF_SAMPLES, WHOLE_AGAIN

TOLERANCE = 1e-9


@pytest.fixture(scope="module", params=[2, 4])
def table(request: pytest.FixtureRequest) -> dict[str, tuple[Outcome, list[Outcome]]]:
    cells = {name: cell for name, (_, cell) in WHOLE_AGAIN.items()} | OF_SAMPLES
    return side_by_side(cells, Way(ranks=request.param, keep=("spectrum",)))


@pytest.mark.parametrize("name", WHOLE_AGAIN)
def test_the_cell_is_started_over_and_trains_as_one_process(
    name: str, table: dict[str, tuple[Outcome, list[Outcome]]]
) -> None:
    word, cell = WHOLE_AGAIN[name]
    one, ranks = table[name]
    needs = cell.count("# whole") if len(ranks) > 2 or "of 4 ranks" not in cell else 0
    for rank in ranks:
        assert rank.error == ""
        assert rank.attempts == 1 + needs
        assert difference(one.weights, rank.weights) < TOLERANCE
        assert rank.out == one.out
        if one.names["spectrum"] is not None:
            assert (rank.names["spectrum"] - one.names["spectrum"]).abs().max() < TOLERANCE
    said = [text for text in ranks[0].remarks if "whole: right, but not faster" in text]
    if not needs:
        assert not said
        return
    lines = [FIRST_LINE + k for k, line in enumerate(cell.splitlines()) if "# whole" in line]
    for line in lines:
        assert any(f"every rank computes the loop of line {line} whole" in text for text in said), said
    assert any(word in text for text in said)
    assert all("The cell was started over for it after " in text for text in said)


@pytest.mark.parametrize("name", OF_SAMPLES)
def test_gradients_of_samples_are_those_of_one_process_on_shares(
    name: str, table: dict[str, tuple[Outcome, list[Outcome]]]
) -> None:
    one, ranks = table[name]
    for rank in ranks:
        assert (rank.error, rank.attempts, rank.remarks) == ("", 1, [])
        assert difference(one.weights, rank.weights) < TOLERANCE


def test_one_rank_that_meets_it_alone_takes_the_others_along() -> None:
    cell = (
        SETUP
        + """
for x, y in loader:
    opt.zero_grad(); loss = crit(model(x), y)
    if train.rank == 1: torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    loss.backward(); opt.step()
"""
    )
    for hosts in (1, 2):
        one, other = on_ranks(cell, 2, hosts=hosts, limit_s=30)
        assert (one.error, other.error) == ("", "")
        assert (one.attempts, other.attempts) == (2, 2)
        assert [loop.line for loop in one.whole] == [FIRST_LINE + SETUP.count("\n") + 1]


def test_a_cell_that_catches_everything_is_started_over_all_the_same() -> None:
    cell = """
    loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16)
    model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = 0
    for x, y in loader:
        opt.zero_grad(); loss = F.mse_loss(model(x), y).sqrt()
        try: loss.backward()
        except BaseException: continue
        opt.step(); out += 1
    """
    one, other = on_ranks(cell, 2)
    assert (one.attempts, one.out, other.out) == (2, 6, 6)


def test_with_batches_per_rank_it_is_refused_with_its_line() -> None:
    cells = [cell for _, cell in list(WHOLE_AGAIN.values())[:2]]
    way = Way(ranks=2, batch="per-rank")
    for number, cell in enumerate(cells):  # a cell that fails ends its process
        for rank in together([cell], way):
            assert rank[0].kind == "NotSplittable"
            assert rank[0].error.startswith("NotSplittable: line ")
            assert list(WHOLE_AGAIN.values())[number][0] in rank[0].error
            assert "--batch per-rank" in rank[0].error


def test_gradients_that_are_kept_and_differ_are_no_secret() -> None:
    cell = """
    model = nn.Sequential(nn.Embedding(3, 4, sparse=True), nn.Linear(4, 3))
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    mine = Y[train.rank::train.world_size]
    for k in range(3):
        i = torch.arange(16) * (k + 1) % len(mine)
        opt.zero_grad(); F.cross_entropy(model(mine[i]), mine[i]).backward(); opt.step()
    """
    for outcome in on_ranks(cell, 2):
        assert outcome.kind == "CellError"
        assert "sparse or complex gradients" in outcome.error


def test_batches_that_workers_made_before_anybody_could_know_start_the_cell_over() -> None:
    cell = """
    loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True, num_workers=1)
    model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
    for k, (x, y) in list(enumerate(loader)):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    """
    (wanted,) = plainly([cell])
    for outcome in on_ranks(cell, 2):
        assert (outcome.error, outcome.attempts) == ("", 2)
        assert difference(wanted.weights, outcome.weights) < TOLERANCE


# The loops, without torch


def site(line: int, file: str = "<train x>") -> Site:
    return Site(file=file, line=line, text="loader")


def test_loops_are_known_by_file_and_line_whatever_the_run_is_called() -> None:
    now = [3.0]
    loops = WholeLoops([], cell_file="<train x>", clock=lambda: now[0])
    now[0] = 5.5
    error = not_splittable("line 9", "the loss compares samples", "Do something else")
    found = loops.found([site(7), site(7), site(3, "<ipython-input-1>")], error)
    assert [(one.file, one.line, one.after_s) for one in found] == [
        ("", 7, 2.5),
        ("<ipython-input-1>", 3, 2.5),
    ]
    later = WholeLoops(found, cell_file="<train y>")
    known = later.of(site(7, "<train y>"))
    assert known is not None
    assert later.of(site(8, "<train y>")) is None
    assert later.of(site(3, "<ipython-input-2>")) is None
    assert remark(known, site(7)) == (
        "line 9: the loss compares samples, so every rank computes the loop of line 7 whole: right, but not faster. "
        "Do something else. The cell was started over for it after 2.5 s."
    )


def test_the_last_resort_is_every_loop() -> None:
    loops = WholeLoops([WholeLoop(why="again and again …")], cell_file="<train x>")
    known = loops.of(site(12, "<ipython-input-4>"))
    assert known is not None
    assert remark(known, site(12)).startswith(
        "again and again …, so every rank computes the loop of line 12 whole"
    )


def test_an_error_of_sizes_that_one_process_has_too_is_shown_as_there() -> None:
    cell = """
    loader = DataLoader(TensorDataset(X, Y), batch_size=16)
    model = mlp(11); opt = torch.optim.SGD(model.parameters(), lr=.1)
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
    """
    for rank in on_ranks(cell, 2):
        assert rank.attempts == 2
        assert rank.error.startswith(
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (16x10 and 11x32)"
        )


def test_an_error_after_the_first_backward_does_not_start_over() -> None:
    cell = (
        SETUP
        + """
for x, y in loader:
    opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
    x.view(16, 3)
"""
    )
    for rank in on_ranks(cell, 2):
        assert rank.attempts == 1
        assert rank.error.startswith("RuntimeError: shape '[16, 3]' is invalid")
