"""Which names a cell may read before it has surely assigned them itself.

One pass over the syntax tree in the order of execution, with the set of names
that are certainly bound at each point. Where control may part, only what is
bound on every way counts; in doubt a name counts as read, which costs a
needless capture and nothing else.

A function's body runs when somebody calls it: what it reads counts from the
first place that names the function.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from types import CodeType

from jupyter_train.transport.bytecode import code_names

#: Compile flags of a notebook cell.
CELL_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

Bound = set[str]

_FunctionDef = ast.FunctionDef | ast.AsyncFunctionDef


def names_read_early(tree: ast.Module) -> set[str]:
    """Names of ``tree`` that may be read before the cell assigned them.

    Covers scopes loosely (a lambda's own arguments are among the result):
    intersect it with the global names of the compiled cell.
    """
    flow = _Flow()
    flow.block(tree.body, set())
    return flow.early


class _Flow:
    """The pass over the cell, or over the body of a class in it.

    Args:
        cell: the pass over the cell, with the names bound where the class
            stands: what functions in the class see of the cell.
    """

    def __init__(self, cell: tuple[_Flow, Bound] | None = None) -> None:
        self.cell = cell
        self.early: set[str] = set() if cell is None else cell[0].early
        #: Functions and classes of the cell that nothing has named yet, and the globals they read.
        self.sleeping: dict[str, frozenset[str]] = {}

    def block(self, body: Iterable[ast.stmt], bound: Bound) -> Bound:
        for statement in body:
            self.statement(statement, bound)
        return bound

    def read(self, name: str, bound: Bound) -> None:
        if name not in bound:
            self.early.add(name)
        for used in self.sleeping.pop(name, ()):
            self.read_in_function(used, bound)

    def read_in_function(self, name: str, bound: Bound) -> None:
        """A function reads ``name``: it sees the cell, and not the class around it."""
        if self.cell is None:
            self.read(name, bound)
        else:
            flow, around = self.cell
            flow.read(name, around)

    def reads(self, node: ast.AST | None, bound: Bound) -> None:
        """Everything that evaluating ``node`` may read."""
        if node is None:
            return
        for name in _loaded(node):
            self.read(name, bound)
        if self.cell is not None:
            for part in ast.walk(node):
                if isinstance(part, _SCOPES):
                    for name in _loaded(part):
                        self.read_in_function(name, bound)

    def assign(self, target: ast.AST, bound: Bound) -> None:
        self.reads(target, bound)  # the object and index of ``a[i] = …``
        bound |= _stored(target)

    def statement(self, node: ast.stmt, bound: Bound) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node, bound)
            case ast.ClassDef():
                self.class_(node, bound)
            case ast.Import() | ast.ImportFrom():
                bound.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            case ast.Assign():
                self.reads(node.value, bound)
                for target in node.targets:
                    self.assign(target, bound)
            case ast.AnnAssign():
                self.reads(node.annotation, bound)
                self.reads(node.value, bound)
                if node.value is not None:
                    self.assign(node.target, bound)
            case ast.AugAssign():
                self.reads(node.value, bound)
                if isinstance(node.target, ast.Name):
                    self.read(node.target.id, bound)
                self.assign(node.target, bound)
            case ast.Delete():
                for target in node.targets:
                    self.reads(target, bound)
                    if isinstance(target, ast.Name):
                        bound.discard(target.id)
            case ast.For() | ast.AsyncFor():
                self.reads(node.iter, bound)
                inside = set(bound)
                self.assign(node.target, inside)
                self.block(node.body, inside)
                self.block(node.orelse, set(bound))  # the body may have run no time at all
            case ast.While():
                self.reads(node.test, bound)
                self.block(node.body, set(bound))
                self.block(node.orelse, set(bound))
            case ast.If():
                self.reads(node.test, bound)
                yes = self.block(node.body, set(bound))
                no = self.block(node.orelse, set(bound))
                _replace(bound, yes & no)
            case ast.With() | ast.AsyncWith():
                self.with_(node, bound)
            case ast.Try() | ast.TryStar():
                self.try_(node, bound)
            case ast.Match():
                self.match(node, bound)
            case _:
                self.reads(node, bound)
                if type(node).__name__ == "TypeAlias":  # Python 3.12
                    bound |= _stored(node)

    def function(self, node: _FunctionDef, bound: Bound) -> None:
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        for now in (
            *node.decorator_list,
            *arguments.defaults,
            *arguments.kw_defaults,
            node.returns,
            *(argument.annotation for argument in (*every, arguments.vararg, arguments.kwarg) if argument),
        ):
            self.reads(now, bound)
        self._define(node, bound, runs_now=bool(node.decorator_list))

    def class_(self, node: ast.ClassDef, bound: Bound) -> None:
        for now in (*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)):
            self.reads(now, bound)
        # The body runs at once, in a scope of its own, and its functions later.
        around = self.cell or (self, bound)
        body = _Flow(around)
        body.sleeping = dict(around[0].sleeping)
        body.block(node.body, set(around[1]))
        # A decorator or a metaclass may call methods at once.
        self._define(node, bound, runs_now=bool(node.decorator_list or node.keywords))

    def _define(self, node: _FunctionDef | ast.ClassDef, bound: Bound, *, runs_now: bool) -> None:
        used = code_names(_compiled(node)).reads
        if isinstance(node, ast.ClassDef):
            # Read by the body itself, which the pass over it has dealt with, unless a method reads it too.
            used &= {name for part in node.body for name in _names_in_functions(part)}
        if runs_now:
            for name in used:
                self.read_in_function(name, bound)
        elif used:
            self.sleeping[node.name] = used
        bound.add(node.name)

    def with_(self, node: ast.With | ast.AsyncWith, bound: Bound) -> None:
        for item in node.items:
            self.reads(item.context_expr, bound)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, bound)
        inside = self.block(node.body, set(bound))
        if all(never_suppresses(item.context_expr) for item in node.items):
            _replace(bound, inside)
        else:
            bound &= inside

    def try_(self, node: ast.Try | ast.TryStar, bound: Bound) -> None:
        before = set(bound)
        body = self.block(node.body, set(before))
        ends = [self.block(node.orelse, set(body))]
        before &= body  # what the body deleted is gone in the handlers
        for handler in node.handlers:
            inside = set(before)
            self.reads(handler.type, inside)
            if handler.name:
                inside.add(handler.name)
            self.block(handler.body, inside)
            if handler.name:
                inside.discard(handler.name)
            ends.append(inside)
        self.block(node.finalbody, set(before))
        after = set.intersection(*ends)
        finally_ = self.block(node.finalbody, set(after)) if node.finalbody else after
        _replace(bound, finally_)

    def match(self, node: ast.Match, bound: Bound) -> None:
        self.reads(node.subject, bound)
        ends = []
        has_default = False
        for case in node.cases:
            inside = set(bound)
            self.reads(case.pattern, inside)
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                    inside.add(part.name)
                elif isinstance(part, ast.MatchMapping) and part.rest:
                    inside.add(part.rest)
            self.reads(case.guard, inside)
            ends.append(self.block(case.body, inside))
            has_default |= (
                case.guard is None and isinstance(case.pattern, ast.MatchAs) and not case.pattern.pattern
            )
        if not has_default:
            ends.append(set(bound))
        _replace(bound, set.intersection(*ends))


def _replace(bound: Bound, new: Bound) -> None:
    bound.clear()
    bound.update(new)


#: Expressions with a scope of their own, which skips the class around them.
_SCOPES = (ast.Lambda, ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)


def _loaded(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Store):
            yield part.id


def _stored(node: ast.AST) -> set[str]:
    names = (part for part in ast.walk(node) if isinstance(part, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def _compiled(node: _FunctionDef | ast.ClassDef) -> CodeType:
    module = ast.Module(body=[node], type_ignores=[])
    code = compile(module, "<cell>", "exec", flags=CELL_FLAGS, dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


def _names_in_functions(node: ast.AST) -> Iterable[str]:
    """Names loaded in functions at any depth of ``node``."""
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            yield from _loaded(part)


#: Context managers of every day whose ``__exit__`` lets exceptions through. After
#: another one (``contextlib.suppress``, ``pytest.raises``) the body may not have run to its end.
_LET_THROUGH = frozenset(
    {
        "no_grad",
        "enable_grad",
        "inference_mode",
        "set_grad_enabled",
        "autocast",
        "device",
        "open",
        "profile",
        "record_function",
        "errstate",
        "tqdm",
        "catch_warnings",
        "no_sync",
        "SummaryWriter",
        "closing",
        "redirect_stdout",
        "redirect_stderr",
        "TemporaryDirectory",
        "NamedTemporaryFile",
    }
)


def never_suppresses(manager: ast.expr) -> bool:
    """Whether ``with manager:`` surely lets an exception of its body through."""
    if not isinstance(manager, ast.Call):
        return False
    function = manager.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in _LET_THROUGH
