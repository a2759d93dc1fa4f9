"""Rows of the matrix: kinds of models. Each leaves its model in ``model``."""

from __future__ import annotations

MODELS: dict[str, str] = {}

STEP = """
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
DATA = "loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []\n"
ADAM = "opt = torch.optim.Adam(model.parameters(), 1e-2)\n"
SGD = "opt = torch.optim.SGD(model.parameters(), .1, momentum=.9)\n"

MODELS["a recurrent cell unrolled by hand, a loss per step"] = """
loader = DataLoader(TensorDataset(torch.randn(N, 5, 4), torch.randn(N, 5)), batch_size=12, shuffle=True); out = []
model = nn.ModuleDict({"cell": nn.GRUCell(4, 8), "head": nn.Linear(8, 1)}); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, y in loader:
        h = torch.zeros(len(x), 8); loss = 0.
        for t in range(5):
            h = model["cell"](x[:, t], h); loss = loss + F.mse_loss(model["head"](h).squeeze(1), y[:, t]) / 5
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["a Transformer with padding masks"] = """
lengths = torch.arange(N) % 5 + 2
tokens = torch.randint(1, 11, (N, 6)).masked_fill(torch.arange(6)[None] >= lengths[:, None], 0)
loader = DataLoader(TensorDataset(tokens), batch_size=12, shuffle=True); out = []
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(11, 8, padding_idx=0)
        self.t = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0., batch_first=True), 2, enable_nested_tensor=False); self.o = nn.Linear(8, 11)
    def forward(self, x): return self.o(self.t(self.e(x), mask=nn.Transformer.generate_square_subsequent_mask(6), src_key_padding_mask=torch.zeros_like(x, dtype=torch.get_default_dtype()).masked_fill(x == 0, float("-inf")), is_causal=True))
model = Net(); opt = torch.optim.AdamW(model.parameters(), 1e-2)
for ep in range(2):
    for (x,) in loader:
        loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten(), ignore_index=0)
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["an encoder and a decoder, a sum divided by its tokens"] = """
source = torch.randint(1, 9, (N, 5)); target = torch.randint(1, 9, (N, 4)); target[torch.arange(N) % 3 == 0, 2:] = 0
loader = DataLoader(TensorDataset(source, target), batch_size=12, shuffle=True); out = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Embedding(9, 8); self.enc = nn.GRU(8, 8, batch_first=True); self.dec = nn.GRU(8, 8, batch_first=True); self.o = nn.Linear(8, 9)
    def forward(self, s, t):
        _, h = self.enc(self.e(s)); t = torch.cat([torch.zeros_like(t[:, :1]), t[:, :-1]], 1)
        return self.o(self.dec(self.e(t), h)[0])
model = Net(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for s, t in loader:
        loss = F.cross_entropy(model(s, t).transpose(1, 2), t, reduction="none"); kept = t != 0
        loss = (loss * kept).sum() / kept.sum()
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
for _dims in (1, 2, 3):
    MODELS[f"BatchNorm{_dims}d"] = f"""
loader = DataLoader(TensorDataset(torch.randn(N, 3{", 4" * _dims}), Y), batch_size=12, shuffle=True); out = []
model = nn.Sequential(nn.Conv{_dims}d(3, 4, 2), nn.BatchNorm{_dims}d(4), nn.ReLU(), nn.Flatten(), nn.Linear({4 * 3**_dims}, 3)); {SGD}{STEP}
model.eval()
with torch.no_grad(): out.append(sum(F.cross_entropy(model(x), y).item() for x, y in loader))
"""
MODELS["BatchNorms of all kinds"] = f"""
{DATA}
model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8, momentum=None), nn.Tanh(), nn.BatchNorm1d(8, affine=False, momentum=.3), nn.Linear(8, 8),
                      nn.BatchNorm1d(8, track_running_stats=False), nn.Tanh(), nn.BatchNorm1d(8, eps=.1), nn.Linear(8, 3)); {SGD}{STEP}
"""
MODELS["BatchNorm that a fine-tuning keeps in eval"] = f"""
{DATA}
body = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU()); body.requires_grad_(False); head = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 3))
model = nn.Sequential(body, head); opt = torch.optim.Adam(head.parameters(), 1e-2)
for ep in range(3):
    model.train(); body.eval()
    if ep == 1: body[0].requires_grad_(True); opt.add_param_group({{"params": body[0].parameters(), "lr": 1e-3}})
    if ep == 2: body.train()
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["norms of a layer, of groups and of an instance"] = f"""
loader = DataLoader(TensorDataset(torch.randn(N, 4, 5), Y), batch_size=12, shuffle=True); out = []
model = nn.Sequential(nn.Conv1d(4, 4, 2), nn.GroupNorm(2, 4), nn.ReLU(), nn.InstanceNorm1d(4, affine=True), nn.Flatten(), nn.LayerNorm(16), nn.RMSNorm(16), nn.Linear(16, 3)); {ADAM}{STEP}
"""
MODELS["a GAN whose networks have BatchNorm"] = """
loader = DataLoader(TensorDataset(X, torch.randn(N, 6)), batch_size=12, shuffle=True); out = []
G = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)); D = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.LeakyReLU(.2), nn.Linear(16, 1), nn.Sigmoid())
model = nn.ModuleList([G, D]); og = torch.optim.SGD(G.parameters(), .05); od = torch.optim.SGD(D.parameters(), .05); bce = nn.BCELoss()
for ep in range(2):
    for real, z in loader:
        n = real.size(0); ones = torch.full((n,), 1.); zeros = torch.full((n,), 0.)
        D.zero_grad(); err_real = bce(D(real).view(-1), ones); err_real.backward()
        fake = G(z); err_fake = bce(D(fake.detach()).view(-1), zeros); err_fake.backward(); od.step()
        G.zero_grad(); err_g = bce(D(fake).view(-1), ones); err_g.backward(); og.step()
        out += [err_real.item(), err_fake.item(), err_g.item()]
