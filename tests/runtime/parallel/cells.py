"""Training cells in the plain style, each with the model in ``model`` and what it prints in ``out``."""

from __future__ import annotations

SPLIT: dict[str, str] = {}  #: split over the ranks: the weights are those of one process
WHOLE: dict[str, str] = {}  #: done whole on every rank, with a remark
PARTING: dict[str, str] = {}  #: ranks that go different ways

LOOP = """
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
"""
SETUP = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); crit = nn.CrossEntropyLoss()
opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
"""

SPLIT["a scheduler and a validation loop"] = """
ds, va = random_split(TensorDataset(X, Y), [67, 16])
loader = DataLoader(ds, batch_size=16, shuffle=True); vl = DataLoader(va, batch_size=8)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9); crit = nn.CrossEntropyLoss()
sched = torch.optim.lr_scheduler.OneCycleLR(opt, .2, epochs=3, steps_per_epoch=len(loader))
out = []
for ep in range(3):
    model.train(); tot = 0.
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); sched.step(); tot += loss.item()
    model.eval(); c = n = 0
    with torch.no_grad():
        for x, y in vl: c += (model(x).argmax(1) == y).sum().item(); n += len(y)
    out += [tot / len(loader), c / n, n]
"""
SPLIT["a validation loop without eval or an outer no_grad"] = (
    SETUP
    + """
vl = DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=8); out = []
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
    n = 0
    for x, y in vl:
        with torch.no_grad(): n += len(y)
    out.append(n)
"""
)
SPLIT["phases: one loop that trains, and validates by set_grad_enabled"] = """
loaders = {'train': DataLoader(TensorDataset(X[:60], Y[:60]), batch_size=16, shuffle=True), 'val': DataLoader(TensorDataset(X[60:], Y[60:]), batch_size=8)}
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for ep in range(3):
    for phase in ['train', 'val']:
        model.train(phase == 'train'); correct = n = 0
        for x, y in loaders[phase]:
            opt.zero_grad()
            with torch.set_grad_enabled(phase == 'train'):
                z = model(x); loss = F.cross_entropy(z, y)
                if phase == 'train':
                    loss.backward(); opt.step()
            correct += (z.argmax(1) == y).sum().item(); n += len(x)
        if phase == 'val': out += [correct / n, n]
"""
SPLIT["one function that trains or validates, by what it is given"] = """
def run(loader, optimizer=None):
    total = n = 0
    for x, y in loader:
        loss = step(x, y, optimizer); total += loss * len(x); n += len(x)
    return [total / n, n]
def step(x, y, optimizer):
    loss = F.cross_entropy(model(x), y)
    if optimizer is not None:
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    return loss.item()
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
tr = DataLoader(TensorDataset(X[:60], Y[:60]), batch_size=16, shuffle=True); va = DataLoader(TensorDataset(X[60:], Y[60:]), batch_size=8)
for ep in range(3): run(tr, opt); out += run(va)
"""
SPLIT["batches of two zipped loaders that are left out under a condition"] = """
a = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); b = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for (x, y), (u, v) in zip(a, b):
        loss = F.cross_entropy(model(x), y) + .5 * F.cross_entropy(model(u), v)
        if not torch.isfinite(loss): continue
        opt.zero_grad(); loss.backward(); opt.step()
"""
SPLIT["a validation loop in the middle of an epoch"] = (
    SETUP
    + """
vl = DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=8); out = []
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        opt.zero_grad(); loss = crit(model(x), y)
        if k == 2:
            with torch.no_grad(): out.append(sum(len(b) for b, _ in vl))
            for b, _ in loader:
                out.append(len(b)); break
        loss.backward(); opt.step()
