"""Cells that mix the samples of a batch before their loss is averaged, marked by ``# whole``: a word of the remark, and the cell."""

from __future__ import annotations

MIXED: dict[str, tuple[str, str]] = {}
APART: dict[str, str] = {}  #: cells that look like those and do not mix anything

_HEAD = "loader = DataLoader(TensorDataset(X, Y), batch_size=16); model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.05)\n"
_STEP = "opt.zero_grad(); loss.backward(); opt.step()\n"


def _loop(body: str, before: str = "", mark: str = "  # whole") -> str:
    lines = "".join(f"        {line}\n" for line in body.strip().splitlines())
    return f"{_HEAD}{before}\nfor ep in range(2):\n    for x, y in loader:{mark}\n{lines}        {_STEP}"


MIXED["the hardest of a batch (triplet loss)"] = (
    "compares the samples",
    _loop(
        """
z = model(x); d = torch.cdist(z, z); same = y[:, None] == y[None]
loss = (d.masked_fill(~same, 0).max(1).values - d.masked_fill(same, 1e9).min(1).values + 1).relu().mean()
"""
    ),
)
MIXED["mixup"] = (
    "puts other samples of the batch into each sample",
    _loop(
        """
at = torch.arange(len(x)).flip(0)
z = model(.7 * x + .3 * x[at]); loss = .7 * F.cross_entropy(z, y) + .3 * F.cross_entropy(z, y[at])
"""
    ),
)
MIXED["inputs normalised by the batch"] = (
    "`x - x.mean(0)` puts a quantity of the whole batch back",
    _loop("x = (x - x.mean(0)) / x.std(0); loss = F.cross_entropy(model(x), y)"),
)
MIXED["class weights of the batch"] = (
    "puts a quantity of the whole batch back",
    _loop(
        """
w = torch.bincount(y, minlength=3).to(x.dtype); w = w.sum() / (w + 1)
loss = F.cross_entropy(model(x), y, weight=w)
"""
    ),
)
MIXED["a centre kept as a running mean"] = (
    "puts a quantity of the whole batch back",
    _loop(
        """
z = model(x); loss = F.cross_entropy(z, y) + ((z - center) ** 2).mean()
center = .9 * center + .1 * z.mean(0).detach()
""",
        "center = torch.zeros(3)",
    ),
)
MIXED["k-means centres, written in place"] = (
    "puts a quantity of the whole batch back",
    _loop(
        """
z = model(x); a = torch.cdist(z.detach(), C).argmin(1); loss = ((z - C[a]) ** 2).sum(1).mean()
for k in range(3):
    if (a == k).any(): C[k] = .9 * C[k] + .1 * z[a == k].mean(0).detach()
""",
        "C = X[:3, :3].clone()",
    ),
)
MIXED["a queue of what came before (MoCo)"] = (
    "puts a quantity of the whole batch back",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=8, drop_last=True); model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.05)
queue = torch.zeros(32, 3)
for ep in range(2):
    for x, y in loader:  # whole
        q = F.normalize(model(x), dim=1); k = F.normalize(model(x + .1), dim=1).detach()
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1)
        loss = F.cross_entropy(logits / .1, torch.zeros(len(x), dtype=torch.long))
        opt.zero_grad(); loss.backward(); opt.step()
        queue = torch.cat([queue[len(k):], k])
""",
)
MIXED["a recurrent network along the batch"] = (
    "`model.r(x[None], h)` ",
    """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.r = nn.GRU(10, 8, batch_first=True); self.o = nn.Linear(8, 3)
loader = DataLoader(TensorDataset(X, Y), batch_size=8, drop_last=True); model = Net(); opt = torch.optim.SGD(model.parameters(), lr=.05)
for ep in range(2):
    h = torch.zeros(1, 1, 8)
    for x, y in loader:  # whole
        o, h = model.r(x[None], h); h = h.detach(); loss = F.cross_entropy(model.o(o[0]), y)
        opt.zero_grad(); loss.backward(); opt.step()
""",
)
MIXED["attention over the batch"] = (
    "compares the samples",
    """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.MultiheadAttention(10, 2); self.o = nn.Linear(10, 3)
    def forward(self, x): return self.o(self.a(x, x, x)[0])
loader = DataLoader(TensorDataset(X, Y), batch_size=8, drop_last=True); model = Net(); opt = torch.optim.SGD(model.parameters(), lr=.05)
for x, y in loader:  # whole
    loss = F.cross_entropy(model(x), y); opt.zero_grad(); loss.backward(); opt.step()
""",
)
MIXED["a second stage on what a split loop collected"] = (
    "what it trains on comes from the loop of line",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=8); model = nn.ModuleList([mlp(), nn.Linear(3, 3)]); opt = torch.optim.SGD(model.parameters(), lr=.05)
feats = []; ys = []
for x, y in loader:  # whole
    z = model[0](x); loss = F.cross_entropy(z, y); opt.zero_grad(); loss.backward(); opt.step()
    feats.append(z.detach()); ys.append(y)
feats = torch.cat(feats); ys = torch.cat(ys)
for k in range(5):
    loss = F.cross_entropy(model[1](feats), ys); opt.zero_grad(); loss.backward(); opt.step()
""",
)

APART["metrics over the batch"] = _loop(
    """
z = model(x); loss = F.cross_entropy(z, y); p = z.detach().softmax(0); ranks = z[:, 0].detach().sort().values
seen = seen + (z.argmax(1) == y).sum(); pairs = torch.cdist(z, z).mean(); gap = (ranks - ranks.mean()).abs().sum()
""",
    "seen = torch.zeros(())",
    "",
)
APART["a masked mean, and picks by label"] = _loop(
    """
z = F.log_softmax(model(x), 1); l = -z[torch.arange(len(y)), y]; m = (x[:, 0] > -5).to(x.dtype)
loss = (l * m).sum() / m.sum()
""",
    "",
    "",
)
APART["a table looked up by label"] = _loop(
    "z = model(x); loss = F.cross_entropy(z, y) + .1 * ((z - C[y]) ** 2).mean()", "C = X[:3, :3].clone()", ""
)
APART["sorted, and sorted back"] = _loop(
    """
order = x[:, 0].argsort(); back = order.argsort(); z = model(x[order])
loss = F.cross_entropy(z[back], y) + .1 * F.cross_entropy(z, y[order])
""",
    "",
    "",
)
APART["joined, and taken apart again"] = _loop(
    """
z = model(torch.cat([x, x + .1])); a, b = z.chunk(2); loss = F.cross_entropy(a, y) + (a - b).pow(2).sum(1).mean()
""",
    "",
    "",
)
APART["some samples through another layer"] = _loop(
    """
z = model(x); r = x[:, 1] > 0
if r.any():
    w = z.clone(); w[r] = z[r].tanh(); z = w
loss = F.cross_entropy(z, y)
""",
    "",
    "",
)
