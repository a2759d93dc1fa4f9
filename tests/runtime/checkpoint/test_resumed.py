"""A run that was killed and taken up again has the same weights, losses and logged values as an undisturbed one, to the bit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.runtime.checkpoint.resumed import Case, Story, stories
from tests.runtime.parallel.ranks import Way

MODEL = """
model = mlp()
opt = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
"""
STEP = "opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()"
PLAIN = (
    MODEL
    + """
scheduler = torch.optim.lr_scheduler.StepLR(opt, 2, .5)
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
        {inner}
    scheduler.step()
    history.append(running)
    train.log(running=running, seen=seen)
    {outer}
out = [seen, history, epoch]
"""
)
EVERY_THIRD = "if seen % 3 == 0: train.checkpoint(model=model)"
AUG = """
class Noisy(Dataset):
    def __len__(self): return N
    def __getitem__(self, k):
        return X[k] + .1 * torch.randn(10) * {amount}, Y[k]
model = mlp(); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(Noisy(), batch_size=12, shuffle=True, num_workers=2, {extra})
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == {at}: train.checkpoint()
"""
CASES = {
    "at the ends of epochs": Case(
        cell=PLAIN.format(inner="pass", outer="train.checkpoint(model=model, optimizer=opt)"), kills=(9, 16)
    ),
    "in the middle of epochs": Case(cell=PLAIN.format(inner=EVERY_THIRD, outer="pass"), kills=(5, 11, 20)),
    "by the clock": Case(cell=PLAIN.format(inner="pass", outer="pass"), kills=(10, 18), every_s=0.0),
    "a function": Case(
        cell=MODEL
        + """
def train_one_epoch(model, loader, opt, epoch):
    total, count = 0.0, 0
    for i, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        total += loss.item(); count += len(x)
        if i % 3 == 2: train.checkpoint()
    train.log(total=total, i=i)
    return total / (i + 1)
def fit(n):
    best, bad = float("inf"), 0
    for epoch in train.epochs(n):
        mean = train_one_epoch(model, loader, opt, epoch)
        if mean < best: best, bad = mean, 0
        else: bad += 1
    return best, bad
out = fit(3)
""",
        kills=(5, 12),
    ),
    "a class": Case(
        cell=MODEL
        + """
class Trainer:
    def __init__(self, model, opt):
        self.model, self.opt, self.steps, self.history, self.best = model, opt, 0, [], None
    def step(self, x, y):
        self.opt.zero_grad(); loss = F.cross_entropy(self.model(x), y); loss.backward(); self.opt.step()
        self.steps += 1
        return loss.item()
    def epoch(self, loader):
        losses = []
        for x, y in loader:
            losses.append(self.step(x, y))
            if self.steps % 4 == 0: train.checkpoint()
        self.history.append(sum(losses) / len(losses))
        if self.best is None or self.history[-1] < self.best[0]:
            self.best = (self.history[-1], copy.deepcopy(self.model.state_dict()))
    def fit(self, loader, n):
        for _ in train.epochs(n):
            self.epoch(loader)
trainer = Trainer(model, opt)
trainer.fit(loader, 3)
out = [trainer.steps, trainer.history, trainer.best[0], sorted((k, v.sum().item()) for k, v in trainer.best[1].items())]
""",
        kills=(6, 13),
    ),
    "accumulation": Case(
        cell=MODEL
        + """
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        loss = F.cross_entropy(model(x), y) / 2
        loss.backward()
        if i % 2 or i == len(loader) - 1:
            opt.step(); opt.zero_grad()
        if i == 2: train.checkpoint()
""",
        kills=(3, 7),
    ),
    "batch norm and a moving average": Case(
        cell="""
model = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(.1), nn.Linear(16, 3))
teacher = copy.deepcopy(model).requires_grad_(False)
averaged = torch.optim.swa_utils.AveragedModel(model)
ema = {k: v.clone() for k, v in model.state_dict().items()}
opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
scheduler = torch.optim.lr_scheduler.OneCycleLR(opt, .2, total_steps=21)
scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
for epoch in train.epochs(3):
    model.train()
    for i, (x, y) in enumerate(loader):
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(opt); scaler.update(); scheduler.step()
        averaged.update_parameters(model)
        with torch.no_grad():
            for k, v in model.state_dict().items(): ema[k].mul_(.9).add_(v * .1) if v.is_floating_point() else ema[k].copy_(v)
        if i == 3: train.checkpoint()
    model.eval()
    train.log(scale=scaler.get_scale())
out = [v.sum().item() for v in ema.values()] + [v.sum().item() for v in averaged.state_dict().values()]
""",
        kills=(6, 12),
    ),
    "LBFGS": Case(
        cell="""
model = mlp()
opt = torch.optim.LBFGS(model.parameters(), lr=.5, max_iter=4, history_size=3)
loader = DataLoader(TensorDataset(X, Y), batch_size=24)
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        def closure():
            opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); return loss
        opt.step(closure)
        if i == 1: train.checkpoint()
