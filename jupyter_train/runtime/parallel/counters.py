"""Numbers that a training loop counts itself and that are this rank's share only: found in its source, named with the fix. Pure."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One line that adds up a share."""

    line: int  #: from 1
    text: str
    fix: str


def counters(source: Sequence[str], *, loop_line: int, losses: Iterable[str]) -> list[Counter]:
    """What the loop at ``loop_line`` adds up of its batches.

    Args:
        source: lines of the file.
        losses: names whose value after ``backward()`` is that of all ranks.
    """
    try:
        tree = ast.parse("".join(source))
    except (SyntaxError, ValueError):
        return []
    known = set(losses)
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.AsyncFor)) and node.lineno == loop_line:
            return list(_in_loop(node, known))
    return []


def _in_loop(loop: ast.For | ast.AsyncFor, losses: set[str]) -> Iterator[Counter]:
    backwards = [
        node.lineno
        for node in ast.walk(loop)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "backward"
    ]
    first_backward = min(backwards, default=0)
    assigned = _assigned(loop)
    for node in ast.walk(loop):
        target, value = _sum(node)
        if target is None or value is None:
            continue
        text = ast.unparse(node)
        if "train.sum" in text or "train.mean" in text or not _of_the_batch(value, assigned):
            continue
        if isinstance(target, ast.Name) and target.id in losses:
            continue  # the loss itself is put together
        names = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)}
        of_loss = names & losses
        if of_loss and not _counts_samples(value):
            if first_backward and value.lineno < first_backward:
                yield Counter(
                    line=value.lineno,
                    text=text,
                    fix="move it behind backward(), where the loss is that of all ranks",
                )
            continue
        if of_loss:
            fix = f"write {ast.unparse(target)} += {_with_sum(value)}"
        else:
            taken = f"train.sum({ast.unparse(value)})"
            if _is_list(value):
                taken = f"sum(train.gather({ast.unparse(value)}), [])"
            fix = f"write {ast.unparse(target)} += {taken}"
        yield Counter(line=value.lineno, text=text, fix=fix)


def _is_list(value: ast.expr) -> bool:
    """What is added is a list, of the samples' numbers for instance."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in ("tolist", "list")
    return isinstance(value, (ast.List, ast.ListComp))


def _sum(node: ast.AST) -> tuple[ast.expr | None, ast.expr | None]:
    """Target and summand of ``t += v`` or ``t = t + v``."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return node.target, node.value
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.BinOp):
        target, value = node.targets[0], node.value
        if isinstance(value.op, ast.Add) and ast.unparse(value.left) == ast.unparse(target):
            return target, value.right
    return None, None


def _assigned(loop: ast.AST) -> set[str]:
    """Names that the loop sets from calls."""
    out = set()
    for node in ast.walk(loop):
        if isinstance(node, ast.Assign) and any(isinstance(n, ast.Call) for n in ast.walk(node.value)):
            out |= {n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)}
    return out


def _of_the_batch(value: ast.expr, assigned: set[str]) -> bool:
    calls = any(isinstance(n, ast.Call) for n in ast.walk(value))
    shapes = any(isinstance(n, ast.Attribute) and n.attr == "shape" for n in ast.walk(value))
    return calls or shapes or (isinstance(value, ast.Name) and value.id in assigned)


def _counts_samples(value: ast.AST) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("size", "len", "numel"):
                return True
        if isinstance(node, ast.Attribute) and node.attr in ("shape", "batch_size"):
            return True
    return False


class _Wrap(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.expr:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("size", "len", "numel"):
            return ast.parse(f"train.sum({ast.unparse(node)})", mode="eval").body
        self.generic_visit(node)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if isinstance(node.value, ast.Attribute) and node.value.attr == "shape":
            return ast.parse(f"train.sum({ast.unparse(node)})", mode="eval").body
        self.generic_visit(node)
        return node


def _with_sum(value: ast.expr) -> str:
    tree = ast.parse(ast.unparse(value), mode="eval")
    return ast.unparse(_Wrap().visit(tree).body)
