"""BatchNorm over the global batch: what one process would compute, forward and backward.

Only in training and while a batch is split; otherwise torch's own. Statistics
of the shares are put together by count, mean and squared deviation (Chan,
Golub, LeVeque 1979), so that nothing cancels. Where the user wants local ones
(``--no-sync-bn``) torch computes them, and the running ones are averaged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.running import RunningStatistics
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.study import Study

_without_compiling: Any = torch.compiler.disable


class Statistics:
    """The two collectives that a BatchNorm needs; numbered and compared like every other."""

    def __init__(
        self,
        *,
        gather: Callable[[torch.Tensor], torch.Tensor],
        total: Callable[[torch.Tensor], None],
        share: Callable[[], Share | None],
        running: RunningStatistics,
        synchronous: bool = True,
        study: Study | None = None,
    ) -> None:
        self.gather = gather  #: everybody's row, shape (ranks, len(row))
        self.total = total  #: sum over the ranks, in place
        self.share = share  #: of the batch being worked on; None where it is whole
        self._running = running
        self._synchronous = synchronous  #: of the global batch; else each rank's of its share
        self._study = study
        self._in_module = False

    def install(self, patches: Patches) -> None:
        """Stand in for the forward of every BatchNorm, and for the functions below those and InstanceNorm."""
        # A SyncBatchNorm has a forward of its own, which without a process group computes as one process does.
        for kind in (nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm):
            patches.replace(kind, "forward", _without_compiling(self._forward(kind.forward)))
        patches.replace(functional, "batch_norm", self._batch_norm(functional.batch_norm))
        patches.replace(functional, "instance_norm", self._instance_norm(functional.instance_norm))

    def _forward(self, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(original)
        def forward(module: Any, x: torch.Tensor) -> torch.Tensor:
            uses_batch = module.training or module.running_mean is None
            share = self.share() if uses_batch else None
            if share is None:
                return original(module, x)
            tracks = module.training and module.track_running_stats and module.running_mean is not None
            if self._is_local(share) and not isinstance(module, nn.SyncBatchNorm):
                before, self._in_module = self._in_module, True
                try:
                    result = original(module, x)
                finally:
                    self._in_module = before
                if tracks:
                    self._running.changed((module.running_mean, module.running_var), share)
                return result
            module._check_input_dim(x)
            momentum = module.momentum
            if tracks and module.num_batches_tracked is not None:
                module.num_batches_tracked.add_(1)
                if momentum is None:
                    momentum = 1.0 / float(module.num_batches_tracked)
            running = (module.running_mean, module.running_var) if tracks else (None, None)
            return self._normalize(x, running, module.weight, module.bias, momentum, module.eps, share)

        return forward

    def _batch_norm(self, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def in_training(
            input: torch.Tensor,
            running_mean: torch.Tensor | None,
            running_var: torch.Tensor | None,
            weight: torch.Tensor | None,
            bias: torch.Tensor | None,
            training: bool,
            momentum: float,
            eps: float,
        ) -> torch.Tensor:
            share = self.share() if training and not self._in_module else None
            if share is not None and not self._is_local(share):
                return self._normalize(input, (running_mean, running_var), weight, bias, momentum, eps, share)
            result = original(input, running_mean, running_var, weight, bias, training, momentum, eps)
            if share is not None and running_mean is not None and running_var is not None:
                self._running.changed((running_mean, running_var), share)
            return result

        in_training = _without_compiling(in_training)

        @functools.wraps(original)
        def batch_norm(
            input: torch.Tensor,
            running_mean: torch.Tensor | None,
            running_var: torch.Tensor | None,
            weight: torch.Tensor | None = None,
            bias: torch.Tensor | None = None,
            training: bool = False,
            momentum: float = 0.1,
            eps: float = 1e-5,
        ) -> torch.Tensor:
            function = in_training if training else original
            return function(input, running_mean, running_var, weight, bias, training, momentum, eps)

        return batch_norm

    def _instance_norm(self, original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Each sample is normalised by itself; only the running statistics are those of a batch."""

        def changed(*running: torch.Tensor) -> None:
            share = self.share()
            if share is not None:
                self._running.changed(running, share)

        changed = _without_compiling(changed)

        @functools.wraps(original)
        def instance_norm(
            input: torch.Tensor,
            running_mean: torch.Tensor | None = None,
            running_var: torch.Tensor | None = None,
            weight: torch.Tensor | None = None,
            bias: torch.Tensor | None = None,
            use_input_stats: bool = True,
            momentum: float = 0.1,
            eps: float = 1e-5,
        ) -> torch.Tensor:
            result = original(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
            if use_input_stats and running_mean is not None and running_var is not None:
                changed(running_mean, running_var)
            return result

        return instance_norm

    def _is_local(self, share: Share) -> bool:
        """Statistics of this rank's samples alone; one sample has none, so that such a batch takes all ranks'."""
        return not self._synchronous and min(share.sizes) > 1

    def _normalize(
        self,
        x: torch.Tensor,
        running: tuple[torch.Tensor | None, torch.Tensor | None],
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        momentum: float,
        eps: float,
        share: Share,
    ) -> torch.Tensor:
        with self._study.paused() if self._study is not None else nullcontext():
            y, mean, variance, count = _Normalize.apply(
                x, weight, bias, _How(eps=eps, statistics=self, is_empty=share.is_empty)
            )  # type: ignore[no-untyped-call]
            running_mean, running_var = running
            if running_mean is not None and running_var is not None:
                with torch.no_grad():
                    n = float(count)
                    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
                    running_var.lerp_((variance * (n / (n - 1))).to(running_var.dtype), momentum)
        if self._study is not None:
            self._study.same_as(y, x)
        result: torch.Tensor = y
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _How:
    eps: float
    statistics: Statistics
    is_empty: bool  #: this rank's sample stands in for none


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, how: _How) -> Any:
        eps, statistics, is_empty = how.eps, how.statistics, how.is_empty
        dims = [0, *range(2, x.dim())]
        channels = x.shape[1]
        wide = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        variance, mean = torch.var_mean(x.to(wide), dims, correction=0)
        row = torch.empty(2 * channels + 1, dtype=wide, device=x.device)
        row[:channels], row[channels:-1], row[-1] = mean, variance, x.numel() // channels
        if is_empty:
            row.zero_()
        rows = statistics.gather(row)
        counts = rows[:, -1:]
        n = counts.sum()
        if float(n) <= 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.size()}"
            )
        parts = counts / n
        means = rows[:, :channels]
        mean = (parts * means).sum(0)
        variance = (parts * (rows[:, channels:-1] + (means - mean).square())).sum(0)
        y = torch.batch_norm(x, weight, bias, mean, variance, False, 0.0, eps, False)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), n)
        ctx.statistics, ctx.eps, ctx.is_empty, ctx.variance = statistics, eps, is_empty, variance
        ctx.mark_non_differentiable(mean, variance, n)
        return y, mean, variance, n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Any, *_: Any) -> Any:
        x, weight, mean, invstd, n = ctx.saved_tensors
        channels = x.shape[1]
        shape = [1, channels] + [1] * (x.dim() - 2)
        # As if the statistics were constants; then what they themselves depend on.
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, ctx.variance, mean, invstd, False, ctx.eps, [True, True, True]
        )
        sums = torch.cat([grad_bias, grad_weight]).to(mean.dtype)
        if ctx.is_empty:
            sums.zero_()
        ctx.statistics.total(sums)
        factor = invstd if weight is None else invstd * weight.to(invstd.dtype)
        slope = factor * invstd * sums[channels:] / n
        level = factor * sums[:channels] / n - slope * mean
        grad_x = grad_x - (x * slope.view(shape).to(x.dtype) + level.view(shape).to(x.dtype))
        if ctx.is_empty:
            grad_x.zero_()  # the stand-in sample is no part of the batch
        if weight is None:
            grad_weight = grad_bias = None
        return grad_x, grad_weight, grad_bias, None
