"""Reading a loss on one share, and what the readings of several say together. No processes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jupyter_train.runtime.parallel.errors import NotSplittable
from jupyter_train.runtime.parallel.laws import (
    Law,
    amounts,
    expected,
    factors,
    in_proportion,
    scales_agree,
    settle,
)
from jupyter_train.runtime.parallel.loss import Part, Reading
from jupyter_train.runtime.parallel.walking import walk

SIZES = (5, 3, 2)
X = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, -100, 2, 2, 0, 1])
MODEL = nn.Linear(4, 3).double()

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
GOOD: dict[str, Loss] = {
    "cross entropy with ignored targets": lambda z, y, x: F.cross_entropy(z, y),
    "weighted": lambda z, y, x: F.cross_entropy(z, y, weight=torch.tensor([1.0, 2.0, 5.0]).double()),
    "smoothed": lambda z, y, x: F.cross_entropy(z, y.clamp(0), label_smoothing=0.1),
    "mean squares": lambda z, y, x: F.mse_loss(z, x[:, :3]),
    "sum of squares": lambda z, y, x: F.mse_loss(z, x[:, :3], reduction="sum"),
    "sum over len": lambda z, y, x: (z**2).sum() / len(x),
    "sum over a constant": lambda z, y, x: 3 * (z**2).sum() / 10,
    "huber": lambda z, y, x: F.huber_loss(z, x[:, :3]),
    "by hand": lambda z, y, x: ((z - x[:, :3]) ** 2).mean(),
    "means of rows": lambda z, y, x: z.abs().sum(1).mean(),
    "mean over the batch, then over features": lambda z, y, x: z.mean(0).sum(),
    "stacked": lambda z, y, x: torch.stack([z.mean(), (z**2).mean()]).sum(),
    "two terms, minus one": lambda z, y, x: 1 - F.l1_loss(z, x[:, :3]) - 0.5 * z.mean(),
    "masked": lambda z, y, x: (
        (F.cross_entropy(z, y.clamp(0), reduction="none") * (y >= 0)).sum() / (y >= 0).sum()
    ),
    "with L2 and L1": lambda z, y, x: (
        F.mse_loss(z, x[:, :3])
        + 0.1 * sum(p.pow(2).sum() for p in MODEL.parameters())
        + 0.1 * sum(p.abs().mean() for p in MODEL.parameters())
    ),
    "a norm of weights": lambda z, y, x: z.mean() + 0.1 * MODEL.weight.norm(),
    "binary": lambda z, y, x: F.binary_cross_entropy_with_logits(z[:, 0], (y > 0).double()),
    "divergence": lambda z, y, x: F.kl_div(z.log_softmax(1), x[:, :3].softmax(1), reduction="batchmean"),
}
BAD: dict[str, tuple[str, Loss]] = {
    "root": ("square root", lambda z, y, x: F.mse_loss(z, x[:, :3]).sqrt()),
    "power": ("power", lambda z, y, x: z.mean() ** 2),
    "dice": ("divides", lambda z, y, x: 1 - (z * x[:, :3]).sum() / (z.sum() + x.sum())),
    "product": ("multiplies", lambda z, y, x: z.mean() * z.abs().mean()),
    "norm over the batch": ("LinalgVectorNorm", lambda z, y, x: z.norm()),
    "largest": ("Max", lambda z, y, x: z.max()),
    "logarithm of a mean": ("logarithm", lambda z, y, x: z.exp().mean().log()),
    "correlation of features": ("power", lambda z, y, x: (z.mean(0) ** 2).sum()),
}


def is_weight(leaf: Tensor) -> bool:
    return isinstance(leaf, nn.Parameter)


def reading(loss: Tensor, size: int) -> Reading:
    out = walk(loss.grad_fn, guide=None, batch_sizes=(size,), where="line 1", is_weight=is_weight)
    assert out is not None
    return out


def parts() -> list[tuple[Tensor, Tensor]]:
    return list(zip(X.split(list(SIZES)), Y.split(list(SIZES)), strict=True))


@pytest.mark.parametrize("name", GOOD)
def test_scaled_terms_average_to_the_gradient_of_the_whole_batch(name: str) -> None:
    loss = GOOD[name]
    MODEL.zero_grad()
    loss(MODEL(X), Y, X).backward()
    wanted = [p.grad.clone() for p in MODEL.parameters() if p.grad is not None]
    losses = [loss(MODEL(x), y, x) for x, y in parts()]
    readings = [reading(one, size) for one, size in zip(losses, SIZES, strict=True)]
    assert len({one.digest for one in readings}) == 1
    rows = [amounts(one, share=size, is_empty=False) for one, size in zip(readings, SIZES, strict=True)]
    MODEL.zero_grad()
    for rank, one in enumerate(losses):
        profile = settle(readings[rank], rows, SIZES)
        for term, factor in zip(readings[rank].terms, factors(profile, rows, SIZES, rank), strict=True):
            term.node.register_prehook(lambda grads, f=factor: tuple(g * f for g in grads))
        one.backward()
    for parameter, gradient in zip(MODEL.parameters(), wanted, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad / len(SIZES), gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_sum_over_samples_is_refused_by_line_and_reason(name: str) -> None:
    word, loss = BAD[name]
    with pytest.raises(NotSplittable, match="line 1: ") as refused:
        reading(loss(MODEL(X), Y, X), 10)
    assert word in str(refused.value)


def test_a_matrix_of_all_pairs_raises_a_doubt() -> None:
    z = MODEL(X)
    doubt = reading(F.cross_entropy(z @ z.T, torch.arange(10)), 10).doubt
    assert doubt is not None
    assert "all pairs" in doubt[0]
    ten_classes = nn.Linear(4, 10).double()
    assert not reading(F.cross_entropy(ten_classes(X), torch.arange(10)), 10).doubt


def test_a_known_loss_is_followed_and_a_changed_one_is_noticed() -> None:
    known = reading(F.mse_loss(MODEL(X), X[:, :3]) + 1, 10)
    again = F.mse_loss(MODEL(X), X[:, :3]) + 1
    followed = walk(again.grad_fn, guide=known, batch_sizes=(), where="", is_weight=is_weight)
    assert followed is not None
    assert [term.amount for term in followed.terms] == [30.0]
    for other in (F.l1_loss(MODEL(X), X[:, :3]) + 1, F.mse_loss(MODEL(X), X[:, :3])):
        assert walk(other.grad_fn, guide=known, batch_sizes=(), where="", is_weight=is_weight) is None


def test_an_own_function_is_opaque() -> None:
    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.mean()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad

    (term,) = reading(Own.apply(MODEL(X)), 10).terms  # type: ignore[no-untyped-call]
    assert term.part is Part.OPAQUE


def test_a_constant_divisor_and_one_of_the_share_are_told_apart_by_uneven_shares() -> None:
    z = MODEL(X[:5])
    constant, local = (reading(z.sum() / number, 5) for number in (5, len(z)))
    assert settle(constant, [[5.0], [5.0]], (5, 3)).laws == (Law.WHOLE,)
    assert settle(local, [[5.0], [3.0]], (5, 3)).laws == (Law.SHARE,)
    assert not settle(local, [[4.0], [4.0]], (4, 4)).is_settled


def test_amounts_in_proportion_need_no_exchange_and_others_do() -> None:
    one = reading(F.mse_loss(MODEL(X), X[:, :3]), 10)
    assert not settle(one, [[27.0], [21.0]], (9, 7)).needs_exchange
    assert settle(one, [[27.0], [20.0]], (9, 7)).needs_exchange
    assert in_proportion([27.0, 21.0], Law.SHARE, (9, 7))
    assert not in_proportion([27.0, 20.0], Law.SHARE, (9, 7))
    assert in_proportion([27.0, 0.0], Law.SHARE, (9, 0))


def test_what_is_expected_of_others_follows_their_shares() -> None:
    one = reading(F.mse_loss(MODEL(X[:4]), X[:4, :3]), 4)
    profile = settle(one, [[12.0], [9.0]], (4, 3))
    assert expected(profile, [12.0], (4, 3), 0) == [[12.0], [9.0]]
    assert factors(profile, [[12.0], [9.0]], (4, 3), 0) == pytest.approx([2 * 4 / 7])
    assert factors(profile, [[12.0], [0.0]], (4, 0), 1) == [0.0]


def test_what_scales_a_term_has_to_be_the_same_on_all_ranks() -> None:
    z, target = MODEL(X[:4]), X[:4, :3]
    by_batch = [reading(F.mse_loss(z, target) / target.var(), 4), reading(z.sum() * target.mean(), 4)]
    assert by_batch[0].terms[0].scale == pytest.approx(float(1 / target.var()))
    assert by_batch[1].terms[0].scale == pytest.approx(float(target.mean()))
    assert all(one.terms[0].by_tensor for one in by_batch)
    assert reading(3 * F.mse_loss(z, target) / 4, 4).terms[0].scale == 0.75
    assert scales_agree([[0.75], [0.75], [9.0]], (4, 3, 0))
    assert not scales_agree([[0.75], [0.7]], (4, 3))
