"""A run that was killed and taken up again has the same weights, losses and logged values as an undisturbed one, to the bit."""

from __future__ import annotations

import pytest

from tests.runtime.checkpoint.resumed import Case, Story, stories
from tests.runtime.parallel.ranks import Way

PLAIN = """
model = mlp()
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, .5)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
seen = 0; history = []
for epoch in train.epochs(4):
    running = 0.0
    for x, y in loader:
        opt.zero_grad()
        loss = F.cross_entropy(model(F.dropout(x, .2)), y)
        loss.backward()
        opt.step()
        running += loss.item()
        seen += 1
    scheduler.step()
    history.append(running)
    train.log(running=running, seen=seen)
    train.checkpoint(model=model, optimizer=opt)
out = [seen, history, epoch]
"""
CASES = {"at the ends of epochs": Case(cell=PLAIN, kills=(9,))}


def verdicts(cases: dict[str, Case], way: Way) -> dict[str, str]:
    """What differs, by case; nothing where it is as it should be."""
    found = {}
    for name, (undisturbed, resumed) in stories(cases, way).items():
        for rank, (one, other) in enumerate(zip(undisturbed, resumed, strict=True)):
            if told := other.same_as(one) or _never_resumed(other):
                found[f"{name}, rank {rank}"] = f"{told} (from {other.points}) {other.outcome.remarks}"
    return found


def _never_resumed(story: Story) -> str:
    return "" if story.points else "it began at its start"


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_taken_up_again_is_the_same_to_the_bit(ranks: int) -> None:
    assert not verdicts(CASES, Way(ranks=ranks))