"""
MODELS["a WGAN that clips its weights, five critic steps for one"] = """
loader = DataLoader(TensorDataset(X, torch.randn(N, 6)), batch_size=12, shuffle=True); out = []
G = mlp(6, 16, 10); D = mlp(10, 16, 1); model = nn.ModuleList([G, D]); og = torch.optim.RMSprop(G.parameters(), 1e-3); od = torch.optim.RMSprop(D.parameters(), 1e-3)
for ep in range(2):
    for k, (real, z) in enumerate(loader):
        od.zero_grad(); loss = -D(real).mean() + D(G(z).detach()).mean(); loss.backward(); od.step()
        for p in D.parameters(): p.data.clamp_(-.05, .05)
        if k % 5 == 0:
            og.zero_grad(); loss_g = -D(G(z)).mean(); loss_g.backward(); og.step(); out.append(loss_g.item())
"""
MODELS["a GAN that calls backward at one line for both networks"] = """
loader = DataLoader(TensorDataset(X, torch.randn(N, 6)), batch_size=12, shuffle=True); out = []
G = mlp(6, 16, 10); D = mlp(10, 16, 1); model = nn.ModuleList([G, D])
opts = [torch.optim.Adam(m.parameters(), 1e-2) for m in (G, D)]
def update(opt, loss): opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
for ep in range(2):
    for x, z in loader:
        update(opts[1], F.softplus(-D(x)).mean() + F.softplus(D(G(z).detach())).mean())
        update(opts[0], F.softplus(-D(G(z))).mean())
"""
MODELS["a siamese network with a triplet loss"] = """
loader = DataLoader(TensorDataset(X, X.roll(1, 0), X.flip(0)), batch_size=12, shuffle=True); out = []
model = mlp(); opt = torch.optim.SGD(model.parameters(), .05); crit = nn.TripletMarginLoss(margin=.5)
for ep in range(2):
    for a, p, n in loader:
        opt.zero_grad(); loss = crit(model(a), model(p), model(n)); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["a siamese network with a contrastive loss of pairs"] = """
loader = DataLoader(TensorDataset(X, X.flip(0), (Y == Y.flip(0)).double().to(X.dtype)), batch_size=12, shuffle=True); out = []
model = mlp(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for a, b, same in loader:
        d = F.pairwise_distance(model(a), model(b))
        loss = torch.mean(same * d.pow(2) + (1 - same) * torch.clamp(1. - d, min=0.).pow(2))
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["embeddings, a bag of words of any length"] = """
words = [torch.randint(0, 20, (1 + k % 6,), generator=g0) for k in range(N)]
class Texts(Dataset):
    def __len__(self): return N
    def __getitem__(self, k): return words[k], Y[k]
