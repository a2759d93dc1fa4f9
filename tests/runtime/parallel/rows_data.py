"""Rows of the matrix: where samples come from, and random numbers."""

from __future__ import annotations

FEEDS: dict[str, str] = {}
HEAD = "model = mlp(); opt = torch.optim.SGD(model.parameters(), .1, momentum=.9); out = []\n"
LOOP = """
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
_DATA = "TensorDataset(X, Y)"
FEEDS["a sampler with weights and replacement"] = f"""{HEAD}
from torch.utils.data import WeightedRandomSampler
loader = DataLoader({_DATA}, batch_size=12, sampler=WeightedRandomSampler(torch.rand(N), N)){LOOP}"""
FEEDS["training and validation as random subsets of one data set"] = f"""{HEAD}
from torch.utils.data import SubsetRandomSampler
order = torch.randperm(N).tolist(); loader = DataLoader({_DATA}, batch_size=12, sampler=SubsetRandomSampler(order[20:])); held = DataLoader({_DATA}, batch_size=12, sampler=SubsetRandomSampler(order[:20])){LOOP}
    with torch.no_grad(): out.append(sum(F.cross_entropy(model(x), y).item() for x, y in held))
"""
FEEDS["random_split with a generator, concatenated data sets"] = f"""{HEAD}
from torch.utils.data import ConcatDataset
a, b, c = random_split({_DATA}, [.5, .3, .2], generator=torch.Generator().manual_seed(4))
loader = DataLoader(ConcatDataset([a, c]), batch_size=12, shuffle=True){LOOP}"""
FEEDS["a generator of its own for the shuffle"] = f"""{HEAD}
loader = DataLoader({_DATA}, batch_size=12, shuffle=True, generator=torch.Generator().manual_seed(7)){LOOP}
out.append(float(torch.rand(())))
"""
FEEDS["batches of like lengths"] = """
lengths = [2 + (7 * k) % 9 for k in range(N)]; words = [torch.randint(1, 9, (n,), generator=g0) for n in lengths]
class Texts(Dataset):
    def __len__(self): return N
    def __getitem__(self, k): return words[k], Y[k]
class Alike:
    def __init__(self, size): self.size = size
    def __len__(self): return -(-N // self.size)
    def __iter__(self):
        order = sorted(range(N), key=lambda k: (lengths[k], k)); parts = [order[k:k + self.size] for k in range(0, N, self.size)]
        for k in torch.randperm(len(parts)).tolist(): yield parts[k]
def collate(samples):
    x, y = zip(*samples); return nn.utils.rnn.pad_sequence(x, batch_first=True), torch.tensor([len(t) for t in x]), torch.stack(y)
loader = DataLoader(Texts(), batch_sampler=Alike(12), collate_fn=collate); out = []
class Net(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Embedding(9, 6, padding_idx=0); self.r = nn.LSTM(6, 8, batch_first=True, bidirectional=True); self.o = nn.Linear(16, 3)
    def forward(self, x, n):
        packed = nn.utils.rnn.pack_padded_sequence(self.e(x), n, batch_first=True, enforce_sorted=False)
        return self.o(self.r(packed)[1][0].transpose(0, 1).flatten(1))
model = Net(); opt = torch.optim.Adam(model.parameters(), 1e-2)
for ep in range(2):
    for x, n, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x, n), y); loss.backward(); opt.step(); out.append(loss.item())
"""
FEEDS["a second loader read by next beside the first"] = f"""{HEAD}
labelled = DataLoader(TensorDataset(X[:57], Y[:57]), batch_size=12, shuffle=True); bare = DataLoader(TensorDataset(X[:70]), batch_size=8, shuffle=True); more = iter(bare)
for ep in range(3):
    for x, y in labelled:
        try: (u,) = next(more)
        except StopIteration: more = iter(bare); (u,) = next(more)
        loss = F.cross_entropy(model(x), y) + .1 * model(u).softmax(1).pow(2).sum(1).mean()
        opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