""",
        kills=(3, 7),
    ),
    "a generator of its own, and a sampler that counts": Case(
        cell="""
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
g = torch.Generator().manual_seed(3)
class Sampler(torch.utils.data.Sampler):
    def __init__(self): self.passes = 0
    def __len__(self): return N
    def __iter__(self):
        self.passes += 1
        return iter(torch.randperm(N, generator=torch.Generator().manual_seed(self.passes)).tolist())
one = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True, generator=g)
two = DataLoader(TensorDataset(X, Y), batch_size=16, sampler=Sampler())
noise = np_rng = __import__("numpy").random.default_rng(4)
for epoch in train.epochs(4):
    for i, (x, y) in enumerate(one if epoch % 2 else two):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y) * float(1 + noise.random()); loss.backward(); opt.step()
        if i == 2: train.checkpoint()
""",
        kills=(4, 10, 16),
    ),
    "two loops, and one in another": Case(
        cell=MODEL
        + f"""
first = []
for epoch in train.epochs(2):
    for x, y in loader: {STEP}
    first.append(loss.item())
    train.checkpoint()
between = len(first)
for phase in train.epochs(2):
    for group in opt.param_groups: group["lr"] *= .5
    for epoch in train.epochs(2):
        for i, (x, y) in enumerate(loader):
            {STEP}
            if i == 3: train.checkpoint()
    for x, y in loader: {STEP}
out = [first, between, phase, epoch]
""",
        kills=(10, 20, 30, 38, 46),
    ),
    "early stopping": Case(
        cell=MODEL
        + f"""
def validate():
    model.eval()
    with torch.no_grad(): value = sum(F.cross_entropy(model(x), y).item() for x, y in DataLoader(TensorDataset(X, Y), batch_size=40))
    model.train()
    return value
best, best_state, patience = float("inf"), None, 0
for epoch in train.epochs(6):
    for x, y in loader: {STEP}
    value = validate()
    train.log(val=value)
    if value < best * .97: best, best_state, patience = value, copy.deepcopy(model.state_dict()), 0
    else: patience += 1
    train.checkpoint(best="val", keep_last=1)
    if patience > 0: break
model.load_state_dict(best_state)
out = [best, patience, epoch]
""",
        kills=(9,),
    ),
    "zipped loaders": Case(
        cell=MODEL
        + """
other = DataLoader(TensorDataset(X + .1, Y), batch_size=12, shuffle=True)
for epoch in train.epochs(3):
    for i, ((x, y), (u, v)) in enumerate(zip(loader, other)):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y) + F.cross_entropy(model(u), v); loss.backward(); opt.step()
        if i == 3: train.checkpoint()
""",
        kills=(6, 13),
    ),
    "batches made by hand": Case(
        cell="""
model = mlp(); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
memory = torch.zeros(3)
for epoch in train.epochs(4):
    order = torch.randperm(N)
    for at in range(0, N, 20):
        x, y = X[order[at:at + 20]], Y[order[at:at + 20]]
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        memory[epoch % 3] += loss.item()
    train.checkpoint()
out = memory.tolist()
""",
        kills=(6, 13),
    ),
    "a stream": Case(
        cell="""
class Stream(IterableDataset):
    def __iter__(self):
        for k in torch.randperm(N).tolist(): yield X[k] + .01 * torch.randn(10), Y[k]
model = mlp(); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(Stream(), batch_size=12)
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == 2: train.checkpoint()
""",
        kills=(5, 12),
    ),
    "a sum, weights by hand": Case(
        cell="""
w = torch.zeros(10, 3, requires_grad=True); b = torch.zeros(3, requires_grad=True)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
model = nn.ParameterList([nn.Parameter(torch.zeros(1))])
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        loss = F.cross_entropy(x @ w + b, y, reduction="sum") / len(x)
        loss.backward()
        with torch.no_grad():
            w -= .1 * w.grad; b -= .1 * b.grad
        w.grad = b.grad = None
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=.1).step()
        if i == 3: train.checkpoint()
out = [w.tolist(), b.tolist()]
""",
        kills=(6, 13),
    ),
    "workers and random augmentation": Case(
        cell="""
class Noisy(Dataset):
    def __len__(self): return N
    def __getitem__(self, k):
        import random, numpy
        return X[k] + .1 * torch.randn(10) + random.random() * .1 + numpy.random.rand() * .1, Y[k]
model = mlp(); opt = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(Noisy(), batch_size=12, shuffle=True, num_workers=2)
for epoch in train.epochs(2):
    for i, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == 3: train.checkpoint()
""",
        kills=(6, 13),
    ),
    "workers that persist": Case(
        cell=AUG.format(amount=1, extra="persistent_workers=True", at=3), kills=(6, 13, 20)
    ),
    "kept while uneven batches are drawn ahead": Case(
        cell=AUG.format(amount=1, extra="", at=0), kills=(3, 10, 18)
    ),
    "a loop that trains under a condition": Case(
        cell=MODEL
        + """
def run(phase):
    for i, (x, y) in enumerate(loader):
        opt.zero_grad()
        out = model(x); loss = F.cross_entropy(out, y)
        if phase == "train" and i > 1:
            loss.backward(); opt.step()
        if i == 4: train.checkpoint()
