"""BatchNorm over the global batch: what one process would compute, forward and backward.

Only in training and while a batch is split; otherwise torch's own. Statistics
of the shares are put together by count, mean and squared deviation (Chan,
Golub, LeVeque 1979), so that nothing cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.shares import Share


class Statistics:
    """The two collectives that a BatchNorm needs; numbered and compared like every other."""

    def __init__(
        self,
        *,
        gather: Callable[[torch.Tensor], torch.Tensor],
        total: Callable[[torch.Tensor], None],
        share: Callable[[], Share | None],
    ) -> None:
        self.gather = gather  #: everybody's row, shape (ranks, len(row))
        self.total = total  #: sum over the ranks, in place
        self.share = share  #: of the batch being worked on; None where it is whole

    def install(self, patches: Patches) -> None:
        """Stand in for the forward of every BatchNorm."""
        base = nn.modules.batchnorm._BatchNorm
        original = base.forward

        def forward(module: Any, x: torch.Tensor) -> torch.Tensor:
            uses_batch = module.training or module.running_mean is None
            share = self.share() if uses_batch else None
            if share is None:
                result: torch.Tensor = original(module, x)
                return result
            return self._normalize(module, x, share)

        patches.replace(base, "forward", torch.compiler.disable(forward))  # type: ignore[no-untyped-call]

    def _normalize(self, module: Any, x: torch.Tensor, share: Share) -> torch.Tensor:
        module._check_input_dim(x)
        weight, bias = module.weight, module.bias
        y, mean, variance, count = _Normalize.apply(
            x, weight, bias, _How(eps=module.eps, statistics=self, is_empty=share.is_empty)
        )  # type: ignore[no-untyped-call]
        if module.training and module.track_running_stats and module.running_mean is not None:
            with torch.no_grad():
                momentum = module.momentum
                if module.num_batches_tracked is not None:
                    module.num_batches_tracked.add_(1)
                    if momentum is None:
                        momentum = 1.0 / float(module.num_batches_tracked)
                n = float(count)
                module.running_mean.lerp_(mean.to(module.running_mean.dtype), momentum)
                module.running_var.lerp_((variance * (n / (n - 1))).to(module.running_var.dtype), momentum)
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
