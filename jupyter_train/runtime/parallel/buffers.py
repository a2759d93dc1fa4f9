"""Buffers of models that a cell fills from its batches: a codebook, a centre, a queue of samples, a prototype of each class.

On shares each rank would fill them otherwise, and train with its own. Nothing
in the graph of a loss tells, so their values are compared at the first
backwards of a line. BatchNorms and their like are seen to elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from jupyter_train.runtime.parallel.errors import not_splittable
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.registry import MOST_ITEMS, checksum, inside
from jupyter_train.runtime.parallel.shares import Share

LOOKS = 3  #: at a line: what is filled before a backward shows at its first, what is filled after it at the second
MOST_BYTES = 64 << 20  #: of all buffers together; the others are not looked at


def check_buffers(groups: Groups, namespaces: Sequence[Mapping[str, Any]], share: Share, where: str) -> None:
    """Compare the buffers of the models in ``namespaces`` with those of the other ranks. Collective.

    Raises:
        NotSplittable: one differs.
    """
    told = groups.exchange({label: checksum(buffer) for label, buffer in buffers_in(namespaces).items()})
    full = [theirs for theirs, size in zip(told, share.sizes, strict=True) if size]
    for label in told[0]:
        # A rank may hold names that others do not.
        if all(label in theirs for theirs in told) and len({theirs[label] for theirs in full}) > 1:
            raise not_splittable(
                where, f"the buffer {label} is filled from the batch, and shares fill it differently"
            )


def buffers_in(namespaces: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """The buffers of models, by the names that lead to them; each once."""
    out: dict[str, torch.Tensor] = {}
    names: set[str] = set()
    seen: set[int] = set()
    size_bytes = 0
    for namespace in namespaces:
        for name, value in list(namespace.items()):
            if not isinstance(name, str) or name in names:
                continue
            names.add(name)
            for label, buffer in _of(value, name):
                size_bytes += buffer.nbytes if id(buffer) not in seen else 0
                if id(buffer) not in seen and size_bytes <= MOST_BYTES:
                    seen.add(id(buffer))
                    out[label] = buffer
    return out


def _of(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    stack: list[tuple[Any, int]] = [(value, 3)]
    looked = modules = 0
    while stack and looked < MOST_ITEMS:
        one, depth = stack.pop()
        looked += 1
        if isinstance(one, nn.Module):
            modules += 1
            for prefix, part in one.named_modules(prefix=name if one is value else f"{name}/{modules}"):
                if isinstance(part, _NormBase):
                    continue
                for key, buffer in part._buffers.items():
                    if type(buffer) is torch.Tensor and buffer.layout is torch.strided:
                        yield f"{prefix}.{key}", buffer
        elif depth:
            stack.extend((held, depth - 1) for held in inside(one))