FEEDS["a batch size that grows from epoch to epoch"] = f"""{HEAD}
for ep in range(3):
    loader = DataLoader({_DATA}, batch_size=6 * 2 ** ep, shuffle=True)
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
FEEDS["one batch of everything"] = f"""{HEAD}loader = DataLoader({_DATA}, batch_size=200, shuffle=True)
for ep in range(6):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
FEEDS["enumerate, tqdm and a step limit"] = f"""{HEAD}
from tqdm import tqdm
loader = DataLoader({_DATA}, batch_size=12, shuffle=True); step = 0; bar = open(os.devnull, "w")
while step < 12:
    for k, data in enumerate(tqdm(loader, file=bar), 0):
        x, y = data; opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item()); step += 1
        if step == 12: break
bar.close()
"""
FEEDS["functions train and test that get loader and device"] = f"""{HEAD}
def train_epoch(loader, model, crit, opt, device):
    size = len(loader.dataset); model.train()
    for batch, (x, y) in enumerate(loader):
        x, y = x.to(device), y.to(device); loss = crit(model(x), y)
        loss.backward(); opt.step(); opt.zero_grad()
        if batch % 3 == 0: out.append(loss.item())
def test_epoch(loader, model, crit, device):
    model.eval(); lost, right = 0., 0
    with torch.no_grad():
        for x, y in loader: z = model(x.to(device)); lost += crit(z, y).item(); right += (z.argmax(1) == y).type(torch.float).sum().item()
    out.append([lost / len(loader), right / len(loader.dataset)])
for t in range(2):
    train_epoch(DataLoader({_DATA}, batch_size=12, shuffle=True), model, nn.CrossEntropyLoss(), opt, "cpu"); test_epoch(DataLoader(TensorDataset(X[:40], Y[:40]), batch_size=12), model, nn.CrossEntropyLoss(), "cpu")
out = [v for o in out for v in (o if isinstance(o, list) else [o])]
"""
FEEDS["images from a data set of one's own, transformed"] = f"""{HEAD}
class Images(Dataset):
    def __init__(self, transform=None): self.transform = transform
    def __len__(self): return N
    def __getitem__(self, k):
        x, y = X[k].numpy(), int(Y[k])
        return (self.transform(x) if self.transform else x), y
loader = DataLoader(Images(lambda x: torch.from_numpy(x.copy()) * .5), batch_size=12, shuffle=True, pin_memory=False, drop_last=False){LOOP}"""
FEEDS["manual_seed inside the loop and between epochs"] = f"""{HEAD}
loader = DataLoader({_DATA}, batch_size=12, shuffle=True)
for ep in range(3):
    torch.manual_seed(ep)
    for k, (x, y) in enumerate(loader):
        if k == 2: torch.manual_seed(99)
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
    out.append(float(torch.rand(())))
"""
FEEDS["random numbers of torch, numpy and random between loops"] = f"""{HEAD}
import random, numpy
random.seed(2); numpy.random.seed(2); loader = DataLoader({_DATA}, batch_size=12, shuffle=True)
for ep in range(3):
    noise = float(torch.randn(())) + random.random() + float(numpy.random.rand()); out.append(noise)
    for g in opt.param_groups: g["lr"] = .05 + .01 * abs(noise)
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
FEEDS["one sample a batch"] = (
    f"""{HEAD}loader = DataLoader(TensorDataset(X[:20], Y[:20]), batch_size=1, shuffle=True){LOOP}"""
)
FEEDS["two samples a batch, squares by hand"] = """
model = nn.Linear(10, 1); opt = torch.optim.SGD(model.parameters(), .02); out = []; loader = DataLoader(TensorDataset(X[:31], X[:31, :1]), batch_size=2, shuffle=True)
for ep in range(2):
    for x, y in loader:
        opt.zero_grad(); loss = ((model(x) - y) ** 2).sum() / x.size(0); loss.backward(); opt.step(); out.append(loss.item())
