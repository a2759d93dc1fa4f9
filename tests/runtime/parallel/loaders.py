"""Training loops over all kinds of loaders, each with the numbers of the samples it saw in ``seen``, by epoch."""

from __future__ import annotations

ROWS: dict[str, str] = {}  #: split: weights as of one process, each sample on one rank
TWICE = {  #: ranks for which ``seen`` is not one process's: one without samples computes one of another's
    "a stream": {4},
    "a stream whose last batch leaves some ranks empty": {2, 4},
    "a stream that each loader worker reads whole": {4},
    "a stream that shuffles and augments": {4},
    "a stream that shuffles, of one worker": {4},
    "chained streams": {4},
    "a stream over another loader": {4},
    "a loader used twice in an epoch": {4},
    "a loader nested in itself": {4},
    "chained loaders": {4},
}
WHOLE_AT_FIRST = frozenset({"iter and next of a stream", "iter and next of a stream with workers"})

HEAD = """
import collections, dataclasses, itertools, random, numpy
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, ChainDataset, ConcatDataset, RandomSampler, SequentialSampler, Subset, get_worker_info
random.seed(3); numpy.random.seed(3)
class Stream(IterableDataset):
    def __init__(self, n=N): self.n = n
    def __iter__(self):
        for i in range(self.n): yield X[i], Y[i], i
class Shuffled(IterableDataset):
    def __iter__(self):
        for i in torch.randperm(N).tolist():
            j = random.randrange(N) if random.random() < .1 else i
            yield X[i] + .01 * torch.randn(10) + .01 * numpy.random.rand(), Y[j], i
class Worker(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        for i in range(info.id, N, info.num_workers): yield X[i], Y[i], i
model = mlp(); opt = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9); crit = nn.CrossEntropyLoss()
seen = [[] for _ in range(3)]
def step(x, y):
    opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); return loss
"""
LOOP = """
out = []
for ep in range(2):
    for x, y, i in loader:
        seen[ep].extend(i.tolist()); opt.zero_grad(); loss = crit(model(x), y); loss.backward(); opt.step(); out.append(loss.item())
"""
TENSORS = "TensorDataset(X, Y, torch.arange(N))"


def _row(name: str, loader: str, loop: str = LOOP) -> None:
    ROWS[name] = HEAD + loader + loop


_row("a stream", "loader = DataLoader(Stream(), batch_size=16)")
_row("a stream with drop_last", "loader = DataLoader(Stream(), batch_size=16, drop_last=True)")
_row("a stream whose last batch leaves some ranks empty", "loader = DataLoader(Stream(65), batch_size=16)")
_row(
    "a stream that each loader worker reads whole",
    "loader = DataLoader(Stream(), batch_size=9, num_workers=2)",
)
_row("a stream dealt out over loader workers", "loader = DataLoader(Worker(), batch_size=12, num_workers=2)")
_row(
    "a stream with workers that persist, read whole in between",
    "loader = DataLoader(Worker(), batch_size=9, num_workers=2, persistent_workers=True)",
    """
out = []
for ep in range(2):
    for x, y, i in loader: seen[ep].extend(i.tolist()); step(x, y)
    with torch.no_grad(): out.append(sum(len(x) for x, _, _ in loader))
    for k, (x, y, i) in enumerate(loader):
        step(x, y)
        if k == 2: break
""",
)
_row("a stream that shuffles and augments", "loader = DataLoader(Shuffled(), batch_size=16)")
_row("a stream that shuffles, of one worker", "loader = DataLoader(Shuffled(), batch_size=16, num_workers=1)")
_row("chained streams", "loader = DataLoader(ChainDataset([Stream(30), Stream(21)]), batch_size=12)")
_row(
    "a stream over another loader",
    """
class Over(IterableDataset):
    def __init__(self): self.inner = DataLoader(Stream(), batch_size=5)
    def __iter__(self):
        for x, y, i in self.inner: yield from zip(x, y, i.tolist())
loader = DataLoader(Over(), batch_size=16)
""",
)
_row(
    "a stream that is islice'd, and one without end left by break",
    """
class Endless(IterableDataset):
    def __iter__(self):
        for k in itertools.count(): yield X[k % N], Y[k % N], k
loader = DataLoader(Endless(), batch_size=12)
""",
    """
for x, y, i in itertools.islice(loader, 5): seen[0].extend(i.tolist()); step(x, y)
for k, (x, y, i) in enumerate(loader):
    seen[1].extend(i.tolist()); step(x, y)
    if k == 3: break
""",
)
_row(
    "iter and next of a stream",
    "loader = DataLoader(Stream(), batch_size=12)",
    """
it = iter(loader)
for k in range(10):
    try: x, y, i = next(it)
    except StopIteration: it = iter(loader); x, y, i = next(it)
    step(x, y)
""",
)
_row(
    "iter and next of a stream with workers",
    "loader = DataLoader(Worker(), batch_size=6, num_workers=2)",
    """
it = iter(loader)
for k in range(12): x, y, i = next(it); step(x, y)
""",
)
_row(
    "a stream of ready batches with a batch_size",
    """
class Ready(IterableDataset):
    def __init__(self, batch_size): self.batch_size = batch_size
    def __iter__(self):
        for k in range(0, N, self.batch_size):
            i = torch.arange(k, min(N, k + self.batch_size)); yield {"x": X[i], "rest": (Y[i], i)}
loader = DataLoader(Ready(12), batch_size=None)
""",
    """
for ep in range(2):
    for batch in loader: y, i = batch["rest"]; seen[ep].extend(i.tolist()); step(batch["x"], y)
""",
)
_row(
    "ready batches of numpy arrays, made by a worker",
    """
class Ready(IterableDataset):
    batch_size = 12
    def __iter__(self):
        for k in range(0, N, 12): yield X[k:k+12].numpy(), Y[k:k+12].numpy(), numpy.arange(k, min(N, k + 12))
loader = DataLoader(Ready(), batch_size=None, num_workers=1)
""",
)
for _sampler in (
    "BatchSampler(RandomSampler(X), 12, False)",
    "torch.randperm(N).split(12)",
    "[tuple(range(k, min(N, k + 12))) for k in range(0, N, 12)]",
):
    _row(
        f"batch_size=None with sampler={_sampler}",
        f"loader = DataLoader({TENSORS}, batch_size=None, sampler={_sampler})"
        if "tuple" not in _sampler
        else f"""
class By(Dataset):
    def __len__(self): return N
    def __getitem__(self, rows):
        assert type(rows) is tuple
        return X[list(rows)], Y[list(rows)], torch.tensor(rows)
loader = DataLoader(By(), batch_size=None, sampler={_sampler})
""",
    )
