"""Decides what of a rank's namespace goes into a result, and what stays with a remark."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jupyter_train.transport.absent import Absent
from jupyter_train.transport.aliases import Aliases
from jupyter_train.transport.call import RETURN_VALUE
from jupyter_train.transport.exclusions import is_users
from jupyter_train.transport.kinds import Edit
from jupyter_train.transport.load import Loaded
from jupyter_train.transport.opaque import REPLACED
from jupyter_train.transport.pickling import Namespace, Writer
from jupyter_train.transport.reach import names_by_object
from jupyter_train.transport.resultfile import Section

#: Edits whose payload is the memory of the captured object itself.
_OF_MEMORY = frozenset({"array", "tensor", "frame"})

#: Those that are carried out by copying it over.
_ONLY_MEMORY = frozenset({"array", "tensor"})

_Change = tuple[int, Any, list[Edit]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What does not come back by itself, per name, in bytes."""

    made_bytes: int  #: of what the cell made
    changed_bytes: (
        int  #: of what it changed: higher, because old weights under a trained model's name mislead
    )


class Packing:
    """Decides what goes where in one result."""

    def __init__(
        self, loaded: Loaded, namespace: Namespace, keep: Collection[str] | None, limits: Limits
    ) -> None:
        self._loaded = loaded
        self._namespace = namespace
        self._keep = keep
        self._limits = limits
        changes = list(loaded.snapshots.changes())
        self._changes = [(number, value, edits) for number, value, edits in changes if REPLACED not in edits]
        self._replaced = {number: value for number, value, edits in changes if REPLACED in edits}
        self._small = Section(self._writer())
        self._rest: Section | None = None
        self._absent = Absent()
        self.names: list[str] = []
        self.large: list[str] = []
        self.changed: list[str] = []
        self._remarks: list[str] = []

    def _writer(self) -> Writer:
        given: Sequence[Any] = self._loaded.objects
        if self._replaced:  # the notebook has none like them
            given = [None if number in self._replaced else value for number, value in enumerate(given)]
        return Writer(self._namespace, given=given, returning=True)

    def _large(self) -> Section:
        if self._rest is None:
            self._rest = Section(self._writer())
        return self._rest

    def sections(self) -> list[Section]:
        """What to write: what comes back by itself first."""
        return [self._small] if self._rest is None else [self._small, self._rest]

    def _comes_back(self, name: str) -> bool:
        return self._keep is None or name in self._keep

    def deleted(self) -> list[str]:
        """Captured names that the cell deleted."""
        gone = (name for name in self._loaded.names if name not in self._namespace)
        return [name for name in gone if self._comes_back(name)]

    def remarks(self) -> list[str]:
        """What does not come back, in few sentences."""
        return [*self._remarks, *self._absent.remarks()]

    def add_random_state(self, state: Mapping[str, Any]) -> None:
        """Where the random generators stand."""
        self._small.add(("random", ""), dict(state))

    # Names

    def add_names(self) -> None:
        """What the cell assigned, also by star imports, ``exec`` or through ``globals()``."""
        before = self._loaded.bindings
        missing = object()
        replaced = set(map(id, self._replaced.values()))
        for name, value in list(self._namespace.items()):
            if not is_users(name, value) or not self._comes_back(name):
                continue
            if before.get(name, missing) is value and id(value) not in replaced:
                continue
            # Who calls a function asks for its value, of any size.
            unlimited = name == RETURN_VALUE or self._keep is not None
            limit = None if unlimited else self._limits.made_bytes
            try:
                if self._small.add(("name", name), value, limit_bytes=limit) is not None:
                    self.names.append(name)
                else:
                    self._large().add(("name", name), value)
                    self.large.append(name)
                    self._remarks.append(
                        f'{name} is larger than {_size(limit)} and stays with the run: run.result("{name}")'
                    )
            except Exception as error:
                self._not_back(name, value, error)

    def _not_back(self, name: str, value: Any, error: Exception) -> None:
        culprit = self._absent.culprit(value, name, self._small.writer.refuses)
        if name == RETURN_VALUE:
            why = str(error) if culprit is None else f"{culprit.path} ({culprit.type_name}): {culprit.reason}"
            self._remarks.append(f"{name} did not come back: {why}")
        elif culprit is None:
            self._absent.add(name, str(error) or type(error).__name__)
        else:
            self._absent.add_name(name, culprit)

    def add_error(self, error: BaseException) -> None:
        """What ended the cell, where it travels."""
        # Its frames stay here; its chain does too, the text of it is in the error event.
        try:
            self._small.add(("error", ""), error)
        except Exception:  # the error event has its type and text
            return

    # Changes in place

    def add_edits(self) -> None:
        """What the cell changed in captured objects."""
        numbers = {number for number, _, _ in self._changes} | self._replaced.keys()
        names = names_by_object(self._loaded, numbers, self._roots())
        large = self._large_names(names)
        # Memory first: whether that of a captured array comes back is known when a view of it is written,
        # and the notebook has it before the view is made there.
        early = [change for change in self._changes if _is_of_memory(change)]
        late = [change for change in self._changes if not _is_of_memory(change)]
        self._add_all(early, names, large)
        self._use_aliases()
        self._add_all(late, names, large)
        self.changed = [name for name in self.changed if name not in large]
        for name in sorted(large):
            self._is_large(name)
        self._name_replaced(names)

    def _add_all(self, changes: Iterable[_Change], names: Mapping[int, list[str]], large: set[str]) -> None:
        for number, value, edits in changes:
            reaching = names.get(number, [])
            if self._keep is not None and not any(name in self._keep for name in reaching):
                continue
            if not reaching or not large.issuperset(reaching):
                if self._add_edits(self._small, number, value, edits, reaching):
                    self._note_changed(reaching, large)
                    continue
                large.update(reaching)  # it holds something new that is large
            self._add_edits(self._large(), number, value, edits, reaching)

    def _use_aliases(self) -> None:
        snapshots, objects = self._loaded.snapshots, self._loaded.objects
        come_back = {number for kind, number in self._small.items if kind == "bytes"}
        left_out = {number for number, _, _ in self._changes if number not in come_back}
        self._small.writer.use_aliases(Aliases(objects, left_out, snapshots.lies_as_there))

    def _is_large(self, name: str) -> None:
        self.large.append(name)
        self._remarks.append(
            f"{name} changed by more than {_size(self._limits.changed_bytes)} and is as before the run here;  "
            f'run.result("{name}")  brings the change into it'
        )

    def _name_replaced(self, names: Mapping[int, list[str]]) -> None:
        """What has to be replaced comes back as the name that it has; inside of something else it stays."""
        for number, value in self._replaced.items():
            named = [name for name in names.get(number, ()) if self._namespace.get(name) is value]
            if not named:
                where = names.get(number, ["another object"])[0]
                self._absent.add(f"how far {a(value)} in {where} went", "it cannot be moved on from outside")

    def _roots(self) -> list[tuple[str, Any]]:
        """Captured names with what they meant; where only some are kept, also what those mean now."""
        before = self._loaded.bindings
        roots = [(name, before[name]) for name in self._loaded.names if name in before]
        roots += self._loaded.given.items()
        now = self._namespace
        return roots + [(name, now[name]) for name in self._keep or () if name in now]

    def _note_changed(self, names: Iterable[str], large: Collection[str]) -> None:
        captured = {*self._loaded.names, *self._loaded.given}.difference(self.changed, large)
        self.changed += [name for name in names if name in captured]

    def _large_names(self, names: Mapping[int, list[str]]) -> set[str]:
        """Captured names with more changed bytes than come back by themselves."""
        if self._keep is not None:
            return set()
        totals: dict[str, int] = {}
        for number, _, edits in self._changes:
            size = sum(getattr(part, "nbytes", 0) for edit in edits for part in edit[1:])
            for name in names.get(number, ()):
                totals[name] = totals.get(name, 0) + size
        return {name for name, total in totals.items() if total > self._limits.changed_bytes}

    def _add_edits(
        self, section: Section, number: int, value: Any, edits: list[Edit], names: Sequence[str]
    ) -> bool:
        """Whether the edits are dealt with: False where they are too large for the small section."""
        limited = section is self._small and self._keep is None and names
        limit = self._limits.changed_bytes if limited else None
        item = ("bytes" if all(edit[0] in _ONLY_MEMORY for edit in edits) else "edit", number)
        try:
            return section.add(item, edits, limit_bytes=limit) is not None
        except Exception:
            edits = [kept for edit in edits if (kept := self._what_travels(section, edit, value, names))]
            return not edits or section.add(item, edits, limit_bytes=limit) is not None

    def _what_travels(self, section: Section, edit: Edit, value: Any, names: Sequence[str]) -> Edit | None:
        """The edit without the entries that cannot travel, each named in a remark."""
        verb, *arguments = edit
        if verb in ("items", "attributes", "slots", "class"):
            given, gone = arguments
            kept = []
            for key, item in given:
                culprit = self._absent.culprit((key, item), "", section.writer.refuses)
                if culprit is None:
                    kept.append((key, item))
                elif verb == "items" or not _is_internal(key, value):
                    part = f"[{key!r}]" if verb == "items" else f".{key}"
                    self._absent.add(self._path(part, value, names), culprit.reason)
            return (verb, kept, gone) if kept or gone else None
        culprit = self._absent.culprit(arguments, "", section.writer.refuses)
        if culprit is None:
            return edit
        where = f" in {names[0]}" if names else ""
        self._absent.add(f"a change of {a(value)}{where}", culprit.reason)
        return None

    def _path(self, part: str, value: Any, names: Sequence[str]) -> str:
        """What to call a part of ``value``, which is reached from ``names``."""
        if isinstance(value, type):
            return f"{value.__qualname__}{part}"
        for name in names:
            own = self._loaded.bindings.get(name)
            if own is value:
                return f"{name}{part}"
            step = _step_to(value, own)
            if step:
                return f"{name}{step}{part}"
        return f"{part} of {a(value)}" + (f" in {names[0]}" if names else "")


def _step_to(value: Any, owner: Any) -> str:
    """How ``owner`` holds ``value``, as code; empty where it does not at first hand."""
    entries = owner.items() if isinstance(owner, dict) else ()
    found = next((f"[{key!r}]" for key, item in entries if item is value), "")
    if found:
        return found
    attributes = getattr(owner, "__dict__", {})
    return next((f".{name}" for name, item in attributes.items() if item is value), "")


def _is_of_memory(change: _Change) -> bool:
    return any(edit[0] in _OF_MEMORY for edit in change[2])


def _is_internal(name: str, owner: Any) -> bool:
    """Whether an attribute is a library's own business: a cache, a handle of the process."""
    kind = owner if isinstance(owner, type) else type(owner)
    return name.startswith("_") and kind.__module__ != "__main__"


def _size(size: int | None) -> str:
    size = size or 0
    return f"{size >> 30} GB" if size >= 1 << 30 else f"{size >> 20} MB"


def a(value: Any) -> str:
    """What a remark calls an object that has no name."""
    kind = type(value)
    return f"a {kind.__qualname__}"
