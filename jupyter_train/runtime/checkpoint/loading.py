"""Frozen state → live objects: what :mod:`freezing` wrote, put into the objects of a cell that runs again.

Containers, arrays and tensors are set back in place where that says the same; what is
one object in the checkpoint becomes one object again, and tensors that shared memory
share it again. What is put in place is always a copy: a checkpoint may be loaded twice.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from typing import Any

from jupyter_train.runtime.checkpoint.freezing import KIND
from jupyter_train.runtime.checkpoint.sharded import SHARDED, fill
from jupyter_train.runtime.checkpoint.tensors import Tensors

_WITH_STATE = ("module", "optimizer", "object", "generator", "random")
_PLAIN_DICTS: dict[str, type] = {"OrderedDict": OrderedDict, "Counter": Counter, "defaultdict": defaultdict}


class CannotRestore(ValueError):
    """What a checkpoint holds does not fit what the cell has now."""


def load_all(targets: Mapping[str, Any], saved: Mapping[str, Any]) -> dict[str, Any]:
    """Load each label's saved state into the target of the same label; the values by label.

    A label without a target gives a new value. Where a value is not its target, the
    caller binds it: it was plain, or had another shape.

    Raises:
        CannotRestore: an object is of another kind or shape than the one that was kept.
    """
    loading = Loading()
    # Modules first: their parameters have to be where they are, while a tensor that shared
    # their memory before the loop, and did not any more when it was kept, can be a new one.
    order = sorted(saved, key=lambda label: _rank_of(saved[label]))
    loaded = {label: loading.into(targets.get(label), saved[label], label) for label in order}
    return {label: loaded[label] for label in saved}


def load_into(target: Any, saved: Any) -> Any:
    """Load one value; see :func:`load_all`, which keeps what several values share."""
    return Loading().into(target, saved, "the value")


def plain_value(saved: Any) -> Any:
    """``saved`` for people: objects as their state dict, everything else as it was; nothing is shared with it."""
    return Loading(states=True).into(None, saved, "the value")


def _rank_of(saved: Any) -> int:
    kind = _kind(saved)
    return ("module", "optimizer", "object").index(kind) if kind in ("module", "optimizer", "object") else 3


def _kind(saved: Any) -> str | None:
    return saved.get(KIND) if type(saved) is dict else None


class Loading:
    """Loads the parts of one checkpoint. By one thread.

    Args:
        states: give the state dict of an object that there is no target for.
        filled: sharded tensors that have been loaded already, by the id of what stands for them.
    """

    def __init__(self, *, states: bool = False, filled: Mapping[int, Any] | None = None) -> None:
        self._states = states
        self._filled = filled or {}
        self._made: dict[int, tuple[Any, Any]] = {}  #: saved object → what it became
        self._taken: dict[int, Any] = {}  #: targets that have been loaded
        self.tensors = Tensors()

    def into(self, target: Any, saved: Any, at: str) -> Any:
        """``saved`` in ``target`` where it fits, else a new value.

        Raises:
            CannotRestore: an object is of another kind or shape than the one that was kept.
        """
        import torch

        if isinstance(saved, torch.Tensor):
            return self._once(saved, lambda: self.tensors.into(target, saved))
        if not isinstance(saved, (list, tuple, dict)):
            return saved
        if (made := self._made.get(id(saved))) is not None:
            return made[1]
        if target is not None and id(target) in self._taken:
            target = None  # it has become another one already
        if isinstance(saved, list):
            return self._list(target, saved, at)
        if isinstance(saved, tuple):
            if isinstance(saved, torch.Size):
                return saved
            inner = target if type(target) is tuple and len(target) == len(saved) else (None,) * len(saved)
            parts = [self.into(t, s, f"{at}[{k}]") for k, (t, s) in enumerate(zip(inner, saved, strict=True))]
            same = type(target) is tuple and all(a is b for a, b in zip(parts, inner, strict=True))
            return self._note(saved, target if same and len(inner) else tuple(parts))
        kind = saved.get(KIND)
        if kind is None:
            return self._dict(target, saved, at, dict, [(key, one) for key, one in saved.items()])
        return self._special(kind, target, saved, at)

    # Plain values

    def _list(self, target: Any, saved: list[Any], at: str) -> Any:
        result = target if type(target) is list else []
        self._note(saved, result, target=target)
        old = list(result)
        new = [self.into(old[k] if k < len(old) else None, one, f"{at}[{k}]") for k, one in enumerate(saved)]
        result[:] = new
        return result

    def _dict(
        self, target: Any, saved: dict[Any, Any], at: str, kind: type, items: list[tuple[Any, Any]]
    ) -> Any:
        result: Any = target if type(target) is kind else kind()
        self._note(saved, result, target=target)
        old = dict(result)
        new = [(key, self.into(old.get(key), one, f"{at}[{key!r:.60}]")) for key, one in items]
        result.clear()
        for key, one in new:
            result[key] = one
        return result

    def _special(self, kind: str, target: Any, saved: dict[str, Any], at: str) -> Any:
        if kind in _WITH_STATE:
            return self._object(kind, target, saved, at)
        if kind == "tensor":
            return self._once(saved, lambda: self.tensors.with_more(target, saved))
        if kind == "array":
            return self._once(saved, lambda: self._array(target, saved))
        if kind == SHARDED:
            return self._once(saved, lambda: self._sharded(target, saved))
        if kind == "scalar":
            return self._note(saved, _scalar(saved))
        if kind == "dict":
            items = [(self.into(None, key, at), one) for key, one in saved["items"]]
            return self._dict(target, saved, at, dict, items)
        if kind == "dict like":
            items = [(self.into(None, key, at), one) for key, one in saved["items"]]
            made = _PLAIN_DICTS.get(saved["type"], dict)
            return self._dict(target, saved, at, made, items)
        if kind == "deque":
            fits = type(target) is deque and target.maxlen == saved["maxlen"]
            queue = target if fits else deque(maxlen=saved["maxlen"])
            self._note(saved, queue, target=target)
            new = [self.into(None, one, f"{at}[{k}]") for k, one in enumerate(saved["items"])]
            queue.clear()
            queue.extend(new)
            return queue
        if kind in ("set", "frozenset", "range", "slice"):
            return self._small(kind, target, saved, at)
        if kind == "bytearray":
            data = target if type(target) is bytearray else bytearray()
            self._note(saved, data, target=target)
            data[:] = saved["data"]
            return data
        raise CannotRestore(f"{at} was written by a newer jupyter_train: {kind!r} is not known here")

    def _small(self, kind: str, target: Any, saved: dict[str, Any], at: str) -> Any:
        items = [self.into(None, one, f"{at}[…]") for one in saved["items"]]
        if kind == "set":
            members = target if type(target) is set else set()
            members.clear()
            members.update(items)
            return self._note(saved, members, target=target)
        made: Any = {"frozenset": frozenset, "range": range, "slice": slice}[kind]
        return self._note(saved, made(items) if kind == "frozenset" else made(*items))

    def _array(self, target: Any, saved: dict[str, Any]) -> Any:
        import numpy as np

        dtype = np.lib.format.descr_to_dtype(_descr(saved["dtype"]))
        data = np.frombuffer(saved["data"].numpy().tobytes(), dtype).reshape(saved["shape"])
        if (
            type(target) is np.ndarray
            and id(target) not in self._taken
            and target.dtype == dtype
            and target.shape == data.shape
            and target.flags.writeable
        ):
            target[...] = data
            self._taken[id(target)] = target
            return target
        return data.copy()

    def _sharded(self, target: Any, saved: dict[str, Any]) -> Any:
        """What ranks had parts of: in ``target``, itself sharded or not, else whole."""
        import torch

        if (filled := self._filled.get(id(saved))) is not None:
            return filled
        if not isinstance(target, torch.Tensor) or tuple(target.shape) != tuple(saved["shape"]):
            target = torch.empty(saved["shape"], dtype=saved["dtype"])
        fill([(saved, target)])
        return target

    # Objects

    def _object(self, kind: str, target: Any, saved: dict[str, Any], at: str) -> Any:
        from jupyter_train.runtime.checkpoint import objects

        if target is None and self._states:
            value = self._states_of(kind, saved, at)
            return self._note(saved, value)
        if target is None:
            return self._note(saved, objects.new_random(kind, saved, at))
        if kind == "module":
            objects.load_module(self, target, saved, at)
        elif kind == "optimizer":
            objects.load_optimizer(target, saved, at, fresh=self._fresh)
        elif kind == "object":
            objects.load_object(target, saved, at, fresh=self._fresh)
        else:
            objects.load_random(kind, target, saved, at, fresh=self._fresh)
        return self._note(saved, target, target=target)

    def _states_of(self, kind: str, saved: dict[str, Any], at: str) -> Any:
        if kind == "module":
            return OrderedDict((name, self.into(None, one, at)) for name, one in saved["state"].items())
        return self.into(None, saved["state"], at)

    def _fresh(self, saved: Any, filled: Mapping[int, Any] | None = None) -> Any:
        """A copy that shares nothing with anybody but itself."""
        return Loading(states=True, filled=filled).into(None, saved, "the state")

    def _once(self, saved: Any, make: Any) -> Any:
        if (made := self._made.get(id(saved))) is not None:
            return made[1]
        return self._note(saved, make())

    def _note(self, saved: Any, value: Any, *, target: Any = None) -> Any:
        self._made[id(saved)] = (saved, value)
        if target is not None:
            self._taken[id(target)] = target
        return value


def _scalar(saved: Mapping[str, Any]) -> Any:
    import numpy as np

    return np.frombuffer(saved["data"], np.lib.format.descr_to_dtype(_descr(saved["dtype"])))[0]


def _descr(described: Any) -> Any:
    """Field descriptions as numpy wants them: tuples in lists."""
    if isinstance(described, list):
        return [tuple(_descr(part) if isinstance(part, list) else part for part in one) for one in described]
    return described