def collate(samples):
    text, label = zip(*samples); lengths = torch.tensor([0] + [len(t) for t in text[:-1]])
    return torch.cat(text), lengths.cumsum(0), torch.stack(label)
loader = DataLoader(Texts(), batch_size=12, shuffle=True, collate_fn=collate); out = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.EmbeddingBag(20, 8); self.o = nn.Linear(8, 3)
    def forward(self, t, o): return self.o(self.e(t, o))
model = Net(); opt = torch.optim.SGD(model.parameters(), .5)
for ep in range(2):
    for t, o, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(t, o), y); loss.backward(); nn.utils.clip_grad_norm_(model.parameters(), .1); opt.step(); out.append(loss.item())
"""
MODELS["a factorisation of a matrix, with biases"] = """
users = torch.randint(0, 15, (N,)); items = torch.randint(0, 12, (N,)); stars = torch.randn(N)
loader = DataLoader(TensorDataset(users, items, stars), batch_size=12, shuffle=True); out = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.u = nn.Embedding(15, 4); self.i = nn.Embedding(12, 4); self.b = nn.Embedding(15, 1); self.mean = nn.Parameter(torch.zeros(()))
    def forward(self, u, i): return (self.u(u) * self.i(i)).sum(1) + self.b(u).squeeze(1) + self.mean
model = Net(); opt = torch.optim.Adagrad(model.parameters(), .1)
for ep in range(2):
    for u, i, s in loader:
        opt.zero_grad(); loss = F.mse_loss(model(u, i), s); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["two tasks with a loss each, and a third now and then"] = """
loader = DataLoader(TensorDataset(X, Y, X[:, :2]), batch_size=12, shuffle=True); out = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.b = nn.Linear(10, 16); self.c = nn.Linear(16, 3); self.r = nn.Linear(16, 2); self.a = nn.Linear(16, 1)
    def forward(self, x): h = torch.tanh(self.b(x)); return self.c(h), self.r(h), self.a(h)
model = Net(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for k, (x, y, t) in enumerate(loader):
        c, r, a = model(x); loss_c = F.cross_entropy(c, y); loss_r = F.mse_loss(r, t, reduction="sum")
        loss = loss_c + .01 * loss_r
        if k % 3 == 0: loss = loss + .1 * F.l1_loss(a.squeeze(1), t[:, 0])
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["a pupil that learns from a teacher"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []
teacher = mlp(10, 32, 3).eval(); model = mlp(10, 8, 3); opt = torch.optim.Adam(model.parameters(), 1e-2); T = 2.
for ep in range(2):
    for x, y in loader:
        with torch.no_grad(): soft = teacher(x)
        z = model(x)
        kd = nn.KLDivLoss(reduction="batchmean")(F.log_softmax(z / T, 1), F.softmax(soft / T, 1)) * (T * T)
        loss = .7 * kd + .3 * F.cross_entropy(z, y)
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["nn.DataParallel in old code"] = f"""
{DATA}
net = nn.DataParallel(mlp()); opt = torch.optim.SGD(net.parameters(), .1, momentum=.9); crit = nn.CrossEntropyLoss()
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = crit(net(x), y).mean(); loss.backward(); opt.step(); out.append(loss.item())
model = net.module
"""
MODELS["weights under a norm and a parametrization"] = f"""
{DATA}
class Symmetric(nn.Module):
    def forward(self, w): return w.triu() + w.triu(1).T
model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(10, 8)), nn.Tanh(), nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 3))
nn.utils.parametrize.register_parametrization(model[4], "weight", Symmetric()); {SGD}{STEP}
"""
MODELS["layers that find their sizes at the first batch"] = f"""
{DATA}
model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(3)); model(X[:2]); {SGD}{STEP}
"""
MODELS["gradients of the output by the input, as of a physics-informed network"] = """
points = torch.rand(N, 1); loader = DataLoader(TensorDataset(points), batch_size=12, shuffle=True); out = []
model = mlp(1, 16, 1); opt = torch.optim.Adam(model.parameters(), 1e-2); edge = torch.zeros(1, 1)
for ep in range(2):
    for (t,) in loader:
        t = t.requires_grad_(True); u = model(t)
        du = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
        loss = ((du + u) ** 2).mean() + F.mse_loss(model(edge), torch.ones(1, 1))
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["torch.func.functional_call with parameters in a dict"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []
net = mlp(); params = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}; opt = torch.optim.SGD(params.values(), .1, momentum=.9)
for ep in range(2):
    for x, y in loader:
        loss = F.cross_entropy(torch.func.functional_call(net, params, (x,)), y)
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
model = nn.ParameterList([p.detach() for p in params.values()])
"""
MODELS["an own autograd.Function in the model"] = f"""
{DATA}
class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): ctx.save_for_backward(x); return x.sign()
    @staticmethod
    def backward(ctx, g): (x,) = ctx.saved_tensors; return g * (x.abs() < 1)