for epoch in train.epochs(3):
    run("train")
out = 1
""",
        kills=(5, 9),
    ),
    "two losses and two optimizers": Case(
        cell="""
G = mlp(4, 16, 10); model = mlp(10, 16, 1)
og = torch.optim.Adam(G.parameters(), lr=1e-2); od = torch.optim.Adam(model.parameters(), lr=1e-2)
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
bce = F.binary_cross_entropy_with_logits
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        z = torch.randn(len(x), 4)
        od.zero_grad()
        d_loss = bce(model(x), torch.ones(len(x), 1)) + bce(model(G(z).detach()), torch.zeros(len(x), 1))
        d_loss.backward(); od.step()
        og.zero_grad(); g_loss = bce(model(G(z)), torch.ones(len(x), 1)); g_loss.backward(); og.step()
        if i in (2, 5): train.checkpoint()
out = [p.sum().item() for p in G.parameters()]
""",
        kills=(10, 18, 30),
    ),
    "an iterator from before the loop": Case(
        cell=MODEL
        + """
it = iter(DataLoader(TensorDataset(X, Y), batch_size=5, shuffle=True))
next(it)
for epoch in train.epochs(3):
    for i in range(4):
        x, y = next(it)
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    train.checkpoint()
""",
        kills=(6, 10),
    ),
    "an iterator begun anew in the loop": Case(
        cell=MODEL
        + """
it = iter(loader)
for epoch in train.epochs(4):
    for i in range(5):
        try: x, y = next(it)
        except StopIteration:
            it = iter(loader); x, y = next(it)
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
    train.checkpoint()
""",
        kills=(7, 12, 17),
    ),
    "zip and islice": Case(
        cell=MODEL
        + """
import itertools
for epoch in train.epochs(3):
    for i, (x, y) in zip(range(100), itertools.islice(loader, 5)):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == 2: train.checkpoint()
    train.log(i=i)
""",
        kills=(4, 9),
    ),
    "counters of all kinds": Case(
        cell=MODEL
        + """
from collections import deque, Counter
state = {"model": model, "opt": opt, "step": 0, "best": [1e9]}
window = deque(maxlen=3); counts = Counter(); tags = {"a"}
class Early:
    def __init__(self): self.bad, self.best, self.log = 0, None, {}
    def __call__(self, v):
        if self.best is None or v < self.best: self.best = v; self.bad = 0
        else: self.bad += 1
        self.log[len(self.log)] = v
early = Early()
def make():
    n = 0
    def bump():
        nonlocal n
        n += 1
        return n
    return bump
bump = make()
glob = 0
def count():
    global glob
    glob += 1
def fit():
    best = None
    for epoch in train.epochs(3):
        for i, (x, y) in enumerate(loader):
            opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
            state["step"] += 1; window.append(round(loss.item(), 9)); counts[i] += 1; tags.add(str(i)); count(); bump()
            if i == 2: train.checkpoint()
        early(round(loss.item(), 9))
        best = loss.item() if best is None else min(best, loss.item())
    return best
out = [fit(), state["step"], list(window), sorted(counts.items()), sorted(tags), early.__dict__, bump(), glob]
""",
        kills=(4, 11),
    ),
    "all random numbers": Case(
        cell=MODEL
        + """
import random, numpy as np
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(loader):
        k = random.random() + np.random.rand()
        x = x + k * torch.from_numpy(np.random.randn(*x.shape))
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == 2: train.checkpoint()
    train.log(r=random.random(), n=np.random.rand(), t=torch.rand(()).item())
""",
        kills=(4, 11),
    ),
    "a generator around the loader": Case(
        cell=MODEL
        + """
def bar(it):
    for one in it: yield one
for epoch in train.epochs(3):
    for i, (x, y) in enumerate(bar(loader)):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
        if i == 2: train.checkpoint()
    train.log(i=i)
""",
        kills=(4, 9),
    ),
}


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


#: Killed more than once, so that an attempt goes on from what another one that went on has kept.
SEVERAL_TIMES = (
    "in the middle of epochs",
    "two loops, and one in another",
    "an iterator begun anew in the loop",
)
#: What depends on how one rank reads its loaders.
ALONE = (
    *("in the middle of epochs", "by the clock", "a class", "zipped loaders", "a stream", "zip and islice"),
    *("workers and random augmentation", "an iterator from before the loop", "two loops, and one in another"),
)


def chosen(names: Iterable[str]) -> dict[str, Case]:
    """The cases of those names, killed once but for a few."""
    return {
        name: CASES[name] if name in SEVERAL_TIMES else replace(CASES[name], kills=CASES[name].kills[-1:])
        for name in names
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("ranks", "names"),
    [(1, ALONE), (2, tuple(CASES)[::2]), (2, tuple(CASES)[1::2]), (4, ("in the middle of epochs",))],
    ids=["alone", "two ranks", "two ranks, the others", "four ranks"],
)
def test_a_run_taken_up_again_is_the_same_to_the_bit(ranks: int, names: tuple[str, ...]) -> None:
    assert not verdicts(chosen(names), Way(ranks=ranks, limit_s=120.0))
