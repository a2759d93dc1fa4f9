"""Keeps samples of a cell's first backwards, in rank 0 and in the shadow alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.proof.named import find
from jupyter_train.runtime.proof.recording import STEPS, Recording, Sample, Step

MOST_ENTRIES = 4096  #: of one tensor
LEAST_ENTRIES = 16
ENTRIES_A_STEP = 1 << 16  #: of all tensors of a kind, about: four steps of 32-bit gradients are 1 MB


class Witness:
    """Is called behind every outermost backward, with gradients as the cell will find them. Main thread.

    Args:
        sites: finds the user's line.
        begins: told the number of a backward, says whether it is the first to be recorded.
        keeps: whether a plain tensor that takes gradients is a parameter rather than data.
        others: all parameters that should have been found.
        full: called once, when the last step was recorded.
        keeps_modules: hold on to the modules and generators of random numbers that the cell names.
    """

    def __init__(
        self,
        *,
        sites: Sites,
        begins: Callable[[int], bool],
        keeps: Callable[[torch.Tensor], bool] = lambda tensor: True,
        others: Callable[[], Iterable[torch.Tensor]] = tuple,
        full: Callable[[Recording], None] = lambda recording: None,
        keeps_modules: bool = False,
    ) -> None:
        self._sites = sites
        self._begins = begins
        self._keeps = keeps
        self._others = others
        self._full = full
        self._keeps_modules = keeps_modules
        self._count = 0
        self._nameless = 0
        self.steps: list[Step] = []
        self.is_full = False
        self.modules: Mapping[str, torch.nn.Module] = {}  #: that the cell names, at the first step
        self.generators: Sequence[Any] = ()  #: likewise

    @property
    def recording(self) -> Recording:
        """What was kept so far."""
        return Recording(steps=tuple(self.steps), nameless=self._nameless)

    def backward(self, site: Site, tensors: Any, loss: Any) -> None:
        """A backward is done, and its gradients are those that the cell will use.

        Args:
            loss: of the global batch, None where only the root says.
        """
        if self.is_full:
            return
        self._count += 1
        if not self.steps and not self._begins(self._count):
            return
        roots = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        if loss is None and len(roots) == 1 and roots[0].numel() == 1:
            loss = float(roots[0].detach())
        self.steps.append(self._step(site, roots, loss))
        if len(self.steps) == STEPS:
            self.is_full = True
            self._full(self.recording)

    def _step(self, site: Site, roots: list[torch.Tensor], loss: float | None) -> Step:
        named = find(self._sites.frame(2), self._sites, roots)
        parameters = {
            name: tensor
            for name, tensor in named.parameters.items()
            if isinstance(tensor, torch.nn.Parameter) or self._keeps(tensor)
        }
        graded = {name: tensor.grad for name, tensor in parameters.items() if tensor.grad is not None}
        first = not self.steps
        if first and self._keeps_modules:
            self.modules, self.generators = named.modules, named.generators
        step = Step(
            number=self._count,
            place=str(site),
            loss=None if loss is None else float(loss),
            gradients=samples(graded),
            buffers=samples(named.buffers),
            weights=samples(parameters) if first else {},
        )
        nameless = sum(one.grad is not None and not named.knows(one) for one in self._others())
        self._nameless = max(self._nameless, nameless + len(graded) - len(step.gradients))
        return step


def samples(tensors: Mapping[str, torch.Tensor]) -> dict[str, Sample]:
    """Samples of ``tensors``, in all about ENTRIES_A_STEP."""
    most = min(MOST_ENTRIES, max(LEAST_ENTRIES, ENTRIES_A_STEP // max(1, len(tensors))))
    found = {name: sample(tensor, most) for name, tensor in tensors.items()}
    return {name: one for name, one in found.items() if one is not None}


def sample(tensor: torch.Tensor, most: int) -> Sample | None:
    """At most about ``most`` entries of ``tensor``, evenly spread; None where it has none to show."""
    with torch.no_grad():
        flat = tensor.detach()
        if flat.layout is not torch.strided or not flat.numel():
            return None
        if flat.is_complex():
            flat = torch.view_as_real(flat)
        flat = flat.reshape(-1)
        wide = torch.float64 if flat.dtype is torch.float64 else torch.float32
        # Odd, so that it does not stay in one column of a matrix.
        stride = 1 if flat.numel() <= most else (flat.numel() // most) | 1
        values = flat[::stride].to("cpu", wide, copy=True).numpy()
        norm = float(torch.linalg.vector_norm(flat.to(wide)))
    return Sample(
        values=values,
        norm=norm,
        shape=tuple(tensor.shape),
        dtype=str(tensor.dtype).removeprefix("torch."),
    )