class Binary(nn.Module):
    def forward(self, x): return Sign.apply(x)
model = nn.Sequential(nn.Linear(10, 16), Binary(), nn.Linear(16, 3)); {ADAM}{STEP}
"""
MODELS["a list of models, an ensemble"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []
members = [mlp(), mlp(10, 8, 3), nn.Linear(10, 3)]; opts = [torch.optim.Adam(m.parameters(), 1e-2) for m in members]
for ep in range(2):
    for x, y in loader:
        for m, o in zip(members, opts):
            o.zero_grad(); loss = F.cross_entropy(m(x), y); loss.backward(); o.step(); out.append(loss.item())
model = nn.ModuleList(members)
"""
MODELS["models of several folds, one after the other"] = """
from torch.utils.data import Subset
data = TensorDataset(X, Y); out = []; models = []
for fold in range(3):
    held = list(range(fold, N, 3)); kept = [i for i in range(N) if i % 3 != fold]
    loader = DataLoader(Subset(data, kept), batch_size=12, shuffle=True); held_out = DataLoader(Subset(data, held), batch_size=12)
    m = mlp(); opt = torch.optim.SGD(m.parameters(), .1); models.append(m)
    for ep in range(2):
        m.train()
        for x, y in loader:
            opt.zero_grad(); loss = F.cross_entropy(m(x), y); loss.backward(); opt.step()
    m.eval()
    with torch.inference_mode(): out.append(sum((m(x).argmax(1) == y).sum().item() for x, y in held_out) / len(held))
model = nn.ModuleList(models)
"""
MODELS["an attack on the inputs before each step"] = """
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True); out = []
model = mlp(); opt = torch.optim.SGD(model.parameters(), .1)
for ep in range(2):
    for x, y in loader:
        delta = torch.zeros_like(x, requires_grad=True)
        for _ in range(2):
            F.cross_entropy(model(x + delta), y).backward()
            delta.data = (delta + .05 * delta.grad.detach().sign()).clamp(-.1, .1); delta.grad.zero_()
        opt.zero_grad(); loss = F.cross_entropy(model(x + delta.detach()), y); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["segmentation with ignored pixels"] = """
images = torch.randn(N, 2, 4, 4); masks = torch.randint(0, 3, (N, 4, 4)); masks[torch.arange(N) % 4 == 0, :2] = 255
loader = DataLoader(TensorDataset(images, masks), batch_size=12, shuffle=True); out = []
model = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 3, 1)); opt = torch.optim.SGD(model.parameters(), .1)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y, ignore_index=255); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["boxes, as many as there are, divided by their number"] = """
boxes = [torch.randn(k % 4, 2, generator=g0) for k in range(N)]
class Scenes(Dataset):
    def __len__(self): return N
    def __getitem__(self, k): return X[k], {"boxes": boxes[k]}
loader = DataLoader(Scenes(), batch_size=12, shuffle=True, collate_fn=lambda samples: tuple(zip(*samples))); out = []
model = mlp(10, 16, 2); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for images, targets in loader:
        z = model(torch.stack(images)); count = sum(len(t["boxes"]) for t in targets)
        rows = torch.cat([z[k].expand_as(t["boxes"]) for k, t in enumerate(targets)]); wanted = torch.cat([t["boxes"] for t in targets])
        loss = F.smooth_l1_loss(rows, wanted, reduction="sum") / max(1, count)
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
MODELS["characters, and where they stand in time (CTC)"] = """
sounds = torch.randn(N, 8, 5); text = torch.randint(1, 4, (N, 3)); lengths = 1 + torch.arange(N) % 3
loader = DataLoader(TensorDataset(sounds, text, lengths), batch_size=12, shuffle=True); out = []
model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4)); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, t, n in loader:
        z = model(x).log_softmax(2).transpose(0, 1)
        loss = F.ctc_loss(z, t, torch.full((len(x),), 8), n); opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
