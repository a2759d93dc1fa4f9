"""Gradients that the cell takes itself, by ``autograd.grad`` or through torch.func, on a share of a batch.

With respect to samples they are this rank's rows of what one process has, once
the loss counts as much as it does there. With respect to anything that all
ranks hold alike (weights, under whatever name) they would have to be averaged,
and what the cell does with them is not known: such a loop is done whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from jupyter_train.runtime.parallel.errors import not_splittable
from jupyter_train.runtime.parallel.feed import Feed
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.header import Header, Kind
from jupyter_train.runtime.parallel.registry import Registry, checksum
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.sites import Site
from jupyter_train.runtime.parallel.weighing import Weights

Weigh = Callable[[Site, torch.Tensor, Share], Weights]


class Taking:
    """Around each ``autograd.grad`` of a split loop. Main thread of a rank; collective where it does more than look."""

    def __init__(
        self, *, groups: Groups, header: Header, feed: Feed, registry: Registry, weigh: Weigh
    ) -> None:
        self._groups = groups
        self._header = header
        self._feed = feed
        self._registry = registry
        self._weigh = weigh
        self._of_samples: set[Site] = set()  #: that take gradients of what differs between the ranks
        self._of_totals: set[Site] = set()  #: that take those of one number

    @contextmanager
    def around(self, site: Site, outputs: Any, inputs: Any, given: Any) -> Iterator[Any]:
        """While gradients of ``outputs`` are taken at ``site``: what stands for the given gradients of the outputs.

        Raises:
            NotSplittable: they are not those of samples.
        """
        share = self._feed.share
        asked = [inputs] if isinstance(inputs, torch.Tensor) else list(inputs)
        if share is None or _are_traced(asked):
            yield given
            return
        self._check(site, asked, share)
        root = self._total(site, outputs, share)
        if root is None or root.grad_fn is None or not _is_plain_number(given):
            yield given  # of each sample by itself, as far as anybody can tell
            return
        weights = self._weigh(site, root, share)
        handles = [node.register_prehook(scaler(factor)) for node, factor in weights.nodes]
        try:
            yield _times(outputs, given, weights.root / self._groups.world_size)
        finally:
            for handle in handles:
                handle.remove()

    def _total(self, site: Site, outputs: Any, share: Share) -> torch.Tensor | None:
        """The only output, where it is one number for the batch; of a share of one sample its shape alone does not tell."""
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]
        if not isinstance(outputs, torch.Tensor) or plain(outputs) is not outputs or outputs.numel() != 1:
            return None
        if outputs.dim() == 0 or min(size for size in share.sizes if size) > 1:
            self._of_totals.add(site)
        return outputs if site in self._of_totals else None

    def _check(self, site: Site, inputs: Sequence[Any], share: Share) -> None:
        tensors = [plain(one) for one in inputs if isinstance(one, torch.Tensor)]
        if any(isinstance(one, torch.nn.Parameter) or self._is_known(one) for one in tensors):
            raise _of_weights(site)
        if site in self._of_samples or sum(size > 0 for size in share.sizes) < 2:
            return
        with without_transforms():
            self._header.post(Kind.STUDY, site, batch=share.digest)
            self._header.check()
            told = self._groups.exchange([checksum(one) for one in tensors])
        mine = [sums for sums, size in zip(told, share.sizes, strict=True) if size]
        if any(len(set(sums)) == 1 for sums in zip(*mine, strict=False)):
            raise _of_weights(site)
        self._of_samples.add(site)

    def _is_known(self, tensor: torch.Tensor) -> bool:
        return self._registry.number(tensor) is not None


def scaler(factor: float) -> Callable[[Any], Any]:
    """A hook for a node of the graph."""

    def scale(grads: Any) -> Any:
        if factor == 0.0:  # set, not multiplied: an empty share may be 0/0
            return tuple(None if grad is None else torch.zeros_like(grad) for grad in grads)
        return tuple(None if grad is None else grad * factor for grad in grads)

    return scale


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """What is inside of the wrappers of torch.func."""
    functorch = getattr(torch._C, "_functorch", None)
    while functorch is not None and functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    return tensor


@contextmanager
def without_transforms() -> Iterator[None]:
    """Our own tensors are nothing that torch.func differentiates."""
    guard = getattr(torch._C, "_DisableFuncTorch", None)
    if guard is None:
        yield
        return
    with guard():
        yield


def _are_traced(tensors: Sequence[Any]) -> bool:
    """There are no numbers in them: torch.compile works out what a backward will be."""
    kinds = (torch.Tensor, torch.nn.Parameter)
    return any(isinstance(one, torch.Tensor) and type(plain(one)) not in kinds for one in tensors)


def _of_weights(site: Site) -> Exception:
    return not_splittable(
        str(site),
        "gradients of weights are taken without backward()",
        "Gradients that backward() leaves in .grad are averaged, and the loop is split",
    )


def _is_plain_number(given: Any) -> bool:
    if isinstance(given, (list, tuple)) and len(given) == 1:
        given = given[0]
    return given is None or (isinstance(given, torch.Tensor) and given.numel() == 1)


def _times(outputs: Any, given: Any, factor: float) -> Any:
    """The given gradient of the only output, times ``factor``."""
    if factor == 1.0:
        return given
    is_list = isinstance(outputs, (list, tuple))
    output = outputs[0] if is_list else outputs
    if isinstance(given, (list, tuple)):
        given = given[0]
    scaled = torch.full_like(output, factor) if given is None else given * factor
    return [scaled] if is_list else scaled
