"""Which values in the body of a training loop come from this rank's share of a batch. Pure; read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

#: Of a tensor: the same on all ranks, whatever its samples.
_ALIKE = frozenset({"device", "dtype", "ndim", "requires_grad", "is_cuda", "layout", "itemsize"})
_COUNTS = frozenset({"size", "len", "numel"})


class Provenance:
    """Follows a loop's body from the top to the bottom.

    Args:
        losses: names whose value behind ``backward()`` is that of all ranks.
    """

    def __init__(self, loop: ast.For | ast.AsyncFor, losses: Iterable[str]) -> None:
        self._loop = loop
        self._losses = frozenset(losses)
        self.index = _index(loop)  #: the loop's own counter
        self.has_backward = any(map(_calls_backward, ast.walk(loop)))
        self.of_share: set[str] = set()
        self.definitions: dict[str, ast.expr] = {}  #: what a name was set to last
        self.begun_inside = set(_assigned_anew(loop))  #: names that each round sets anew

    def statements(self) -> Iterator[ast.stmt]:
        """The statements in order; while one is handed out the object knows what holds just before it."""
        ordered = sorted(
            (node for node in ast.walk(self._loop) if isinstance(node, ast.stmt) and node is not self._loop),
            key=lambda node: (node.lineno, node.col_offset),
        )
        for is_last in (False, True):  # what one round leaves is there in the next
            self.of_share |= names(self._loop.target) - self.index
            for statement in ordered:
                if is_last:
                    yield statement
                self._follow(statement)

    def is_of_share(self, value: ast.AST) -> bool:
        """Its value depends on which samples this rank has, or on how many."""
        if isinstance(value, ast.Attribute) and value.attr in _ALIKE:
            return False
        if isinstance(value, (ast.Name, ast.Attribute)) and ast.unparse(value) in self.of_share:
            return True
        if _is_other_size(value):
            return False
        return any(map(self.is_of_share, ast.iter_child_nodes(value)))

    def counts_samples(self, value: ast.AST) -> bool:
        """It is made of the number of samples."""
        return any(self.is_count(node) and self.is_of_share(node) for node in ast.walk(value))

    def is_count(self, node: ast.AST) -> bool:
        """``len(x)``, or a name for it."""
        made = self.definitions.get(node.id) if isinstance(node, ast.Name) else None
        return is_count(node if made is None else made)

    def is_global_loss(self, value: ast.AST) -> bool:
        """It is made of a loss that is that of all ranks by now."""
        return any(name in self._losses and name not in self.of_share for name in names(value))

    def is_local_loss(self, value: ast.AST) -> bool:
        """It is made of a loss that will be that of all ranks behind ``backward()``."""
        return self.has_backward and bool(names(value) & self._losses & self.of_share)

    def adds_up(self, value: ast.AST) -> bool:
        """Of all ranks together it is the sum, not the mean."""
        if any(
            isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div) and self.counts_samples(n.right)
            for n in ast.walk(value)
        ):
            return False
        for node in ast.walk(value):
            if isinstance(node, ast.Call) and _called(node) == "mean":
                return False
            if isinstance(node, ast.Compare) or is_count(node):
                return True
            if isinstance(node, ast.Call) and _called(node) in ("sum", "count_nonzero"):
                return True
        known = [self.definitions[name] for name in names(value) if name in self.definitions]
        return any(one is not value and self.adds_up(one) for one in known if not names(one) & names(value))

    def _follow(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            added = isinstance(statement, ast.AugAssign)
            for target in targets:
                self._set(target, statement.value, keeps=added)
        elif isinstance(statement, (ast.For, ast.AsyncFor)):
            self._set(statement.target, statement.iter, keeps=False)
        if isinstance(statement, ast.Expr) and _calls_backward(statement.value):
            self.of_share -= self._losses

    def _set(self, target: ast.expr, value: ast.expr, *, keeps: bool) -> None:
        named = {ast.unparse(one) for one in _targets(target)}
        if self.is_of_share(value):
            self.of_share |= named
        elif not keeps:
            self.of_share -= named
        if not keeps:
            self.definitions.update(dict.fromkeys(named, value))


def names(value: ast.AST) -> set[str]:
    """The plain names in ``value``."""
    return {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}


def is_count(node: ast.AST) -> bool:
    """``len(x)``, ``x.size(0)``, ``x.shape[0]``, ``x.numel()``."""
    if isinstance(node, ast.Call) and _called(node) in _COUNTS:
        return not node.args or isinstance(node.func, ast.Name) or _is_zero(node.args[0])
    return isinstance(node, ast.Subscript) and _is_shape(node.value) and _is_zero(node.slice)


def _is_other_size(node: ast.AST) -> bool:
    """``x.size(1)``, ``x.shape[-1]``: not of the samples' dimension."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "size":
        return bool(node.args) and not _is_zero(node.args[0])
    return isinstance(node, ast.Subscript) and _is_shape(node.value) and not _is_zero(node.slice)


def _is_shape(value: ast.expr) -> bool:
    return isinstance(value, ast.Attribute) and value.attr == "shape"


def _is_zero(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value == 0


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _calls_backward(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and "backward" in _called(node)


def _index(loop: ast.For | ast.AsyncFor) -> set[str]:
    if isinstance(loop.target, ast.Tuple) and "enumerate(" in ast.unparse(loop.iter):
        return names(loop.target.elts[0])
    return set()


def _targets(target: ast.expr) -> Iterator[ast.expr]:
    if isinstance(target, (ast.Tuple, ast.List)):
        for one in target.elts:
            yield from _targets(one)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value)
    elif isinstance(target, (ast.Name, ast.Attribute)):
        yield target


def _assigned_anew(loop: ast.AST) -> Iterator[str]:
    for node in ast.walk(loop):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for one in _targets(target):
                    if ast.unparse(one) not in {
                        ast.unparse(n) for n in ast.walk(node.value) if isinstance(n, ast.expr)
                    }:
                        yield ast.unparse(one)