"""

WHOLE: dict[str, str] = {}
WHOLE["all batches drawn before the first is used: list(loader)"] = f"""{HEAD}
loader = DataLoader({_DATA}, batch_size=12, shuffle=True)
for ep in range(2):
    for k, (x, y) in enumerate(list(loader)):
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
WHOLE["a data set without a loader, sample by sample"] = f"""{HEAD}
for ep in range(2):
    for x, y in TensorDataset(X[:20], Y[:20]):
        opt.zero_grad(); loss = F.cross_entropy(model(x[None]), y[None]); loss.backward(); opt.step(); out.append(loss.item())
"""
WHOLE["a graph in one piece"] = """
A = torch.rand(N, N); A = A / A.sum(1, keepdim=True); model = nn.ModuleList([nn.Linear(10, 8), nn.Linear(8, 3)]); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []
for ep in range(6):
    z = A @ model[1](torch.relu(A @ model[0](X))); loss = F.cross_entropy(z[:50], Y[:50])
    opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
WHOLE["a policy that learns from what it did"] = """
model = nn.Linear(4, 2); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []
for episode in range(5):
    s = torch.randn(4); logs = []; rewards = []
    for t in range(6):
        d = torch.distributions.Categorical(logits=model(s)); a = d.sample(); logs.append(d.log_prob(a)); rewards.append(float(s[0]) * (1 if a.item() else -1)); s = torch.randn(4)
    loss = -sum(l * sum(rewards[k:]) for k, l in enumerate(logs))
    opt.zero_grad(); loss.backward(); opt.step(); out.append(loss.item())
"""
WHOLE["gradients per sample, by torch.func"] = f"""{HEAD}
from torch.func import functional_call, grad, vmap
loader = DataLoader({_DATA}, batch_size=12, shuffle=True)
def loss_of(p, x, y): return F.cross_entropy(functional_call(model, p, (x[None],)), y[None])
for ep in range(2):
    for x, y in loader:
        each = vmap(grad(loss_of), (None, 0, 0))({{k: v.detach() for k, v in model.named_parameters()}}, x, y)
        with torch.no_grad():
            for k, v in model.named_parameters(): v -= .1 * each[k].clamp(-.1, .1).mean(0)
"""

CHANCE: dict[
    str, str
] = {}  #: each rank draws its own random numbers inside its loop, so that no process alone draws the same
CHANCE["dropout"] = """
model = nn.Sequential(nn.Linear(10, 32), nn.Tanh(), nn.Dropout(.3), nn.Linear(32, 3)); opt = torch.optim.SGD(model.parameters(), .1, momentum=.9); out = []
loader = DataLoader(TensorDataset(X, Y), batch_size=12, shuffle=True, generator=g0)
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
out.append(float(torch.rand(())))
"""
CHANCE["noise that a VAE draws"] = """
class Net(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Linear(10, 8); self.d = nn.Linear(4, 10)
    def forward(self, x): mu, lv = self.e(x).chunk(2, 1); return self.d(mu + torch.randn_like(mu) * (.5 * lv).exp()), mu, lv
model = Net(); opt = torch.optim.Adam(model.parameters(), 1e-2); out = []; loader = DataLoader(TensorDataset(X), batch_size=12, shuffle=True, generator=g0)
for ep in range(3):
    for (x,) in loader:
        r, mu, lv = model(x); loss = F.mse_loss(r, x, reduction="sum") - .5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())
        opt.zero_grad(); loss.backward(); opt.step()
out.append(float(torch.rand(())))
"""
_AUGMENTED = """
import random, numpy
random.seed(1); numpy.random.seed(1)
class Augmented(TensorDataset):
    def __getitem__(self, k):
        x, y = super().__getitem__(k)
        if random.random() < .5: x = x.flip(0)
        return x + .1 * torch.randn(10) + .1 * float(numpy.random.rand()), y
"""
for _workers in (0, 2):
    CHANCE[f"augmentation in __getitem__, {_workers or 'no'} workers"] = (
        _AUGMENTED
        + f"""
{HEAD}loader = DataLoader(Augmented(X, Y), batch_size=12, shuffle=True, generator=g0, num_workers={_workers})
for ep in range(3):
    for x, y in loader:
        opt.zero_grad(); loss = F.cross_entropy(model(x), y); loss.backward(); opt.step()
out += [float(torch.rand(())), random.random(), float(numpy.random.rand())]
"""
    )
