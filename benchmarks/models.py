"""The models whose throughput is measured: data, model, loss and optimizer as texts that both sides run."""

from __future__ import annotations

from dataclasses import dataclass

_IMPORTS = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from benchmarks.meter import Meter

torch.manual_seed(0)
"""
_DIGITS = """
from sklearn.datasets import load_digits

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1).repeat(8, 1, 1, 1) / 16
dataset = TensorDataset(images, torch.tensor(digits.target).repeat(8))
loss_fn = nn.CrossEntropyLoss()
"""
_CNN = """
model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
    nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
)
"""
_MLP = """
model = nn.Sequential(
    nn.Flatten(), nn.Linear(64, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(),
    nn.Linear(1000, 920), nn.ReLU(), nn.Linear(920, 10),
)
"""
_TRANSFORMER = """
from pydoc_data.topics import topics

text = "".join(topics[name] for name in sorted(topics))
letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
windows = torch.tensor([letters[letter] for letter in text]).unfold(0, 33, 32)[:3200]
dataset = TensorDataset(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())

class Letters(nn.Module):
    def __init__(self, width=160, layers=4, length=32):
        super().__init__()
        self.letters = nn.Embedding(len(letters), width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(letters))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x):
        return self.head(self.layers(self.letters(x) + self.places, mask=self.mask, is_causal=True))

def loss_fn(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

model = Letters()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model, and how long it is measured."""

    setup: str  #: makes ``dataset``, ``model`` and ``loss_fn``
    optimizer: str  #: an expression
    samples: int  #: of the data set: no more than the steps need, since the last epoch is run to its end
    batch: int  #: global
    warm_steps: int
    steps: int  #: counted, after the warm ones; some seconds, so that /proc's 10 ms do not matter


MODELS: dict[str, Model] = {
    "cnn": Model(
        setup=_IMPORTS + _DIGITS + _CNN,
        optimizer="torch.optim.SGD(model.parameters(), lr=0.05)",
        samples=1797 * 8,
        batch=128,
        warm_steps=100,
        steps=1100,
    ),
    "mlp": Model(  # 2.0 million parameters
        setup=_IMPORTS + _DIGITS + _MLP,
        optimizer="torch.optim.SGD(model.parameters(), lr=0.05)",
        samples=1797 * 8,
        batch=128,
        warm_steps=40,
        steps=400,
    ),
    "transformer": Model(  # 1.3 million parameters
        setup=_IMPORTS + _TRANSFORMER,
        optimizer="torch.optim.AdamW(model.parameters(), lr=3e-4)",
        samples=3200,
        batch=32,
        warm_steps=10,
        steps=84,  # of an epoch of 100: a rank that has ended would no longer be counted
    ),
}