_row(
    "zip of two loaders, one over a stream",
    f"""
loader = DataLoader(Stream(70), batch_size=14); other = DataLoader({TENSORS}, batch_size=9, shuffle=True)
""",
    """
for ep in range(2):
    for (x, y, i), (a, b, _) in zip(loader, other):
        seen[ep].extend(i.tolist()); opt.zero_grad(); (crit(model(x), y) + .3 * crit(model(a), b)).backward(); opt.step()
""",
)
_row(
    "zip of a loader with itself",
    f"loader = DataLoader({TENSORS}, batch_size=12, shuffle=True, drop_last=True)",
    """
for ep in range(2):
    for (x, y, i), (a, b, _) in zip(loader, loader):
        seen[ep].extend(i.tolist()); opt.zero_grad(); (crit(model(x), y) + .3 * crit(model(a), b)).backward(); opt.step()
""",
)
_row(
    "zip with itertools.cycle",
    f"loader = DataLoader({TENSORS}, batch_size=12, shuffle=True); few = DataLoader(Subset({TENSORS}, range(20)), batch_size=5)",
    """
for ep in range(2):
    for (x, y, i), (a, b, _) in zip(loader, itertools.cycle(few)):
        seen[ep].extend(i.tolist()); opt.zero_grad(); (crit(model(x), y) + .3 * crit(model(a), b)).backward(); opt.step()
""",
)
_row(
    "nested loops, both of which train",
    f"outer = DataLoader({TENSORS}, batch_size=30, shuffle=True); inner = DataLoader(Stream(21), batch_size=7)",
    """
for x, y, i in outer:
    seen[0].extend(i.tolist()); step(x, y)
    for a, b, _ in inner: step(a, b)
    step(x, y)
""",
)
_row(
    "a loader used twice in an epoch",
    f"loader = DataLoader({TENSORS}, batch_size=16, shuffle=True)",
    """
for ep in range(2):
    for x, y, i in loader: seen[ep].extend(i.tolist()); step(x, y)
    for x, y, i in loader: seen[2].extend(i.tolist()); step(x, y)
""",
)
_row(
    "a loader nested in itself",
    f"loader = DataLoader({TENSORS}, batch_size=40, shuffle=True)",
    """
for x, y, i in loader:
    seen[0].extend(i.tolist()); step(x, y)
    for a, b, _ in loader: step(a, b)
""",
)
_row(
    "chained loaders",
    f"one = DataLoader({TENSORS}, batch_size=16, shuffle=True); two = DataLoader(Stream(), batch_size=12)",
    """
for ep in range(2):
    for x, y, i in itertools.chain(one, two): seen[ep].extend(i.tolist()); step(x, y)
""",
)
_row(
    "an endless generator over a loader",
    f"loader = DataLoader({TENSORS}, batch_size=16, shuffle=True)",
    """
def endless(loader):
    while True:
        yield from loader
def again(loader):
    while True:
        for batch in loader: yield batch
for k, (x, y, i) in enumerate(again(loader)):
    step(x, y)
    if k == 9: break
""",
)
_row(
    "batch samplers of lists, tuples and tensors of any size",
    f"""
class Sampler:
    def __init__(self, kind): self.kind = kind
    def __len__(self): return 7
    def __iter__(self):
        rows = torch.randperm(N)
        for part in rows.split([5, 20, 4, 14, 9, 21, 10]): yield self.kind(part)
loaders = [DataLoader({TENSORS}, batch_sampler=Sampler(kind)) for kind in (torch.Tensor.tolist, lambda t: tuple(t.tolist()), lambda t: t)]
""",
    """
for ep, loader in enumerate(loaders):
    for x, y, i in loader: seen[ep].extend(i.tolist()); step(x, y)
""",
)
_row("drop_last", f"loader = DataLoader({TENSORS}, batch_size=12, shuffle=True, drop_last=True)")
_row(
    "workers that persist, an epoch left by break",
    f"loader = DataLoader({TENSORS}, batch_size=12, shuffle=True, num_workers=2, persistent_workers=True)",
    """
for ep in range(3):
    for k, (x, y, i) in enumerate(loader):
        seen[ep].extend(i.tolist()); step(x, y)
        if ep == 1 and k == 3: break
""",
)
COLLATES = {
    "dicts": ("{'x': x, 'y': y, 'i': i}", "batch['x'], batch['y'], batch['i']"),
    "dataclasses": ("Batch(x, y, i)", "batch.x, batch.y, batch.i"),
    "named tuples": ("Named(x, y, i)", "batch.x, batch.y, batch.i"),
    "text beside tensors": ("(x, y, i, [str(k) for k in i.tolist()])", "batch[0], batch[1], torch.tensor([int(k) for k in batch[3]])"),
}  # fmt: skip
for _kind, (_made, _read) in COLLATES.items():
    for _source in (TENSORS, "Stream()"):
        _row(
            f"a collate function that returns {_kind}, {'a stream' if _source == 'Stream()' else 'by index'}",
            f"""
@dataclasses.dataclass
class Batch: x: object; y: object; i: object
Named = collections.namedtuple("Named", "x y i")
def collate(samples):
    x, y, i = torch.utils.data.default_collate(samples)
    return {_made}
loader = DataLoader({_source}, batch_size=14, collate_fn=collate)
""",
            f"""
for ep in range(2):
    for batch in loader: x, y, i = {_read}; seen[ep].extend(i.tolist()); step(x, y)
""",
        )
