# Training loops as tutorials write them. Doubles, so that ranks round far below what is compared.
# %% case: fits a line by hand
# %% before
import torch

torch.manual_seed(0)
x = torch.linspace(-1, 1, 64, dtype=torch.float64).unsqueeze(1)
y = 3 * x + 0.5 + 0.1 * torch.randn_like(x)
w = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
b = torch.zeros(1, dtype=torch.float64, requires_grad=True)
# %% cell
for epoch in range(20):
    loss = ((x @ w + b - y) ** 2).mean()
    loss.backward()
    with torch.no_grad():
        w -= 0.5 * w.grad
        b -= 0.5 * b.grad
        w.grad.zero_()
        b.grad.zero_()
print(f"w = {w.item():.4f}, b = {b.item():.4f}")

# %% case: trains a model of the cell
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
X = torch.randn(90, 6, dtype=torch.float64)
Y = (X.sum(1) > 0).long()
# %% cell
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).double()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loss_fn = nn.CrossEntropyLoss()
loader = DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True)
losses = []
for epoch in range(3):
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), yb)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"epoch {epoch}: loss {losses[-1]:.4f}")
# %% after
with torch.no_grad():
    print(round((model(X).argmax(1) == Y).double().mean().item(), 4))
print(optimizer.param_groups[0]["params"][0] is model[0].weight, len(losses))

# %% case: trains on with model and optimizer of another cell
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.hidden = nn.Linear(4, hidden)
        self.out = nn.Linear(hidden, 1)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        self.steps += 1
        return self.out(torch.tanh(self.hidden(x)))


torch.manual_seed(1)
net = Net(8).double()
same = net
first = net.hidden.weight
opt = torch.optim.Adam(net.parameters(), lr=0.01)
sched = torch.optim.lr_scheduler.StepLR(opt, step_size=2, gamma=0.5)
data = TensorDataset(torch.randn(40, 4, dtype=torch.float64), torch.randn(40, 1, dtype=torch.float64))
train_loader = DataLoader(data, batch_size=8)


def train_one_epoch(model, loader, optimizer):
    model.train()
    total = 0.0
    for x, y in loader:
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)
# %% cell
history = []
for epoch in range(3):
    history.append(train_one_epoch(net, train_loader, opt))
    sched.step()
    print(f"{epoch} {history[-1]:.5f} lr={sched.get_last_lr()[0]:g}")
net.eval()
# %% after
print(same is net, net.hidden.weight is first, opt.state[first]["step"].item(), sched.optimizer is opt)
history.append(train_one_epoch(net, train_loader, opt))
print(f"{history[-1]:.5f}")

# %% case: validates, keeps the best weights and stops early
# %% before
import copy

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(2)
inputs = torch.randn(120, 5, dtype=torch.float64)
targets = inputs @ torch.arange(5.0, dtype=torch.float64) + 0.3 * torch.randn(120, dtype=torch.float64)
train_set, valid_set = random_split(TensorDataset(inputs, targets), [90, 30], generator=torch.Generator().manual_seed(3))
# %% cell
model = nn.Linear(5, 1).double()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
best, best_state, patience = float("inf"), None, 0
for epoch in range(30):
    model.train()
    for xb, yb in DataLoader(train_set, batch_size=18, shuffle=True):
        loss = F.mse_loss(model(xb).squeeze(1), yb)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        valid = sum(F.mse_loss(model(xb).squeeze(1), yb, reduction="sum").item() for xb, yb in DataLoader(valid_set, 10))
    valid /= len(valid_set)
    if valid < best - 1e-3:
        best, best_state, patience = valid, copy.deepcopy(model.state_dict()), 0
    else:
        patience += 1
        if patience == 2:
            print(f"early stop at epoch {epoch}")
            break
model.load_state_dict(best_state)
# %% after
print(f"{best:.4f}", epoch, list(best_state))