"""
)
SPLIT["squares by hand, and batches of which a rank may get one sample"] = """
loader = DataLoader(TensorDataset(X, X[:, :1] - 2 * X[:, 1:2]), batch_size=4, shuffle=True)
model = nn.Linear(10, 1); opt = torch.optim.SGD(model.parameters(), lr=.05); out = []
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = ((model(x) - y) ** 2).mean(); loss.backward(); opt.step(); out.append(loss.item())
"""

SPLIT["numbers without a dimension, of one sample"] = """
loader = DataLoader(TensorDataset(X, X[:, 0]), batch_size=4, shuffle=True)
model = nn.Linear(10, 1); opt = torch.optim.SGD(model.parameters(), lr=.05)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = (model(x).squeeze() - y.squeeze()).abs().mean(); loss.backward(); opt.step()
"""

SPLIT["parameter groups with weight decay"] = (
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); crit = nn.CrossEntropyLoss()
opt = torch.optim.AdamW([{'params': [model[0].weight, model[2].weight], 'weight_decay': .1}, {'params': [model[0].bias, model[2].bias], 'weight_decay': 0., 'lr': 1e-2}], lr=3e-3)
"""
    + LOOP
)
SPLIT["clipped gradients"] = (
    SETUP
    + """
out = []
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); out.append(float(nn.utils.clip_grad_norm_(model.parameters(), .3))); opt.step()
"""
)
SPLIT["accumulated gradients"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=9, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.5, momentum=.9)
for ep in range(3):
    for i, (x, y) in enumerate(loader):
        (F.cross_entropy(model(x), y) / 3).backward()
        if (i + 1) % 3 == 0: opt.step(); opt.zero_grad(set_to_none=bool(ep % 2))
"""
SPLIT["two optimizers and three backwards"] = """
loader = DataLoader(TensorDataset(X, torch.randn(N, 6)), batch_size=16, shuffle=True)
model = nn.ModuleList([mlp(6, 16, 10), mlp(10, 16, 1)]); G, D = model
og = torch.optim.Adam(G.parameters(), 1e-2); od = torch.optim.Adam(D.parameters(), 1e-2); bce = nn.BCEWithLogitsLoss()
for ep in range(3):
    for x, z in loader:
        od.zero_grad(); dr = D(x); bce(dr, torch.ones_like(dr)).backward()
        f = G(z); df = D(f.detach()); bce(df, torch.zeros_like(df)).backward(); od.step()
        og.zero_grad(); dg = D(f); bce(dg, torch.ones_like(dg)).backward(); og.step()
