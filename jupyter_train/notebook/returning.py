"""How a run's result gets into the notebook: the file, what other runs did meanwhile, and what is large."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train import home
from jupyter_train.errors import RunError
from jupyter_train.notebook.bundle import plain
from jupyter_train.notebook.words import reference
from jupyter_train.record import RunView
from jupyter_train.transport.call import RETURN_VALUE, is_label
from jupyter_train.transport.overlap import Others, Touch

if TYPE_CHECKING:
    from jupyter_train.control.client import ControllerClient
    from jupyter_train.transport.capture import Capture

_THIS_RUN = re.compile(r"\brun\.result\(")
_RESULT_FILE = re.compile(r"result-\d+\.bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What came back into the notebook."""

    names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    error: BaseException | None = None  #: rank 0's exception object, where the cell raised
    returned: tuple[Any, ...] = ()  #: the value that a function call gave, if it came
    trouble: Exception | None = None  #: why nothing came, where something should have


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What one run brought in, for those that started before and end after."""

    run: str
    ended: float  #: unix time
    names: Mapping[str, int]  #: with the identity of the value; -1: deleted
    changed: tuple[str, ...]
    objects: frozenset[int]  #: identities of the objects that were changed in place


class Returning:
    """The result of one run on its way. Used under the run's lock.

    Args:
        run_id: whose.
        connect: as of the run.
        namespace: where the names go.
        capture: what the run was started with; None: in another kernel.
    """

    def __init__(
        self,
        run_id: str,
        *,
        connect: Callable[[], ControllerClient],
        namespace: dict[str, Any],
        capture: Capture | None,
    ) -> None:
        self._run_id = run_id
        self._connect = connect
        self._namespace = namespace
        self._capture = capture
        self._arrivals: list[Arrival] = []
        self._is_applied = False
        self._unchanged: frozenset[str] = frozenset()

    def hear(self, arrival: Arrival) -> None:
        """Another run has brought something in."""
        if self._capture is not None and not self._is_applied:
            self._arrivals.append(arrival)

    def file(self, view: RunView, *, whole: bool) -> Path | None:
        """The result on this disk, fetched from the cluster where it lies elsewhere; None: there is none.

        Args:
            view: of the run.
            whole: with what does not come back by itself.

        Raises:
            RunError: it is not to be had.
            ClusterError: nobody answers who has it.
        """
        artifact: Mapping[str, Any] | None = view.artifacts.get("result")
        if artifact is None:
            return None
        file = str(artifact.get("file"))
        if not _RESULT_FILE.fullmatch(file):
            raise RunError(f"run {self._run_id} names {plain(file, 80)!r} as its result, which is not one")
        path = home.run_folder(self._run_id) / file
        size, prefix = artifact.get("size_bytes"), artifact.get("prefix_bytes")
        limit = prefix if not whole and isinstance(prefix, int) else None
        needed = limit if limit is not None else size if isinstance(size, int) else 0
        try:
            if path.stat().st_size >= needed:
                return path
        except OSError:
            home.private_folder(path.parent)
        try:
            self._connect().fetch(self._run_id, file, str(artifact.get("worker")), path, limit=limit)
        except OSError as error:
            raise RunError(
                f"the result of run {self._run_id} cannot be kept in {path.parent}: {error}"
            ) from error
        return path

    def load(self, view: RunView, path: Path, *, large: bool = True) -> dict[str, Any]:
        """The names of the result, on copies of what was captured."""
        from jupyter_train.transport.content import ContentStore
        from jupyter_train.transport.result import load_result

        refs = view.spec.capture if view.spec is not None else ()
        return dict(load_result(path, refs, ContentStore(home.content_folder()), large=large))

    def apply(self, view: RunView, path: Path, *, waited: bool) -> tuple[Brought, Arrival]:
        """Bring the result in. Main thread: it runs the classes' own code.

        Args:
            view: of the ended run.
            path: of the result.
            waited: whether the notebook did nothing meanwhile.
        """
        run, ended = view.spec.name if view.spec is not None else self._run_id, view.ended or 0.0
        if self._capture is None:
            loaded = self.load(view, path, large=False)
            returned = (loaded[RETURN_VALUE],) if RETURN_VALUE in loaded else ()
            values = {name: value for name, value in loaded.items() if not is_label(name)}
            self._namespace.update(values)
            brought = Brought(names=tuple(values), returned=returned)
            return brought, self._arrival(run, ended, tuple(values), (), (), ())
        from jupyter_train.transport.result import apply_result

        others = self._others(ended)
        applied = apply_result(path, self._capture, self._namespace, waited=waited, others=others)
        self._is_applied = True
        self._arrivals.clear()
        self._unchanged = frozenset(applied.large).intersection(self._capture.names)
        if not self._unchanged:
            self._capture = None
        brought = Brought(
            names=tuple(dict.fromkeys((*applied.names, *applied.changed))),
            remarks=tuple(_as_here(remark, reference(run, self._run_id)) for remark in applied.remarks),
            error=applied.error,
            returned=applied.returned,
        )
        objects = tuple(map(id, applied.edited))
        return brought, self._arrival(run, ended, applied.names, applied.deleted, applied.changed, objects)

    def change_large(self, path: Path, name: str) -> tuple[Any, ...]:
        """The notebook's own object ``name`` with a change that was too large to come by itself.

        Empty where there is no such: it came, or this kernel did not start the run.
        """
        if self._capture is None or name not in self._unchanged:
            return ()
        from jupyter_train.transport.result import apply_large

        capture = self._capture
        apply_large(path, capture, self._namespace)
        self._capture, self._unchanged = None, frozenset()
        wanted = capture.bindings.get(name)
        return tuple(value for value in capture.objects if value is not None and id(value) == wanted)[:1]

    def _others(self, ended: float) -> Others:
        """What other runs did since the capture, as far as the notebook has not changed it again."""
        assert self._capture is not None
        names: dict[str, Touch] = {}
        objects: dict[int, Touch] = {}
        own = {id(value) for value in self._capture.objects if value is not None}
        for arrival in self._arrivals:
            wins = arrival.ended > ended
            for name, value in arrival.names.items():
                now = id(self._namespace[name]) if name in self._namespace else -1
                if now == value:
                    names[name] = Touch(run=arrival.run, name=name, wins=wins)
            shared = [name for name in arrival.changed if name in self._capture.names]
            touch = Touch(run=arrival.run, name=", ".join(shared[:3]) or "an object", wins=wins)
            objects |= dict.fromkeys(arrival.objects & own, touch)
        return Others(names=names, objects=objects)

    def _arrival(
        self,
        run: str,
        ended: float,
        names: tuple[str, ...],
        deleted: tuple[str, ...],
        changed: tuple[str, ...],
        objects: tuple[int, ...],
    ) -> Arrival:
        space = self._namespace
        values = {name: id(space[name]) if name in space else -1 for name in (*names, *deleted)}
        return Arrival(
            run=plain(run, 80), ended=ended, names=values, changed=changed, objects=frozenset(objects)
        )


def _as_here(remark: str, ref: str) -> str:
    """``remark`` with the run named as a user names it: not every notebook has it as ``run``."""
    quoted = ref if ref.startswith('"') else f'"{ref}"'
    return _THIS_RUN.sub(lambda _: f"jt.run({quoted}).result(", remark)