# %% case: counts accuracy while it trains
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(4)
features = torch.randn(64, 3, dtype=torch.float64)
labels = (features[:, 0] > 0).long()
classifier = nn.Linear(3, 2).double()
opt = torch.optim.SGD(classifier.parameters(), lr=0.3)
# %% cell
correct = total = 0
for xb, yb in DataLoader(TensorDataset(features, labels), batch_size=16):
    logits = classifier(xb)
    loss = nn.functional.cross_entropy(logits, yb)
    opt.zero_grad()
    loss.backward()
    opt.step()
    correct += (logits.argmax(1) == yb).sum().item()
    total += len(yb)
print(f"train accuracy {correct / total:.3f}")

# %% case: evaluates without gradients
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(5)
model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 2)).double()
test_loader = DataLoader(TensorDataset(torch.randn(50, 3, dtype=torch.float64), torch.randint(0, 2, (50,))), batch_size=8)
# %% cell
model.eval()
correct, outputs = 0, []
confusion = torch.zeros(2, 2, dtype=torch.int64)
with torch.no_grad():
    for xb, yb in test_loader:
        predicted = model(xb).argmax(dim=1)
        outputs.append(predicted)
        correct += (predicted == yb).sum().item()
        for t, p in zip(yb, predicted):
            confusion[t, p] += 1
outputs = torch.cat(outputs)
print(f"accuracy {correct / len(test_loader.dataset):.2%}")
confusion

# %% case: accumulates, clips and decays
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(6)
data = TensorDataset(torch.randn(48, 4, dtype=torch.float64), torch.randn(48, 2, dtype=torch.float64))
model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2)).double()
decay = [p for n, p in model.named_parameters() if p.ndim > 1]
plain = [p for n, p in model.named_parameters() if p.ndim <= 1]
# %% cell
optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=1e-2)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.05, total_steps=6)
norms = []
for step, (x, y) in enumerate(DataLoader(data, batch_size=4)):
    loss = nn.functional.mse_loss(model(x), y) / 2
    loss.backward()
    if (step + 1) % 2 == 0:
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
[round(n, 4) for n in norms]
# %% after
print(optimizer.param_groups[0]["params"][0] is decay[0] is model[0].weight, scheduler.last_epoch)

# %% case: trains two networks against each other
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(7)
real = torch.randn(64, 2, dtype=torch.float64) * 0.5 + 2
G = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)).double()
D = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double()
noise = torch.randn(64, 2, dtype=torch.float64)
# %% cell
opt_g = torch.optim.Adam(G.parameters(), lr=0.01)
opt_d = torch.optim.Adam(D.parameters(), lr=0.01)
bce = nn.BCEWithLogitsLoss()
g_losses, d_losses = [], []
for epoch in range(2):
    for xr, z in DataLoader(TensorDataset(real, noise), batch_size=16):
        fake = G(z)
        d_loss = bce(D(xr), torch.ones_like(xr[:, :1])) + bce(D(fake.detach()), torch.zeros_like(xr[:, :1]))
        opt_d.zero_grad()
        d_loss.backward()
        opt_d.step()
        g_loss = bce(D(fake), torch.ones_like(xr[:, :1]))
        opt_g.zero_grad()
        g_loss.backward()
        opt_g.step()
        g_losses.append(g_loss.item())
        d_losses.append(d_loss.item())
print(f"{g_losses[-1]:.4f} {d_losses[-1]:.4f}")

# %% case: trains a recurrent network on text
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

text = "hello world, hello torch, hello notebook. " * 4
chars = sorted(set(text))
index = {c: i for i, c in enumerate(chars)}


class Windows(Dataset):
    def __init__(self, text, length):
        self.codes = torch.tensor([index[c] for c in text])
        self.length = length

    def __len__(self):
        return (len(self.codes) - 1) // self.length

    def __getitem__(self, i):
        part = self.codes[i * self.length : (i + 1) * self.length + 1]
        return part[:-1], part[1:]


