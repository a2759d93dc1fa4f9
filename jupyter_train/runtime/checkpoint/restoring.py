"""What a checkpoint holds, put back where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyter_train.errors import CellError
from jupyter_train.runtime.checkpoint.finding import Found
from jupyter_train.runtime.checkpoint.freezing import KIND
from jupyter_train.runtime.checkpoint.loading import CannotRestore, load_all, load_into, plain_value
from jupyter_train.runtime.checkpoint.reader import Saved

ENGINE = "jupyter_train/engine"  #: labels of what is nobody's but ours
RANDOM = "jupyter_train/random"
BEGAN = "jupyter_train/began"
ITERATORS = "jupyter_train/iterators"
OURS = (ENGINE, RANDOM, BEGAN, ITERATORS)


class Restoring:
    """The state of a checkpoint, loaded as often as its loops are entered. Main thread of a rank.

    Args:
        saved: what the files hold.
        given: label by which a thing is found → by which it was kept.
        where: the checkpoint, in words.
    """

    def __init__(self, saved: Saved, *, given: Mapping[str, str], where: str) -> None:
        self._states = {**saved.shared, **saved.own}
        self._given = given
        self._where = where
        self._loaded: set[str] = set()

    def ours(self, label: str) -> Any:
        """What we kept under that label; None where there is none."""
        found = self._states.get(label)
        return None if found is None else plain_value(found)

    def load(self, found: Found) -> None:
        """Into everything that is there by now.

        Raises:
            CellError: something is not as it was when the checkpoint was made.
        """
        targets: dict[str, Any] = {}
        assign = {}
        for label, target in found.objects.items():
            targets[self._given.get(label, label)] = target
        for label, variable in found.variables.items():
            kept = self._given.get(label, label)
            targets[kept] = variable.value
            assign[kept] = variable.assign
        saved = {label: state for label, state in self._states.items() if label in targets}
        self._loaded.update(saved)
        try:
            values = load_all(targets, saved)
        except CannotRestore as error:
            raise CellError(f"{self._where} cannot be gone on from: {error}") from error
        for label, value in values.items():
            if label in assign and value is not targets[label]:
                assign[label](value)
        for label, state in self._states.items():
            if label in targets or label in OURS or not _is_plain(state):
                continue
            if found.assign(label, load_into(None, state)):
                self._loaded.add(label)

    @property
    def missing(self) -> list[str]:
        """Labels of what is in the checkpoint, and was nowhere to be found."""
        return [label for label in self._states if label not in self._loaded and label not in OURS]


def _is_plain(state: Any) -> bool:
    return not isinstance(state, dict) or state.get(KIND) not in ("module", "optimizer", "object")


def in_words(label: str) -> str:
    """A label as the cell calls it: ``0:fit/trainer/model`` → ``trainer.model``."""
    return ".".join(label.split("/")[1:]) or label
