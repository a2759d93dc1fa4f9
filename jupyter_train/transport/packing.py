"""Decides what of a rank's namespace goes into a result, and what stays with a remark."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from jupyter_train.transport.call import RETURN_VALUE
from jupyter_train.transport.culprit import find_culprit
from jupyter_train.transport.exclusions import is_users
from jupyter_train.transport.kinds import Edit
from jupyter_train.transport.load import Loaded
from jupyter_train.transport.pickling import Namespace, Writer
from jupyter_train.transport.reach import names_by_object
from jupyter_train.transport.resultfile import Section

_CULPRIT_SECONDS = 1.0


class Packing:
    """Decides what goes where in one result."""

    def __init__(
        self, loaded: Loaded, namespace: Namespace, keep: Collection[str] | None, large_bytes: int
    ) -> None:
        self._loaded = loaded
        self._namespace = namespace
        self._keep = keep
        self._large_bytes = large_bytes
        self._small = Section(self._writer())
        self._rest: Section | None = None
        self.names: list[str] = []
        self.large: list[str] = []
        self.changed: list[str] = []
        self._remarks: list[str] = []

    def _writer(self) -> Writer:
        return Writer(self._namespace, given=self._loaded.objects, returning=True)

    def _large(self) -> Section:
        if self._rest is None:
            self._rest = Section(self._writer())
        return self._rest

    def sections(self) -> list[Section]:
        """What to write: what comes back by itself first."""
        return [self._small] if self._rest is None else [self._small, self._rest]

    def _comes_back(self, name: str) -> bool:
        return self._keep is None or name in self._keep

    def _limit(self) -> int | None:
        return self._large_bytes if self._keep is None else None

    def deleted(self) -> list[str]:
        """Captured names that the cell deleted."""
        gone = (name for name in self._loaded.names if name not in self._namespace)
        return [name for name in gone if self._comes_back(name)]

    def remarks(self) -> list[str]:
        """What does not come back, a sentence each. Call it once, at the end."""
        for cls, names in self._loaded.snapshots.changed_classes():
            listed = ", ".join(f"{cls.__qualname__}.{name}" for name in names)
            self._remarks.append(f"{listed} changed on the ranks; attributes of classes do not come back")
        return self._remarks

    def add_names(self) -> None:
        """What the cell assigned, also by star imports, ``exec`` or through ``globals()``."""
        before = self._loaded.bindings
        missing = object()
        for name, value in list(self._namespace.items()):
            if before.get(name, missing) is value or not is_users(name, value) or not self._comes_back(name):
                continue
            # Who calls a function asks for its value, of any size.
            limit = None if name == RETURN_VALUE else self._limit()
            try:
                if self._small.add(("name", name), value, limit_bytes=limit) is not None:
                    self.names.append(name)
                else:
                    self._large().add(("name", name), value)
                    self._is_large(name)
            except Exception as error:
                self._not_back(name, value, error)

    def _is_large(self, name: str) -> None:
        self.large.append(name)
        limit = self._large_bytes >> 20
        self._remarks.append(f'{name} is larger than {limit} MB and stays with the run: run.result("{name}")')

    def _not_back(self, name: str, value: Any, error: Exception) -> None:
        culprit = find_culprit(value, name, self._writer().refuses, seconds=_CULPRIT_SECONDS)
        if culprit is None:
            self._remarks.append(f"{name} did not come back: {error}")
        elif culprit.path == name:
            self._remarks.append(f"{name} ({culprit.type_name}) did not come back: {culprit.reason}")
        else:
            self._remarks.append(
                f"{name} did not come back: {culprit.path} ({culprit.type_name}) is {culprit.reason}"
            )

    def add_error(self, error: BaseException) -> None:
        """What ended the cell, where it travels."""
        # Its frames stay here; its chain does too, the text of it is in the error event.
        try:
            self._small.add(("error", ""), error)
        except Exception:  # the error event has its type and text
            return

    def add_edits(self) -> None:
        """What the cell changed in captured objects."""
        changes = list(self._loaded.snapshots.changes())
        names = names_by_object(self._loaded, {number for number, _, _ in changes}, self._roots())
        large = self._large_names(changes, names)
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
        self.changed = [name for name in self.changed if name not in large]
        for name in sorted(large):
            self._is_large(name)

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

    def _large_names(
        self, changes: Iterable[tuple[int, Any, list[Edit]]], names: dict[int, list[str]]
    ) -> set[str]:
        """Captured names with more changed bytes than come back by themselves."""
        limit = self._limit()
        if limit is None:
            return set()
        totals: dict[str, int] = {}
        for number, _, edits in changes:
            size = sum(getattr(part, "nbytes", 0) for edit in edits for part in edit[1:])
            for name in names.get(number, ()):
                totals[name] = totals.get(name, 0) + size
        return {name for name, total in totals.items() if total > limit}

    def _add_edits(
        self, section: Section, number: int, value: Any, edits: list[Edit], names: Sequence[str]
    ) -> bool:
        """Whether the edits are dealt with: False where they are too large for the small section."""
        limit = self._limit() if section is self._small and names else None
        item = ("edit", number)
        try:
            return section.add(item, edits, limit_bytes=limit) is not None
        except Exception:
            edits = [kept for edit in edits if (kept := self._what_travels(section, edit, value, names))]
            return not edits or section.add(item, edits, limit_bytes=limit) is not None

    def _what_travels(self, section: Section, edit: Edit, value: Any, names: Sequence[str]) -> Edit | None:
        """The edit without the entries that cannot travel, each named in a remark."""
        verb, *arguments = edit
        path = names[0] if names else a(value)
        if verb in ("items", "attributes", "slots"):
            given, gone = arguments
            kept = []
            for key, item in given:
                culprit = find_culprit((key, item), "", section.writer.refuses, seconds=_CULPRIT_SECONDS)
                if culprit is None:
                    kept.append((key, item))
                elif verb == "items" or not _is_internal(key, value):
                    where = f".{key}" if verb != "items" else f"[{key!r}]"
                    self._remarks.append(
                        f"{where} of {a(value)} in {path} did not come back: {culprit.reason}"
                    )
            return (verb, kept, gone) if kept or gone else None
        culprit = find_culprit(arguments, "", section.writer.refuses, seconds=_CULPRIT_SECONDS)
        if culprit is None:
            return edit
        self._remarks.append(f"a change of {a(value)} in {path} did not come back: {culprit.reason}")
        return None


def _is_internal(name: str, owner: Any) -> bool:
    """Whether an attribute is a library's own business: a cache, a handle of the process."""
    return name.startswith("_") and type(owner).__module__ != "__main__"


def a(value: Any) -> str:
    """What a remark calls an object that has no name."""
    kind = type(value)
    return f"a {kind.__qualname__}"