class CharRNN(nn.Module):
    def __init__(self, size, hidden=12):
        super().__init__()
        self.embed = nn.Embedding(size, hidden)
        self.rnn = nn.LSTM(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, size)

    def forward(self, x, state=None):
        out, state = self.rnn(self.embed(x), state)
        return self.head(out), state


torch.manual_seed(8)
windows = Windows(text, 8)
rnn = CharRNN(len(chars)).double()
# %% cell
optimizer = torch.optim.Adam(rnn.parameters(), lr=0.02)
for epoch in range(2):
    for x, y in DataLoader(windows, batch_size=5, shuffle=False):
        logits, _ = rnn(x)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(rnn.parameters(), 1.0)
        optimizer.step()
    print(f"epoch {epoch} loss {loss.item():.4f}")


def generate(start, n):
    x, state, out = torch.tensor([[index[start]]]), None, start
    with torch.no_grad():
        for _ in range(n):
            logits, state = rnn(x, state)
            x = logits[:, -1].argmax(-1, keepdim=True)
            out += chars[x.item()]
    return out


sample = generate("h", 10)
# %% after
print(sample, generate("w", 5))

# %% case: freezes a backbone and tunes a head
# %% before
import torch
from torch import nn

torch.manual_seed(9)
backbone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
images = torch.randn(24, 1, 6, 6, dtype=torch.float64)
classes = torch.randint(0, 3, (24,))
# %% cell
for p in backbone.parameters():
    p.requires_grad_(False)
backbone.eval()
head = nn.Linear(4, 3).double()
model = nn.Sequential(backbone, head)
optimizer = torch.optim.SGD(filter(lambda p: p.requires_grad, model.parameters()), lr=0.1)
for _ in range(3):
    loss = nn.functional.cross_entropy(model(images), classes)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(trainable, f"{loss.item():.4f}")
# %% after
print(model[0] is backbone, model[1] is head, head.weight.requires_grad, backbone[0].weight.requires_grad)

# %% case: ties weights and initialises by a function
# %% before
import torch
from torch import nn


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode = nn.Linear(6, 3, bias=False)
        self.decode = nn.Linear(3, 6, bias=False)
        self.decode.weight = nn.Parameter(self.encode.weight.data.t())
        self.twin = self.encode

    def forward(self, x):
        return self.decode(torch.relu(self.twin(x)))


torch.manual_seed(10)
auto = Tied().double()
points = torch.randn(30, 6, dtype=torch.float64)
# %% cell
def init(module):
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)


auto.apply(init)
optimizer = torch.optim.RMSprop(auto.parameters(), lr=0.01)
for _ in range(4):
    loss = nn.functional.mse_loss(auto(points), points)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
len(list(auto.parameters()))
# %% after
print(auto.twin is auto.encode, auto.twin.weight is auto.encode.weight)

# %% case: saves a checkpoint and loads it again
# %% before
import torch
from torch import nn

torch.manual_seed(12)
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
# %% cell
loss = model(torch.ones(4, 3)).pow(2).mean()
loss.backward()
optimizer.step()
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}, "checkpoint.pt")
del loss
# %% after
saved = torch.load("checkpoint.pt", weights_only=True)
other = nn.Linear(3, 2)
other.load_state_dict(saved["model"])
print(torch.equal(other.weight, model.weight), saved["epoch"], sorted(saved["optimizer"]))

# %% case: changes tensors and views in place
# %% before
import torch

base = torch.arange(12.0).reshape(3, 4)
row = base[1]
copy = base.clone()
mask = base > 5
names = {"base": base}
param = torch.nn.Parameter(torch.ones(3))
# %% cell
base[0] += 100
row.mul_(2)
copy.data = torch.zeros(2)
mask.logical_not_()
param.data.fill_(7)
param.requires_grad_(False)
names["new"] = base[:, 0]
flat = base.view(-1)
# %% after
base[1, 0] = -1
print(row[0].item(), names["base"] is base, names["new"].tolist(), flat[4].item(), param.tolist())

