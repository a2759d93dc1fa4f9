"""Are the private parts of torch that are used here as they were? Asked once per run, in milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from jupyter_train.runtime.parallel.rng import Streams
from jupyter_train.runtime.parallel.streaming import Dealer, Dealt, Order


def graph_can_be_read() -> bool:
    """The graph of a loss shows what was reduced, and by how much."""
    return _holds(_graph)


def loaders_can_be_split() -> bool:
    """A loader takes its indices from the batch sampler in its ``__dict__``."""
    return _holds(_loader)


def _holds(check: Callable[[], bool]) -> bool:
    try:
        # Whatever the notebook set for the whole process.
        with torch.enable_grad(), torch.device("cpu"):
            return check()
    except Exception:  # whatever it is: torch is not as it was
        return False


def _graph() -> bool:
    x = torch.ones(3, 2, requires_grad=True)
    target = torch.tensor([0, 1, -100])
    nll = F.cross_entropy(x, target).grad_fn
    mse = F.mse_loss(x, torch.zeros(3, 2), reduction="sum").grad_fn
    mean = (x.sum(1).mean() / 4).grad_fn
    assert nll is not None
    assert mse is not None
    assert mean is not None
    inner = mean.next_functions[0][0]
    return (
        nll.name() == "NllLossBackward0"
        and float(nll._saved_total_weight) == 2.0  # type: ignore[attr-defined]
        and nll._saved_reduction == 1  # type: ignore[attr-defined]
        and mse._saved_reduction == 2  # type: ignore[attr-defined]
        and mean.name() == "DivBackward0"
        and float(mean._saved_other) == 4.0  # type: ignore[attr-defined]
        and inner is not None
        and tuple(inner._saved_self_sym_sizes) == (3,)  # type: ignore[attr-defined]
        and tuple(nll._input_metadata[0].shape) == ()
        and callable(nll.register_prehook)
    )


def _loader() -> bool:
    # A loader draws a number when it is gone through, which must not be one of the cell's.
    loader = DataLoader(TensorDataset(torch.arange(4)), batch_size=2, generator=torch.Generator())
    attributes = loader.__dict__
    before = attributes["batch_sampler"]
    attributes["batch_sampler"] = [[3], [1]]
    try:
        got = [int(x) for (x,) in loader]
    finally:
        attributes["batch_sampler"] = before
    return got == [3, 1] and _streams()


class _Numbers(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def _streams() -> bool:
    loader = DataLoader(_Numbers(), batch_size=2, generator=torch.Generator())
    order = Order(total=3, ranks=2, rank=1, uneven=False, state=0)
    attributes = loader.__dict__
    attributes["batch_sampler"] = [order, order]
    streams = Streams(1, torch.device("cpu"))
    attributes["collate_fn"] = Dealer(list, 1, streams)
    try:
        (dealt,) = loader
    finally:
        streams.use(private=False)
    with_workers = _MultiProcessingDataLoaderIter._next_data.__code__.co_names
    return (
        type(dealt) is Dealt
        and dealt.batch == [2]
        and dealt.share is not None
        and dealt.share.sizes == (2, 1)
        and {"_get_data", "_rcvd_idx"} <= set(with_workers)
    )