"""
SPLIT["a model used twice in one loss"] = """
loader = DataLoader(TensorDataset(X, X.flip(0), (Y == Y.flip(0)).to(X.dtype)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(3):
    for a, b, t in loader:
        opt.zero_grad(); d = (model(a) - model(b)).pow(2).sum(1); F.binary_cross_entropy_with_logits(1 - d, t).backward(); opt.step()
"""
SPLIT["shared weights, frozen ones, later thawed"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); crit = nn.CrossEntropyLoss()
class M(nn.Module):
    def __init__(s):
        super().__init__(); s.a = nn.Linear(10, 10); s.b = nn.Linear(10, 10); s.b.weight = s.a.weight; s.f = nn.Linear(10, 10); s.o = nn.Linear(10, 3)
        for p in s.f.parameters(): p.requires_grad_(False)
    def forward(s, x): return s.o(torch.tanh(s.b(torch.tanh(s.f(torch.tanh(s.a(x)))))))
model = M(); opt = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=.1)
for ep in range(4):
    if ep == 2:
        for p in model.f.parameters(): p.requires_grad_(True)
    for x, y in loader:
        opt.zero_grad(); crit(model(x), y).backward(); opt.step()
"""
SPLIT["parameters unused on some steps, some ranks, and always"] = """
X[:, 9] = (torch.arange(N) % 7 == 0).to(X.dtype)
loader = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)
class M(nn.Module):
    def __init__(s):
        super().__init__(); s.a = nn.Linear(10, 16); s.e = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)]); s.o = nn.Linear(16, 3)
    def forward(s, x, k):
        h = torch.tanh(s.a(x)); r = x[:, 9] > .5
        if r.any():
            h2 = h.clone(); h2[r] = s.e[0](h[r]); h = h2
        if k % 3 == 1: h = h + s.e[1](h)
        return s.o(h)
model = M(); opt = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=.2); k = 0
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x, k), y).backward(); opt.step(); k += 1
out = [float(p.grad is None) for p in model.parameters()]
"""
SPLIT["an LSTM with clipped values"] = """
loader = DataLoader(TensorDataset(torch.randn(N, 7, 4), Y), batch_size=16, shuffle=True)
class M(nn.Module):
    def __init__(s): super().__init__(); s.r = nn.LSTM(4, 12, 2, batch_first=True); s.o = nn.Linear(12, 3)
    def forward(s, x): return s.o(s.r(x)[0][:, -1])
model = M(); opt = torch.optim.RMSprop(model.parameters(), 1e-2)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); nn.utils.clip_grad_value_(model.parameters(), .05); opt.step()
"""
SPLIT["a CNN with BatchNorm"] = """
loader = DataLoader(TensorDataset(torch.randn(N, 1, 8, 8), Y), batch_size=16, shuffle=True); crit = nn.CrossEntropyLoss()
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8, affine=False, momentum=None), nn.ReLU(), nn.Linear(8, 3))
opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for ep in range(3):
    model.train()
    for x, y in loader:
        opt.zero_grad(); crit(model(x), y).backward(); opt.step()
    model.eval()
    with torch.no_grad(): out.append(float(sum(crit(model(x), y) for x, y in loader)))
"""
SPLIT["a scaler that meets an infinite loss"] = (
    SETUP
    + """
sc = torch.amp.GradScaler('cpu', init_scale=2.**10, growth_interval=4); out = []; k = 0
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y)
        if k == 5: loss = loss * float('inf')
        sc.scale(loss).backward(); sc.unscale_(opt); nn.utils.clip_grad_norm_(model.parameters(), 1.); sc.step(opt); sc.update(); k += 1; out.append(sc.get_scale())
"""
)
SPLIT["LBFGS with a line search"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=48, shuffle=True)
model = mlp(); opt = torch.optim.LBFGS(model.parameters(), lr=.5, max_iter=6, line_search_fn='strong_wolfe'); calls = 0
for ep in range(2):
    for x, y in loader:
        def closure():
            global calls
            calls += 1; opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); return l
        opt.step(closure)
out = [calls]
"""
for _reentrant in (True, False):
    SPLIT[f"activation checkpoints, reentrant {_reentrant}"] = f"""
from torch.utils.checkpoint import checkpoint
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
class M(nn.Module):
    def __init__(s): super().__init__(); s.a = nn.Linear(10, 16); s.b = mlp(16, 24, 16); s.o = nn.Linear(16, 3)
    def forward(s, x):
        h = s.a(x)
        for _ in range(2): h = checkpoint(s.b, h, use_reentrant={_reentrant})
        return s.o(h)
model = M(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
"""
SPLIT["a moving average of the weights"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
m = mlp(); ema = copy.deepcopy(m); opt = torch.optim.Adam(m.parameters(), 1e-2); model = nn.ModuleList([m, ema])
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(m(x), y).backward(); opt.step()
        with torch.no_grad():
            for a, b in zip(ema.parameters(), m.parameters()): a.lerp_(b, .1)
"""
SPLIT["tensors by hand, no module, no optimizer"] = """
loader = DataLoader(TensorDataset(X, X[:, :2] @ torch.randn(2, 1)), batch_size=16, shuffle=True)
w = torch.randn(10, 1, requires_grad=True); b = torch.zeros(1, requires_grad=True); out = []
for ep in range(3):
    for x, y in loader:
        loss = ((x @ w + b - y) ** 2).mean(); loss.backward()
        with torch.no_grad():
            w -= .1 * w.grad; b -= .1 * b.grad
            w.grad = None; b.grad.zero_()
        out.append(loss.item())
model = nn.ParameterList([w.detach().clone(), b.detach().clone()])
"""
for _persistent in (False, True):
    SPLIT[f"loader workers, persistent {_persistent}"] = f"""
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True, num_workers=2, persistent_workers={_persistent})
model = mlp(); crit = nn.CrossEntropyLoss(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step()
"""
SPLIT["batches that leave some ranks empty"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=27, shuffle=True)   # 27 27 27 2
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3, momentum=.9); out = []
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["sums over the batch, as of a VAE"] = """
loader = DataLoader(TensorDataset(X), batch_size=27, shuffle=True)
model = nn.ModuleDict({'e': nn.Linear(10, 8), 'd': nn.Linear(4, 10)}); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []
for ep in range(3):
    for (x,) in loader:
        mu, lv = model['e'](x).chunk(2, 1); r = model['d'](mu)
        loss = F.mse_loss(r, x, reduction='sum') - 0.5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
for _divisor in ("len(x)", "16", "x.shape[0]"):
    SPLIT[f"a sum divided by {_divisor}, and an L2 term"] = f"""
loader = DataLoader(TensorDataset(X, Y), batch_size=27, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for ep in range(3):
    for x, y in loader:
        loss = F.cross_entropy(model(x), y, reduction='sum') / {_divisor} + 1e-2 * sum(p.pow(2).sum() for p in model.parameters())
        opt.zero_grad(); loss.backward(); opt.step()
"""
SPLIT["ignored targets and class weights"] = """
Y2 = Y.clone(); Y2[torch.arange(N) % 5 == 0] = -100
loader = DataLoader(TensorDataset(X, Y2), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3); crit = nn.CrossEntropyLoss(weight=torch.tensor([.2, 1., 3.])); out = []
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); l = crit(model(x), y); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["targets that are ignored late in training only"] = """
Y2 = Y.clone()
loader = DataLoader(TensorDataset(X, torch.arange(N)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3, momentum=.9); out = []
for ep in range(3):
    if ep == 1: Y2[torch.arange(N) % 5 == 0] = -100
    for x, i in loader:
        opt.zero_grad(); l = F.cross_entropy(model(x), Y2[i]); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["a masked mean"] = """
mask = (torch.arange(N) % 6 > 3).to(X.dtype)
loader = DataLoader(TensorDataset(X, Y, mask), batch_size=16, shuffle=True, drop_last=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3); out = []
for ep in range(3):
    for x, y, m in loader:
        opt.zero_grad(); l = (F.cross_entropy(model(x), y, reduction='none') * m).sum() / m.sum(); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["label smoothing"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3); crit = nn.CrossEntropyLoss(label_smoothing=.1); out = []
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); l = crit(model(x), y); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["a weight that is annealed and a constant tensor"] = """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True); half = torch.tensor(.5)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []; k = 0
for ep in range(2):
    for x, y in loader:
        z = model(x); k += 1
        opt.zero_grad(); l = half * F.mse_loss(z, y) + .9 ** k * z.abs().sum() / len(x); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["soft targets and a divergence"] = """