# %% case: defines its own gradient, hook and module
# %% before
import torch
from torch import nn

torch.manual_seed(13)
data = torch.randn(10, 4, dtype=torch.float64)
# %% cell
class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return grad * (s + x * s * (1 - s))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.activations = []

    def forward(self, x):
        out = Swish.apply(self.linear(x))
        self.activations.append(out.detach().mean().item())
        return out


block = Block().double()
shapes = []
handle = block.linear.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape)))
value = block(data).sum()
handle.remove()
del handle  # numbered by torch, one after the other in a process
slope = torch.autograd.grad(value, block.linear.weight)[0]
print(shapes, slope.shape, len(block.activations))

# %% case: averages weights over time
# %% before
import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

torch.manual_seed(14)
model = nn.Linear(4, 1).double()
ema = copy.deepcopy(model)
averaged = AveragedModel(model)
opt = torch.optim.SGD(model.parameters(), lr=0.1)
xs = torch.randn(16, 4, dtype=torch.float64)
# %% cell
for _ in range(4):
    loss = (model(xs) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    averaged.update_parameters(model)
    with torch.no_grad():
        for slow, fast in zip(ema.parameters(), model.parameters()):
            slow.mul_(0.9).add_(fast, alpha=0.1)
print(averaged.n_averaged.item())

# %% case: draws random numbers
# %% before
import random

import numpy as np
import torch

random.seed(1)
np.random.seed(2)
torch.manual_seed(3)
rng = np.random.default_rng(4)
source = torch.Generator().manual_seed(5)
dice = random.Random(6)
# %% cell
a = torch.rand(3)
b = np.random.rand(2)
c = random.random()
d = rng.normal(size=2)
e = torch.randn(2, generator=source)
f = dice.randint(1, 6)
perm = torch.randperm(5)
print(a, b, c)
# %% after
print(torch.rand(1), np.random.rand(), random.random(), rng.normal(), torch.rand(1, generator=source), dice.random())

# %% case: fails in the middle of training
# %% before
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(15)
model = nn.Linear(3, 1).double()
weight = model.weight
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.randn(32, 3, dtype=torch.float64)), batch_size=8)
# %% cell
steps = 0
for epoch in range(5):
    for (x,) in loader:
        loss = model(x).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps == 6:
            raise RuntimeError(f"diverged at step {steps}")
# %% after
print(steps, epoch, weight is model.weight, f"{weight.sum().item():.5f}")

# %% case: shows a model and counts its parameters
# %% before
from torch import nn
# %% cell
model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
for name, parameter in model.named_parameters():
    print(f"{name:<12} {tuple(parameter.shape)}")
count = sum(p.numel() for p in model.parameters())
model

# %% case: classifies digits with a small network
# %% needs: sklearn
# %% before
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

digits = load_digits()
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
X = torch.tensor(digits.data[:240] / 16, dtype=torch.float64)
y = torch.tensor(digits.target[:240])
# %% cell
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10)).double().to(device)
opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
crit = nn.CrossEntropyLoss(label_smoothing=0.1)
curve = {"train": [], "valid": []}
train_dl = DataLoader(TensorDataset(X[:200], y[:200]), batch_size=40, shuffle=True)
for epoch in range(2):
    net.train()
    running = 0.0
    for xb, yb in train_dl:
        xb, yb = xb.to(device), yb.to(device)
        opt.zero_grad()
        loss = crit(net(xb), yb)
        loss.backward()
        opt.step()
        running += loss.item() * 40
    net.eval()
    with torch.inference_mode():
        accuracy = (net(X[200:].to(device)).argmax(1).cpu() == y[200:]).double().mean()
    curve["train"].append(running / 200)
    curve["valid"].append(accuracy.item())
    print(f"Epoch {epoch + 1}/2 - loss: {running / 200:.4f} - val_acc: {accuracy:.3f}")
curve["valid"]