_row(
    "packed sequences of different lengths",
    """
lengths = [3 + k % 5 for k in range(N)]
words = [torch.randn(n, 4, generator=g0) for n in lengths]
class Texts(Dataset):
    def __len__(self): return N
    def __getitem__(self, k): return words[k], Y[k], k
def collate(samples):
    x, y, i = zip(*samples)
    return pack_sequence(x, enforce_sorted=False), torch.stack(y), torch.tensor(i)
loader = DataLoader(Texts(), batch_size=14, shuffle=True, collate_fn=collate)
class Net(nn.Module):
    def __init__(self): super().__init__(); self.r = nn.GRU(4, 8, batch_first=True); self.o = nn.Linear(8, 3)
    def forward(self, x): return self.o(self.r(x)[1][-1])
model = Net(); opt = torch.optim.SGD(model.parameters(), lr=.1)
""",
)
_row(
    "padded sequences, their padding ignored",
    """
words = [torch.randint(1, 9, (3 + k % 5,), generator=g0) for k in range(N)]
class Texts(IterableDataset):
    def __iter__(self):
        for k in range(N): yield words[k], k
def collate(samples):
    x, i = zip(*samples)
    return nn.utils.rnn.pad_sequence(x, batch_first=True), torch.tensor(i)
loader = DataLoader(Texts(), batch_size=14, collate_fn=collate)
model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 9)); opt = torch.optim.SGD(model.parameters(), lr=.1)
""",
    """
for ep in range(2):
    for x, i in loader:
        seen[ep].extend(i.tolist()); opt.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), x.flatten(), ignore_index=0); loss.backward(); opt.step()
""",
)