loader = DataLoader(TensorDataset(X, torch.rand(N, 3).softmax(1)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.3); out = []
for ep in range(2):
    for x, y in loader:
        z = model(x)
        opt.zero_grad(); l = F.cross_entropy(z, y) + .5 * F.kl_div(z.log_softmax(1), y, reduction='batchmean') + F.l1_loss(z, y); l.backward(); opt.step(); out.append(l.item())
"""
SPLIT["weighted and own samplers"] = """
from torch.utils.data import WeightedRandomSampler
l1 = DataLoader(TensorDataset(X, Y), batch_size=16, sampler=WeightedRandomSampler(torch.rand(N), 64))
class BS:
    def __len__(s): return 6
    def __iter__(s):
        for _ in range(6): yield torch.randint(0, N, (int(torch.randint(5, 12, ())),)).tolist()
l2 = DataLoader(TensorDataset(X, Y), batch_sampler=BS(), collate_fn=lambda s: (torch.stack([a for a, _ in s]), torch.stack([b for _, b in s])))
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(3):
    for l in (l1, l2):
        for x, y in l:
            opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
"""
SPLIT["types that change in the middle"] = """
torch.set_default_dtype(torch.float32)
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
model.double()
for ep in range(4):
    if ep == 2: model.float()
    if ep == 3: model.double()
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x.to(model[0].weight.dtype)), y).backward(); opt.step()
"""
SPLIT["adversarial inputs"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:
        x.requires_grad_(True); F.cross_entropy(model(x), y).backward(); xa = (x + .1 * x.grad.sign()).detach()
        opt.zero_grad(); F.cross_entropy(model(xa), y).backward(); opt.step()
"""
SPLIT["steps along the gradients of inputs"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); w = torch.ones(10, requires_grad=True)
for ep in range(2):
    for x, y in loader:
        x.requires_grad_(True); delta = torch.zeros_like(x, requires_grad=True)
        for _ in range(2): F.cross_entropy(model((x + delta) * w), y).backward()
        with torch.no_grad(): xa = x + 5. * x.grad + 3. * delta.grad; w -= .1 * w.grad; w.grad = None
        opt.zero_grad(); F.cross_entropy(model(xa * w), y).backward(); opt.step()
