"""Whole small programs of the kinds that tutorials are made of, on ranks as in one process."""

from __future__ import annotations

import functools

import pytest

from tests.runtime.parallel.ranks import Outcome, Way, difference, side_by_side

KINDS: dict[str, tuple[bool, str]] = {}  #: whether it is split, and the program

KINDS["a script with argparse, main() and functions that train and test"] = (
    True,
    """
import argparse
def train_epoch(args, model, loader, opt, epoch):
    model.train()
    for k, (x, y) in enumerate(loader):
        opt.zero_grad()
        loss = F.nll_loss(F.log_softmax(model(x), 1), y)
        loss.backward()
        opt.step()
        if k % args.log_interval == 0: out.append(loss.item())
def test(model, loader):
    model.eval(); total = right = 0
    with torch.no_grad():
        for x, y in loader:
            z = F.log_softmax(model(x), 1)
            total += F.nll_loss(z, y, reduction="sum").item()
            right += z.argmax(1, keepdim=True).eq(y.view_as(z.argmax(1, keepdim=True))).sum().item()
    out.extend([total / len(loader.dataset), right])
def main():
    global model
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=16); parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1.0); parser.add_argument("--gamma", type=float, default=0.7)
    parser.add_argument("--log-interval", type=int, default=2)
    args = parser.parse_args([])
    model = mlp(); opt = torch.optim.Adadelta(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.StepLR(opt, step_size=1, gamma=args.gamma)
    train_loader = DataLoader(TensorDataset(X, Y), batch_size=args.batch_size, shuffle=True)
    test_loader = DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=16)
    for epoch in range(args.epochs):
        train_epoch(args, model, train_loader, opt, epoch); test(model, test_loader); schedule.step()
out = []
if __name__ == "__main__": main()
""",
)
KINDS["fine-tuning: a frozen body in eval mode, a new head"] = (
    True,
    """
body = nn.Sequential(nn.Linear(10, 24), nn.BatchNorm1d(24), nn.ReLU())
for p in body.parameters(): p.requires_grad = False
model = nn.Sequential(body, nn.Linear(24, 3)); out = []
opt = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=.1, momentum=.9)
for ep in range(2):
    model.train(); body.eval()
    for x, y in DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
""",
)
KINDS["adversarial training by the sign of the input's gradient"] = (
    True,
    """
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for ep in range(2):
    for x, y in DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True):
        x = x.clone().requires_grad_(True)
        F.cross_entropy(model(x), y).backward()
        attacked = (x + .05 * x.grad.sign()).detach()
        opt.zero_grad(); loss = F.cross_entropy(model(attacked), y); loss.backward(); opt.step(); out.append(loss.item())
""",
)
KINDS["a policy gradient: episodes, no loader"] = (
    False,
    """
model = mlp(4, 16, 2); opt = torch.optim.Adam(model.parameters(), lr=1e-2); out = []
for episode in range(12):
    state = torch.zeros(4); logs = []; rewards = []
    for t in range(10):
        choice = torch.distributions.Categorical(logits=model(state)); action = choice.sample()
        logs.append(choice.log_prob(action)); state = .9 * state; state[int(action)] += 1.; rewards.append(float(state[0] - state[1]))
    returns = torch.tensor(rewards).flip(0).cumsum(0).flip(0); returns = (returns - returns.mean()) / (returns.std() + 1e-9)
    loss = -(torch.stack(logs) * returns).sum(); opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
""",
)
KINDS["a graph network on all nodes at once"] = (
    False,
    """
A = (torch.rand(N, N, generator=g0) < .05).double(); A = ((A + A.T + torch.eye(N)) > 0).double(); A = A / A.sum(1, keepdim=True)
class GCN(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.Linear(10, 16); self.b = nn.Linear(16, 3)
    def forward(self, x): return A @ self.b((A @ self.a(x)).relu())
model = GCN(); opt = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=5e-4); out = []; known = torch.arange(N) % 3 > 0
for ep in range(10):
    opt.zero_grad(); loss = F.cross_entropy(model(X)[known], Y[known]); loss.backward(); opt.step(); out.append(loss.item())
""",
)


@functools.cache
def outcomes_of(ranks: int) -> dict[str, tuple[Outcome, list[Outcome]]]:
    return side_by_side({name: program for name, (_, program) in KINDS.items()}, Way(ranks=ranks))


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", KINDS)
def test_a_program_trains_and_reports_what_one_process_does(name: str, ranks: int) -> None:
    alone, outcomes = outcomes_of(ranks)[name]
    is_split, _ = KINDS[name]
    for outcome in outcomes:
        assert not outcome.error
        assert outcome.attempts == 1
        assert difference(alone.weights, outcome.weights) < 1e-9
        assert outcome.out == pytest.approx(alone.out, rel=1e-9)
    assert any("whole" in remark for remark in outcomes[0].remarks) is not is_split
