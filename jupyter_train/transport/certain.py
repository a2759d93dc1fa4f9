"""Where a cell reads a name for sure, if it runs to its end: the places at which a name must exist.

The opposite caution of ``flow``: there a name counts as read in doubt, here
only where nothing speaks against it. Left out are a branch that a setting
decides, what an ``except`` may catch, functions that nothing calls by name, and
what stands after the cell's end.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyter_train.transport.flow import never_suppresses

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_LEAVES = {"exit", "quit", "_exit", "abort"}
_MADE = ("__new__", "__init__", "__post_init__")
_CALLED = ("__call__", "forward")


def certain_reads(tree: ast.Module, namespace: Mapping[str, Any]) -> list[ast.Name]:
    """Names that ``tree`` reads on its way, in the order in which it meets them.

    Scopes are left to the caller: local variables are among them.

    Args:
        tree: the cell.
        namespace: the notebook's names; an empty list there is no loop.
    """
    walk = _Walk(namespace=namespace, moving=_moving(tree))
    walk.block(tree.body)
    return walk.found


def _moving(tree: ast.Module) -> set[str]:
    """Names bound within a loop: what depends on them is another matter in each round, and no setting."""
    return {
        part.id
        for loop in ast.walk(tree)
        if isinstance(loop, ast.For | ast.AsyncFor | ast.While)
        for part in ast.walk(loop)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


@dataclass(eq=False)
class _Class:
    """A class of the cell."""

    methods: dict[str, list[_Function]]


@dataclass(kw_only=True, eq=False)
class _Walk:
    namespace: Mapping[str, Any]
    moving: set[str]
    found: list[ast.Name] = field(default_factory=list)
    functions: dict[str, list[_Function]] = field(default_factory=dict)  #: of the cell, not called so far
    classes: dict[str, _Class] = field(default_factory=dict)
    instances: dict[str, _Class] = field(default_factory=dict)  #: by the variable that holds one

    def block(self, body: Iterable[ast.stmt]) -> bool:
        """Whether control comes out at the end."""
        return all(self.statement(statement) for statement in body)

    def statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.expressions(_evaluated_with(node))
                self.functions.setdefault(node.name, []).append(node)
            case ast.ClassDef():
                self.class_(node)
            case ast.Return() | ast.Raise():
                self.children(node)
                return False
            case ast.Break() | ast.Continue():
                return False
            case ast.If():
                return self.if_(node)
            case ast.For() | ast.AsyncFor():
                self.expressions([node.iter, node.target])
                if not self.is_empty(node.iter):
                    self.block(node.body)
                self.block(node.orelse)
            case ast.While():
                self.expressions([node.test])
                if _truth(node.test) is not False:
                    self.block(node.body)
                return _truth(node.test) is not True or _contains(node.body, ast.Break)
            case ast.With() | ast.AsyncWith():
                self.expressions(
                    part for item in node.items for part in (item.context_expr, item.optional_vars)
                )
                if all(never_suppresses(item.context_expr) for item in node.items):
                    return self.block(node.body)
                return not _may_leave(node.body)
            case ast.Try() | ast.TryStar():
                return self.try_(node)
            case ast.Match():
                self.expressions([node.subject])
                return not any(_may_leave(case.body) for case in node.cases)
            case ast.Assert():
                self.expressions([node.test])
                return _truth(node.test) is not False
            case ast.Assign():
                self.children(node)
                self.assigned(node)
            case ast.AnnAssign():
                self.expressions([node.value, node.target])
                if sys.version_info < (3, 14):
                    self.expressions([node.annotation])
            case ast.Expr():
                self.children(node)
                return not _leaves(node.value)
            case _ if type(node).__name__ == "TypeAlias":  # Python 3.12; worked out when it is asked for
                pass
            case _:
                self.children(node)
        return True

    def children(self, node: ast.AST) -> None:
        self.expressions(ast.iter_child_nodes(node))

    def expressions(self, nodes: Iterable[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.expression(node)

    def expression(self, node: ast.AST) -> None:
        match node:
            case ast.Name():
                if isinstance(node.ctx, ast.Load):
                    self.found.append(node)
            case ast.Lambda():
                self.expressions([*node.args.defaults, *node.args.kw_defaults])
            case ast.BoolOp():
                self.expressions(node.values if self.moves(node) else node.values[:1])
            case ast.IfExp():
                self.expressions([node.test])
                truth = _truth(node.test)
                if truth is not None:
                    self.expression(node.body if truth else node.orelse)
                elif self.moves(node.test):
                    self.expressions([node.body, node.orelse])
            case ast.GeneratorExp():
                self.expression(node.generators[0].iter)  # the rest when somebody asks for it
            case ast.ListComp() | ast.SetComp() | ast.DictComp():
                self.comprehension(node)
            case ast.Call():
                self.call(node)
            case _:
                self.children(node)

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        first = node.generators[0]
        self.expression(first.iter)
        if self.is_empty(first.iter):
            return
        self.expressions(first.ifs)
        if not first.ifs:
            for one in node.generators[1:]:
                self.expressions([one.iter, *one.ifs])
            self.expressions([node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt])

    def call(self, node: ast.Call) -> None:
        self.children(node)
        for argument in node.args:
            if isinstance(argument, ast.GeneratorExp):
                self.consumed(argument)
        match node.func:
            case ast.Name(id=name):
                self.enter(self.functions.pop(name, []))
                if name in self.classes:
                    self.methods(self.classes[name], _MADE)
                elif name in self.instances:
                    self.methods(self.instances[name], _CALLED)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in self.instances:
                self.methods(self.instances[name], [attribute])

    def consumed(self, node: ast.GeneratorExp) -> None:
        """A generator handed to a call, which asks it for its elements."""
        if not node.generators[0].ifs and not self.is_empty(node.generators[0].iter):
            self.expression(node.elt)

    def methods(self, cls: _Class, names: Iterable[str]) -> None:
        for name in names:
            self.enter(cls.methods.pop(name, []), cls)

    def enter(self, functions: Iterable[_Function], cls: _Class | None = None) -> None:
        """What the body of a function reads, once somebody calls it."""
        for function in functions:
            if isinstance(function, ast.Lambda):
                self.expression(function.body)
                continue
            arguments = [*function.args.posonlyargs, *function.args.args]
            held = self.instances
            if cls is not None and arguments:
                self.instances = {**held, arguments[0].arg: cls}
            self.block(function.body)
            self.instances = held

    def assigned(self, node: ast.Assign) -> None:
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        for name in names:
            self.instances.pop(name, None)
            if isinstance(node.value, ast.Lambda):
                self.functions.setdefault(name, []).append(node.value)
            elif (cls := self.classes.get(_maker(node.value))) is not None:
                self.instances[name] = cls

    def class_(self, node: ast.ClassDef) -> None:
        self.expressions([*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)])
        cls = _Class({})
        if node.keywords:
            return  # a metaclass may give the body names of its own
        plain: list[ast.stmt] = []
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                self.expressions(_evaluated_with(part))
                cls.methods.setdefault(part.name, []).append(part)
            else:
                plain.append(part)
        self.block(plain)
        self.classes[node.name] = cls

    def if_(self, node: ast.If) -> bool:
        self.expressions([node.test])
        truth = _truth(node.test)
        if truth is not None:
            return self.block(node.body if truth else node.orelse)
        if self.moves(node.test):
            yes, no = self.block(node.body), self.block(node.orelse)
            return yes or no
        return not _may_leave([*node.body, *node.orelse])

    def try_(self, node: ast.Try | ast.TryStar) -> bool:
        goes_on = True
        if any(_may_catch(handler.type) for handler in node.handlers):
            goes_on = not _may_leave(node.body)
        else:
            goes_on = self.block(node.body) and self.block(node.orelse)
        # A handler may lead on where the body ends.
        goes_on = goes_on or bool(node.handlers)
        return self.block(node.finalbody) and goes_on

    def moves(self, test: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self.moving for part in ast.walk(test))

    def is_empty(self, iterated: ast.expr) -> bool:
        """Whether a loop over it surely has no round."""
        if isinstance(iterated, ast.Name):
            value = self.namespace.get(iterated.id)
            return type(value) in (list, tuple, dict, set) and not value
        return isinstance(iterated, ast.List | ast.Tuple | ast.Set) and not iterated.elts


def _evaluated_with(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr | None]:
    """What a definition evaluates at once."""
    arguments = node.args
    yield from node.decorator_list
    yield from arguments.defaults
    yield from arguments.kw_defaults
    if sys.version_info < (3, 14):
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for argument in (*every, arguments.vararg, arguments.kwarg):
            if argument is not None:
                yield argument.annotation
        yield node.returns


def _maker(node: ast.expr) -> str:
    """``Net`` of ``Net(…)`` and of ``Net(…).to(device)``."""
    while isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name):
            return node.func.id
        if not isinstance(node.func, ast.Attribute):
            break
        node = node.func.value
    return ""


def _truth(test: ast.expr) -> bool | None:
    """What a test comes to, where that can be read off; a cell is ``__main__``."""
    match test:
        case ast.Constant():
            return bool(test.value)
        case ast.Compare(
            left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value=name)]
        ):
            return bool(name == "__main__")
    return None


def _leaves(node: ast.expr) -> bool:
    """``sys.exit()`` and its like."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in _LEAVES


def _may_leave(body: Iterable[ast.stmt]) -> bool:
    return any(
        isinstance(part, ast.Raise | ast.Return | ast.Break | ast.Continue)
        or (isinstance(part, ast.Expr) and _leaves(part.value))
        for statement in body
        for part in ast.walk(statement)
    )


def _contains(body: Iterable[ast.stmt], kind: type[ast.AST]) -> bool:
    return any(isinstance(part, kind) for statement in body for part in ast.walk(statement))


def _may_catch(handled: ast.expr | None) -> bool:
    """Whether an ``except`` may catch a NameError: unless its classes are known not to."""
    if isinstance(handled, ast.Tuple):
        return any(_may_catch(one) for one in handled.elts)
    if not isinstance(handled, ast.Name):
        return True
    kind = getattr(builtins, handled.id, None)
    return not isinstance(kind, type) or issubclass(NameError, kind)