"""
SPLIT["a plateau scheduler on the training loss"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=2.); sch = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, factor=.5); out = []
for ep in range(6):
    tot = 0
    for x, y in loader:
        opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step(); tot += l.item()
    sch.step(tot); out += [opt.param_groups[0]['lr'], tot]
    if tot < .6: break
"""
SPLIT["break, and a loop around next"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for ep in range(2):
    for k, (x, y) in enumerate(loader):
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
        if k == 2: break
    out.append(float(torch.rand(())))
it = iter(loader)
for k in range(9):
    try: x, y = next(it)
    except StopIteration: it = iter(loader); x, y = next(it)
    opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
"""
SPLIT["a training step in a function and a count before it"] = (
    SETUP
    + """
out = [sum(float(x.sum()) for x, _ in loader)]
def train_one(model, x, y):
    opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
for ep in range(2):
    for x, y in loader: train_one(model, x, y)
    n = 0
    for x, y in loader: n += len(x)
    out.append(n)
"""
)
SPLIT["everything in functions and a class"] = """
class Trainer:
    def __init__(self, model, loader):
        self.model, self.loader = model, loader
        self.opt = torch.optim.Adam(model.parameters(), 1e-2)
    def step(self, x, y):
        self.opt.zero_grad(); loss = F.cross_entropy(self.model(x), y); loss.backward(); self.opt.step(); return loss.item()
    def fit(self, epochs):
        history = []
        for ep in range(epochs):
            for x, y in self.loader: history.append(self.step(x, y))
        return history
    @torch.no_grad()
    def score(self): return sum((self.model(x).argmax(1) == y).sum().item() for x, y in self.loader) / N
def main():
    t = Trainer(mlp(), DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True))
    return t.model, t.fit(2) + [t.score()]
model, out = main()
"""
SPLIT["a second model at the same line"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); out = []
for lr in (.1, .3):
    model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=lr)
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
SPLIT["a learning rate and a regularizer that begin later"] = (
    SETUP
    + """
out = []
for ep in range(3):
    for x, y in loader:
        loss = crit(model(x), y)
        if ep: loss = loss + 1e-2 * sum(p.abs().sum() for p in model.parameters())
        opt.zero_grad(); loss.backward(); opt.step()
    for g in opt.param_groups: g['lr'] *= .5
