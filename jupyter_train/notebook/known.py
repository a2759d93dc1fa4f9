"""What earlier runs of this kernel found about the same text: it need not be found again. Kernel's main thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from jupyter_train.record import WholeLoop

if TYPE_CHECKING:
    from jupyter_train.notebook.run import Run
    from jupyter_train.notebook.submit import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a run runs, as far as it decides which of its loops can be split."""

    source: str
    first_line: int
    ranks: int
    kinds: Mapping[str, str]  #: what the names are that it reads, by name

    def is_like(self, other: Program) -> bool:
        """What was found in one holds for the other.

        A run binds names, so that a second one reads more: only common names
        count. A loss that was written anew in another cell is another one.
        """
        same = (self.source, self.first_line, self.ranks) == (other.source, other.first_line, other.ranks)
        return same and all(other.kinds.get(name, kind) == kind for name, kind in self.kinds.items())


def program(work: Work, ranks: int, names: Iterable[str]) -> Program:
    """The program that ``work`` is on so many ranks; ``names`` are those that it reads."""
    kinds = {name: _kind(work.namespace.get(name)) for name in names}
    kinds |= {label: _kind(value) for label, value in work.given.items()}
    return Program(source=work.source, first_line=work.first_line, ranks=ranks, kinds=kinds)


def known_whole(wanted: Program, runs: Iterable[Run]) -> tuple[WholeLoop, ...]:
    """The loops that the newest of ``runs`` with that program could not split; none where there is none."""
    same = [run for run in runs if run.program is not None and run.program.is_like(wanted)]
    return tuple(replace(one, after_s=0.0) for one in same[-1].known.whole) if same else ()


def _kind(value: Any) -> str:
    """The class of ``value``; of functions, and of classes of the notebook, where they were defined."""
    if isinstance(value, MethodType):
        value = value.__func__
    if isinstance(value, FunctionType):
        return f"{value.__code__.co_filename}:{value.__code__.co_firstlineno}"
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__} {_origin(kind)}"


def _origin(kind: type) -> str:
    """Where the methods of a class of the notebook were defined: a cell's file is named after its text."""
    if kind.__module__ != "__main__":
        return ""
    methods: Mapping[str, Any] = vars(kind)
    return ",".join(sorted({m.__code__.co_filename for m in methods.values() if isinstance(m, FunctionType)}))
