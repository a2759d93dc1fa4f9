"""Iterators over loaders that the cell holds by a name (``it = iter(loader)``), brought to where they stood."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch.utils.data import _DatasetKind
from torch.utils.data.dataloader import _BaseDataLoaderIter

from jupyter_train.errors import CellError
from jupyter_train.runtime.checkpoint.passes import set_back
from jupyter_train.runtime.checkpoint.position import PassStanding, pass_of, plain_pass

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.finding import Found
    from jupyter_train.runtime.parallel.engine import Engine


class Iterators:
    """Of one attempt. Main thread.

    One that began before the loop is there again, and is asked for as many
    batches as it had handed out. One that began in the loop is begun anew, from
    what was random at that time.
    """

    def __init__(self, engine: Engine, remark: Callable[[str], None]) -> None:
        self._engine = engine
        self._remark = remark
        self._done: set[str] = set()

    def state(self, found: Found) -> dict[str, Any]:
        """By label, as plain values."""
        labels = {id(loader): label for label, loader in found.loaders.items()}
        states = {}
        for label, one in found.iterators.items():
            states[label] = {
                "standing": plain_pass(_standing(one)),
                "began": getattr(one, "began", None),
                "place": self._engine.place_of(one),
                "loader": labels.get(id(getattr(one, "loader", None))),
            }
        return states

    def go_on(self, states: Mapping[str, Any], found: Found) -> None:
        """Bring them there; each once. The random states are anybody's afterwards."""
        for label, state in states.items():
            if label in self._done:
                continue
            standing = pass_of(state["standing"])
            if state["began"] is None:
                one = found.iterators.get(label)
                if one is not None:
                    self._done.add(label)
                    _bring(one, standing)
                continue
            loader = found.loaders.get(state["loader"])
            if loader is None:
                if state["loader"] is None:
                    self._done.add(label)
                    self._remark(
                        f"the iterator {label.split('/')[-1]} is over a loader that has no name in the loop: it begins anew"
                    )
                continue
            self._done.add(label)
            self._engine.set_random_states(state["began"]["random"])
            set_back(loader, state["began"]["drawn_by"])
            one = self._engine.reopen(loader, state["place"], standing)
            one.began = state["began"]
            _bring(one, standing)
            found.assign(label, one)


def _standing(one: Any) -> PassStanding:
    if isinstance(one, _BaseDataLoaderIter):
        return PassStanding(done=one._num_yielded)
    found: PassStanding = one.standing()
    return found


def _bring(one: Any, standing: PassStanding) -> None:
    if not isinstance(one, _BaseDataLoaderIter):
        for _ in range(standing.done - one.done):
            one.skip()
        one.stand(standing)
        return
    by_index = not one._num_workers and one._dataset_kind == _DatasetKind.Map
    try:
        while one._num_yielded < standing.done:
            if by_index:
                one._next_index()  # type: ignore[no-untyped-call]
                one._num_yielded += 1
            else:
                next(one)
    except StopIteration:
        raise CellError(
            "an iterator over a loader has fewer batches than when the checkpoint was made"
        ) from None