"""
)
SPLIT["several buckets"] = (
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); crit = nn.CrossEntropyLoss()
model = nn.Sequential(nn.Linear(10, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 3))
opt = torch.optim.SGD(model.parameters(), lr=.1)
"""
    + LOOP
)
SPLIT["a progress bar and zip"] = """
class bar:
    def __init__(self, it): self.it = it
    def __iter__(self):
        for x in self.it: yield x
loader = DataLoader(TensorDataset(X[:76], Y[:76]), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in bar(loader):
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
    for k, ((x, y), (a, b)) in enumerate(zip(loader, DataLoader(TensorDataset(X[:70], Y[:70]), batch_size=12, shuffle=True))):
        opt.zero_grad(); (F.cross_entropy(model(x), y) + .3 * F.cross_entropy(model(a), b)).backward(); opt.step()
"""
SPLIT["compiled model"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); net = torch.compile(model, backend="aot_eager"); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
"""
SPLIT["compiled model with BatchNorm"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)); net = torch.compile(model, backend="eager")
opt = torch.optim.SGD(model.parameters(), .1)
for x, y in loader:
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
"""
SPLIT["a penalty on gradients of the input"] = """
loader = DataLoader(TensorDataset(X, torch.randn(N, 10), torch.rand(N, 1)), batch_size=16, shuffle=True)
model = mlp(10, 16, 1); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, f, a in loader:
        xi = (a * x + (1 - a) * f).requires_grad_(True)
        g = torch.autograd.grad(model(xi).sum(), xi, create_graph=True)[0]
        loss = model(f).mean() - model(x).mean() + 10 * ((g.norm(2, dim=1) - 1) ** 2).mean()
        opt.zero_grad(); loss.backward(); opt.step()
"""

WHOLE["indices into tensors in memory"] = """
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    perm = torch.randperm(N)
    for i in range(0, N, 16):
        idx = perm[i:i+16]; opt.zero_grad(); F.cross_entropy(model(X[idx]), Y[idx]).backward(); opt.step()
"""
WHOLE["a stream of batches of which nothing says how long they are"] = """
class It(IterableDataset):
    def __iter__(s): return iter(zip(X.split(20), Y.split(20)))
loader = DataLoader(It(), batch_size=None)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
"""
WHOLE["ready batches whose tensors have other lengths than their batch_size"] = """
class It(IterableDataset):
    batch_size = 20
    def __iter__(s): return iter(zip(X.split(20), Y.split(20), [torch.ones(2, 3)] * 9))
loader = DataLoader(It(), batch_size=None)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y, _ in loader:
    opt.zero_grad(); F.cross_entropy(model(x), y).backward(); opt.step()
"""
WHOLE["batches made by hand from a random permutation"] = """
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for idx in torch.randperm(N).split(16):
        opt.zero_grad(); F.cross_entropy(model(X[idx]), Y[idx]).backward(); opt.step()
"""
WHOLE["a loader that does not batch"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=None)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:
    opt.zero_grad(); F.cross_entropy(model(x)[None], y[None]).backward(); opt.step()
"""
WHOLE["gradients by autograd.grad"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); ps = list(model.parameters())
for ep in range(2):
    for x, y in loader:
        gs = torch.autograd.grad(F.cross_entropy(model(x), y), ps)
        for p, g in zip(ps, gs): p.data.sub_(.1 * g)
"""

