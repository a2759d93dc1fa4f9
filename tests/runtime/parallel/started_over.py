"""Cells with loops that cannot be split, marked by ``# whole`` (some on 4 ranks only): the word that the remark has, and the cell."""

from __future__ import annotations

WHOLE_AGAIN: dict[str, tuple[str, str]] = {}

WHOLE_AGAIN["pairs of a batch (InfoNCE)"] = (
    "compares the samples of a batch with each other",
    """
loader = DataLoader(TensorDataset(X, X + .1 * torch.randn(N, 10)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.AdamW(model.parameters(), lr=.01)
for ep in range(2):
    for a, b in loader:  # whole
        opt.zero_grad(); loss = F.cross_entropy(model(a) @ model(b).T, torch.arange(len(a))); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["the root of a mean"] = (
    "through a square root after averaging",
    """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = nn.Sequential(mlp(o=8), nn.BatchNorm1d(8), nn.Dropout(.3), nn.Linear(8, 3))
opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:  # whole
        opt.zero_grad(); loss = torch.sqrt(F.mse_loss(model(x), y)); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["the logarithm of a mean, in a method"] = (
    "through a logarithm after averaging",
    """
class Trainer:
    def __init__(self, model): self.model = model; self.opt = torch.optim.SGD(model.parameters(), lr=.1)
    def fit(self, loader):
        for x, y in loader:  # whole
            self.opt.zero_grad(); self.loss(x, y).backward(); self.opt.step()
    def loss(self, x, y): return F.mse_loss(self.model(x), y).log()
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = mlp(); trainer = Trainer(model)
for ep in range(2): trainer.fit(loader)
""",
)
WHOLE_AGAIN["a ratio of sums (Dice)"] = (
    "divides two quantities of the batch",
    """
loader = DataLoader(TensorDataset(X, (X[:, :3] > 0).to(X.dtype)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    p = model(x).sigmoid(); loss = 1 - (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
    opt.zero_grad(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["a term scaled by a quantity of the batch"] = (
    "scaled by a quantity of the batch",
    """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    opt.zero_grad(); loss = F.mse_loss(model(x), y) / y.var(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["statistics of the batch by hand"] = (
    "over the samples of a batch before averaging",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    z = model(x); z = z - z.mean(0)
    opt.zero_grad(); loss = F.cross_entropy(z, y); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["sparse gradients, SparseAdam beside Adam"] = (
    "the gradients are sparse",
    """
loader = DataLoader(TensorDataset(Y, Y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Embedding(3, 4, sparse=True), nn.Linear(4, 3))
opts = [torch.optim.SparseAdam(model[0].parameters()), torch.optim.Adam(model[1].parameters())]
for ep in range(2):
    for x, y in loader:  # whole
        for o in opts: o.zero_grad()
        loss = F.cross_entropy(model(x), y); loss.backward()
        for o in opts: o.step()
""",
)
WHOLE_AGAIN["gradients that become sparse later on"] = (
    "the gradients are sparse",
    """
loader = DataLoader(TensorDataset(Y, Y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 3)); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(3):
    model[0].sparse = ep == 1
    for x, y in loader:  # whole
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["autograd.grad of parameters beside backward"] = (
    "gradients of weights are taken without backward()",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    opt.zero_grad(); loss = F.cross_entropy(model(x), y)
    gs = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    (loss + .1 * sum(g.pow(2).sum() for g in gs)).backward(); opt.step()
""",
)
WHOLE_AGAIN["backward of a vector"] = (
    "backward() of something that is not one number",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = 0
for x, y in loader:  # whole
    opt.zero_grad(); F.cross_entropy(model(x), y, reduction="none").backward(torch.ones(len(x)) / len(x)); opt.step(); out += 1
""",
)
WHOLE_AGAIN["loaders read together, with a batch that is too small"] = (
    "a batch of fewer samples than there are ranks",
    """
one = DataLoader(TensorDataset(X[:82], Y[:82]), batch_size=16, shuffle=True); two = DataLoader(TensorDataset(X), batch_size=14)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for (x, y), (u,) in zip(one, two):  # whole: the last batch has no sample for two of 4 ranks
        opt.zero_grad(); loss = F.cross_entropy(model(x), y) + model(u).pow(2).mean(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["two loops of three, met one after the other"] = (
    "through a square root",
    """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    opt.zero_grad(); loss = F.mse_loss(model(x), y).sqrt(); loss.backward(); opt.step()
for x, y in loader:
    opt.zero_grad(); loss = F.mse_loss(model(x), y); loss.backward(); opt.step()
for x, y in loader:  # whole
    opt.zero_grad(); loss = F.mse_loss(model(x), y) ** .5; loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["a loss that is another one from the second epoch on"] = (
    "compares the samples",
    """
loader = DataLoader(TensorDataset(X, X + .1 * torch.randn(N, 10)), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for a, b in loader:  # whole
        z, w = model(a), model(b)
        loss = F.mse_loss(z, w) if not ep else F.cross_entropy(z @ w.T, torch.arange(len(a)))
        opt.zero_grad(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["iter and next, whole at first anyway"] = (
    "through a square root",
    """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    it = iter(loader)  # whole
    for k in range(len(loader)):
        x, y = next(it)
        opt.zero_grad(); loss = F.mse_loss(model(x), y).sqrt(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["what is caught as an Exception"] = (
    "through a square root",
    """
loader = DataLoader(TensorDataset(X, X[:, :3]), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1); out = []
for x, y in loader:  # whole
    try:
        opt.zero_grad(); loss = F.mse_loss(model(x), y).sqrt(); loss.backward(); opt.step()
    except Exception as error:
        out.append(str(error))
""",
)
WHOLE_AGAIN["complex parameters"] = (
    "the gradients are complex",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
class Spectral(nn.Module):
    def __init__(self):
        super().__init__(); self.w = nn.Parameter(torch.view_as_complex(torch.randn(6, 2))); self.out = nn.Linear(10, 3)
    def forward(self, x): return self.out(torch.fft.irfft(torch.fft.rfft(x) * self.w, n=10))
spectral = Spectral(); model = spectral.out; opt = torch.optim.SGD(spectral.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:  # whole
        opt.zero_grad(); loss = F.cross_entropy(spectral(x), y); loss.backward(); opt.step()
spectrum = spectral.w.detach().clone()
""",
)
WHOLE_AGAIN["a gradient penalty through a BatchNorm"] = (
    "differentiates twice",
    """
loader = DataLoader(TensorDataset(X), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 1))
opt = torch.optim.SGD(model.parameters(), lr=.05)
for ep in range(2):
    for (x,) in loader:  # whole
        x = x.clone().requires_grad_(); score = model(x)
        (g,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        opt.zero_grad(); loss = score.mean() + ((g.norm(2, dim=1) - 1) ** 2).mean(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["a batch size that is written down (labels, reshape)"] = (
    "as where the cell relies on the batch size that it asked for",
    """
B = 16; loader = DataLoader(TensorDataset(X), batch_size=B, shuffle=True, drop_last=True)
model = mlp(10, 16, 1); other = mlp(4, 16, 10)
dopt = torch.optim.Adam(model.parameters(), 1e-2); gopt = torch.optim.Adam(other.parameters(), 1e-2)
for ep in range(2):
    for (x,) in loader:  # whole
        real, fake = torch.ones(B, 1), torch.zeros(B, 1); x = x.reshape(B, -1)
        made = other(torch.randn(B, 4))
        loss = F.binary_cross_entropy_with_logits(model(x), real) + F.binary_cross_entropy_with_logits(model(made.detach()), fake)
        dopt.zero_grad(); loss.backward(); dopt.step()
        gopt.zero_grad(); F.binary_cross_entropy_with_logits(model(made), real).backward(); gopt.step()
""",
)
WHOLE_AGAIN["a hidden state of the batch size, in a method"] = (
    "as where the cell relies on the batch size that it asked for",
    """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.rnn = nn.GRU(2, 8, batch_first=True); self.out = nn.Linear(8, 3)
    def forward(self, x, h): return self.out(self.rnn(x, h)[0][:, -1])
loader = DataLoader(TensorDataset(X.view(N, 5, 2), Y), batch_size=16, shuffle=True, drop_last=True)
model = Net(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:  # whole
        opt.zero_grad(); F.cross_entropy(model(x, torch.zeros(1, 16, 8)), y).backward(); opt.step()
""",
)
WHOLE_AGAIN["a covariance against the unit matrix"] = (
    "put together from the samples of a batch",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    z = model(x); opt.zero_grad(); loss = F.mse_loss(z.T @ z / len(z), torch.eye(3)); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["pairs of a batch, behind a softmax and a mask"] = (
    "compares the samples of a batch with each other",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    z = F.normalize(model(x)); same = (y[:, None] == y[None]).to(z.dtype)
    loss = -((z @ z.T).log_softmax(1) * same).sum(1).mean(); opt.zero_grad(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["gradients of copies of weights, by torch.func"] = (
    "gradients of weights are taken without backward()",
    """
from torch.func import functional_call, grad
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    ps = {k: v.detach() for k, v in model.named_parameters()}
    g = grad(lambda p: F.cross_entropy(functional_call(model, p, (x,)), y))(ps)
    with torch.no_grad():
        for k, v in model.named_parameters(): v.sub_(.05 * g[k])
    opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["gradients of gradients (MAML)"] = (
    "gradients of weights are taken without backward()",
    """
from torch.func import functional_call
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    fast = dict(model.named_parameters())
    for k in range(2):
        inner = F.cross_entropy(functional_call(model, fast, (x,)), y)
        gs = torch.autograd.grad(inner, list(fast.values()), create_graph=True)
        fast = {n: p - .1 * g for (n, p), g in zip(fast.items(), gs)}
    opt.zero_grad(); loss = F.cross_entropy(functional_call(model, fast, (x,)), y); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["a state that an RNN hands from batch to batch"] = (
    "as where the cell relies on the batch size that it asked for",
    """
loader = DataLoader(TensorDataset(torch.randn(N, 5, 4), Y), batch_size=12, drop_last=True); out = []
model = nn.ModuleDict({"rnn": nn.RNN(4, 8, batch_first=True), "head": nn.Linear(8, 3)}); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    h = None
    for x, y in loader:  # whole
        z, h = model["rnn"](x, h); h = h.detach()
        opt.zero_grad(); loss = F.cross_entropy(model["head"](z[:, -1]), y); loss.backward(); opt.step(); out.append(loss.item())
""",
)

WHOLE_AGAIN["a codebook that follows the batches (VQ)"] = (
    "the buffer model.codes is filled from the batch",
    """
loader = DataLoader(TensorDataset(X), batch_size=16, shuffle=True)
class VQ(nn.Module):
    def __init__(self):
        super().__init__(); self.enc = nn.Linear(10, 4); self.dec = nn.Linear(4, 10); self.register_buffer("codes", torch.randn(8, 4))
    def forward(self, x):
        z = self.enc(x); which = torch.cdist(z, self.codes).argmin(1); q = self.codes[which]
        if self.training:
            with torch.no_grad(): self.codes[which] = .9 * self.codes[which] + .1 * z
        return self.dec(z + (q - z).detach()), (z - q.detach()).pow(2).mean()
model = VQ(); opt = torch.optim.Adam(model.parameters(), lr=.01)
for ep in range(2):
    for (x,) in loader:  # whole
        made, commit = model(x); loss = F.mse_loss(made, x) + commit
        opt.zero_grad(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["a centre that is moved after the step"] = (
    "the buffer student.center is filled from the batch",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); student = nn.Module(); student.register_buffer("center", torch.zeros(3)); opt = torch.optim.SGD(model.parameters(), lr=.1)
for x, y in loader:  # whole
    z = model(x); opt.zero_grad(); loss = F.cross_entropy(z - student.center, y); loss.backward(); opt.step()
    with torch.no_grad(): student.center.lerp_(z.mean(0), .1)
""",
)

#: Gradients of samples, on shares: nothing has to be started over for them.
OF_SAMPLES: dict[str, str] = {}
_BEGIN = """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:
        x = x.clone().requires_grad_()
"""
OF_SAMPLES["a penalty on the gradient of a mean"] = (
    _BEGIN
    + """
        loss = F.cross_entropy(model(x), y)
        (g,) = torch.autograd.grad(loss, x, create_graph=True)
        opt.zero_grad(); (loss + 10 * (16 * g).pow(2).sum(1).mean()).backward(); opt.step()
"""
)
OF_SAMPLES["a step along the gradient, by autograd.grad"] = (
    _BEGIN
    + """
        (g,) = torch.autograd.grad([F.cross_entropy(model(x), y)], x)
        opt.zero_grad(); F.cross_entropy(model((x + 10 * g).detach()), y).backward(); opt.step()
"""
)
OF_SAMPLES["a step along the gradient, by backward"] = (
    _BEGIN
    + """
        F.cross_entropy(model(x), y).backward()
        opt.zero_grad(); F.cross_entropy(model((x + 10 * x.grad).detach()), y).backward(); opt.step()
"""
)
OF_SAMPLES["a gradient penalty (WGAN-GP) on scores"] = (
    _BEGIN
    + """
        s = model(x)[:, :1]
        (g,) = torch.autograd.grad(s, x, torch.ones_like(s), create_graph=True)
        opt.zero_grad(); (s.mean() + ((g.norm(2, dim=1) - 1) ** 2).mean()).backward(); opt.step()
"""
)
OF_SAMPLES["a gradient penalty (WGAN-GP) on a sum"] = OF_SAMPLES[
    "a gradient penalty (WGAN-GP) on scores"
].replace("s, x, torch.ones_like(s)", "s.sum(), x")
WHOLE_AGAIN["as many terms as the longest sequence of the batch is long"] = (
    "terms on",
    """
L = torch.arange(N) % 7 + 1
def collate(samples):
    return nn.utils.rnn.pad_sequence([x[:n] for x, n, y in samples], batch_first=True), torch.stack([y for x, n, y in samples])
loader = DataLoader(TensorDataset(X, L, Y), batch_size=5, shuffle=True, collate_fn=collate)
model = nn.RNNCell(1, 3); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(2):
    for x, y in loader:  # whole
        h = torch.zeros(len(x), 3); loss = 0
        for t in range(x.shape[1]): h = model(x[:, t:t + 1], h); loss = loss + F.cross_entropy(h, y)
        opt.zero_grad(); loss.backward(); opt.step()
""",
)
WHOLE_AGAIN["terms that a random tensor decides about, late"] = (
    "made of other terms on one part of the batch",
    """
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True); torch.manual_seed(7); k = 0
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1)
for ep in range(3):
    for x, y in loader:  # whole
        k += 1; z = model(x); loss = F.cross_entropy(z, y)
        if k < 4 or torch.rand(1).item() < .5: loss = loss + .1 * z.pow(2).mean()
        opt.zero_grad(); loss.backward(); opt.step()
""",
)
