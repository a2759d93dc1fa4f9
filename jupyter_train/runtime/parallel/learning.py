"""Agreeing between the ranks on what the parameters are, and that they start alike."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jupyter_train.errors import RanksDiverged
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.registry import MOST_ITEMS, Registry, checksum, in_names, leaves, owners
from jupyter_train.runtime.parallel.remarks import Remarks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaf:
    """What a rank tells of a tensor that no name leads to."""

    checksum: int
    shape: tuple[int, ...]
    is_parameter: bool


class Learner:
    """Finds parameters when a line's backward is seen for the first time, or when others came than planned. Collective."""

    def __init__(self, registry: Registry, groups: Groups, remarks: Remarks) -> None:
        self._registry = registry
        self._groups = groups
        self._remarks = remarks

    def learn(self, roots: Iterable[Any], namespaces: Sequence[Mapping[str, Any]], where: str) -> None:
        """Give numbers to the parameters in the graphs of ``roots`` and to those of the models they belong to.

        A rank may hold names that others do not (a copy of the best model on
        rank 0), and its graph may lack parameters that others use: only what all
        ranks have under the same name is numbered by its name.

        Raises:
            RanksDiverged: the ranks' graphs hold different tensors that no name tells apart.
        """
        registry = self._registry
        registry.wake()
        registry.has_news = False
        unknown = [leaf for leaf in leaves(roots) if registry.number(leaf) is None]
        names = owners(namespaces)
        shapes = {name: _shapes(in_names(value)) for name, value in names.items()}
        told = self._groups.exchange((len(unknown), shapes))
        if not any(count for count, _ in told):
            return
        common = [
            name for name in sorted(shapes) if all(theirs.get(name) == shapes[name] for _, theirs in told)
        ]
        fresh: dict[int, torch.Tensor] = {}
        pattern = []  # which names hold the same tensors
        for name in common:
            for parameter in in_names(names[name]):
                number = registry.number(parameter)
                if number is None:
                    fresh.setdefault(id(parameter), parameter)
                    number = -1 - list(fresh).index(id(parameter)) if len(fresh) < MOST_ITEMS else -1
                pattern.append(number)
        nameless = [leaf for leaf in unknown if id(leaf) not in fresh]
        self._adopt(list(fresh.values()), nameless, zlib.crc32(repr(pattern).encode()), where)

    def _adopt(
        self, fresh: Sequence[torch.Tensor], nameless: Sequence[torch.Tensor], pattern: int, where: str
    ) -> None:
        mine = [
            _Leaf(checksum=checksum(t), shape=tuple(t.shape), is_parameter=isinstance(t, nn.Parameter))
            for t in nameless
        ]
        answers = self._groups.exchange((pattern, [checksum(t) for t in fresh], mine))
        if len({theirs for theirs, _, _ in answers}) > 1:
            raise RanksDiverged(f"{where}: the same names hold different models on different ranks")
        told = [(sums, theirs) for _, sums, theirs in answers]
        for number, parameter in enumerate(fresh):
            self._registry.learn(parameter)
            if len({sums[number] for sums, _ in told}) > 1:
                self._even_out(parameter, where)
        lists = [theirs for _, theirs in told]
        if any(len(theirs) != len(lists[0]) for theirs in lists):
            if any(one.is_parameter for theirs in lists for one in theirs):
                raise RanksDiverged(
                    f"{where}: the ranks' losses depend on different parameters, and no name tells which are the same"
                )
            return  # data that takes gradients, on some ranks alone
        for number, leaf in enumerate(nameless):
            theirs = [one[number] for one in lists]
            if len(set(theirs)) == 1:
                self._registry.learn(leaf)
            elif len({(one.shape, one.is_parameter) for one in theirs}) == 1 and isinstance(
                leaf, nn.Parameter
            ):
                self._registry.learn(leaf)
                self._even_out(leaf, where)
            elif any(one.is_parameter for one in theirs):
                raise RanksDiverged(
                    f"{where}: the ranks' losses depend on different parameters, and no name tells which are the same"
                )
            # Else it is data that takes gradients, each rank's own.

    def _even_out(self, parameter: torch.Tensor, where: str) -> None:
        self._remarks.say(
            f"{where}: the ranks' initial weights differed (random numbers that are not seeded alike); rank 0's are used"
        )
        host = parameter.detach().to("cpu", copy=True).contiguous()
        if self._groups.rank:
            host.zero_()
        self._groups.all_sum(host)
        with torch.no_grad():
            parameter.copy_(host)


def _shapes(parameters: Iterable[torch.Tensor]) -> int:
    """A digest of names' contents: how many parameters, of which shapes and types."""
    return zlib.crc32(repr([(tuple(p.shape), str(p.dtype)) for p in parameters]).encode())