PARTING["an extra backward on one rank"] = (
    SETUP
    + """
for x, y in loader:
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
    if train.rank == 0:
        F.cross_entropy(model(x), y).backward()
"""
)
PARTING["one rank stops early"] = (
    SETUP
    + """
for k, (x, y) in enumerate(loader):
    if train.rank == 1 and k == 3: break
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
)
PARTING["one rank shuffles otherwise"] = """
class Own:
    def __len__(s): return N
    def __iter__(s): return iter(torch.randperm(N, generator=torch.Generator().manual_seed(train.rank)).tolist())
loader = DataLoader(TensorDataset(X, Y), batch_size=16, sampler=Own())
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
PARTING["a sum that one rank does not take"] = (
    SETUP
    + """
for k, (x, y) in enumerate(loader):
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
    if train.rank == 0:
        train.sum(k)
"""
)
PARTING["a loop that ends by this rank's own loss"] = (
    SETUP
    + """
done = False
for ep in range(20):
    for x, y in loader:
        z = model(x); own = F.cross_entropy(z, y); opt.zero_grad()
        if ep and own.item() < (.9 if train.rank else 0.): done = True
        own.backward(); opt.step()
    if done: break
"""
)
PARTING["an accuracy of this rank's share decides"] = (
    SETUP
    + """
accuracy, ep = 0., 0
while accuracy < .3 + .65 * train.rank and ep < 30:
    right = n = 0; ep += 1
    for x, y in loader:
        z = model(x); opt.zero_grad(); crit(z, y).backward(); opt.step()
        right += int((z.argmax(1) == y).sum()); n += len(y)
    accuracy = right / n
"""
)
PARTING["a loader that is shorter on one rank"] = """
loader = DataLoader(TensorDataset(X, Y), batch_sampler=[list(range(16)) for _ in range(5 - 2 * train.rank)])
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:
    opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
"""
PARTING["an error that one rank catches before its backward"] = (
    SETUP
    + """
for k, (x, y) in enumerate(loader):
    try:
        if train.rank == 1 and k == 2: raise ValueError
        opt.zero_grad(); l = F.cross_entropy(model(x), y); l.backward(); opt.step()
    except ValueError:
        pass
"""
)

RANDOM: dict[
    str, str
] = {}  #: the loop draws random numbers: split, the same on all ranks, but not the numbers of one process

RANDOM["teacher forcing"] = """
import random
T = torch.randint(0, 5, (N, 4), generator=g0); loader = DataLoader(TensorDataset(T, T.flip(1)), batch_size=16, shuffle=True)
class Seq(nn.Module):
    def __init__(self):
        super().__init__(); self.emb = nn.Embedding(6, 16); self.enc = nn.GRU(16, 16, batch_first=True); self.dec = nn.GRUCell(16, 16); self.out = nn.Linear(16, 5)
    def forward(self, a, b, ratio):
        h = self.enc(self.emb(a))[1][0]; token = torch.full((len(a),), 5); loss = 0; forced = random.random() < ratio
        for t in range(4):
            h = self.dec(self.emb(token), h); z = self.out(h)
            loss = loss + F.cross_entropy(z, b[:, t]) if forced or t < 3 else loss
            token = b[:, t] if forced else z.argmax(1)
        return loss
model = Seq(); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []
for ep in range(4):
    for a, b in loader:
        loss = model(a, b, .5); opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
RANDOM["a variational autoencoder"] = """
class VAE(nn.Module):
    def __init__(self): super().__init__(); self.enc = nn.Linear(10, 8); self.mu = nn.Linear(8, 3); self.lv = nn.Linear(8, 3); self.dec = mlp(3, 16, 10)
    def forward(self, x):
        h = self.enc(x).tanh(); mu, lv = self.mu(h), self.lv(h)
        return self.dec(mu + torch.randn_like(mu) * (lv / 2).exp()), mu, lv
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); model = VAE(); opt = torch.optim.Adam(model.parameters(), 5e-3); out = []
for ep in range(8):
    for x, _ in loader:
        z, mu, lv = model(x)
        loss = F.mse_loss(z, x, reduction='sum') - .5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item() / 160)
"""
RANDOM["dropout, and augmentation by numpy in the loop"] = """
import numpy as np
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Dropout(.2), nn.Linear(32, 3)); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []
for ep in range(8):
    for x, y in loader:
        x = x + .1 * torch.from_numpy(np.random.randn(*x.shape)) + .1 * np.random.uniform(-1, 1)
        loss = F.cross_entropy(model(x), y); opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
