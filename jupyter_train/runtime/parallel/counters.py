"""What a training loop counts and collects itself is this rank's share only: found in its source, with the fix. Pure."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from jupyter_train.runtime.parallel.provenance import Provenance, names

MOST = 4  #: lines that a remark names


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """One line that sees a share."""

    line: int  #: from 1
    text: str
    fix: str  #: what to write instead; empty: the line belongs behind ``backward()``
    sometimes: bool = (
        False  #: the loop trains under a condition: else every rank sees all samples, and the line is right
    )


def counters(source: Sequence[str], *, loop_line: int, losses: Iterable[str]) -> list[Counter]:
    """What the loop at ``loop_line`` counts and collects of its batches.

    Args:
        source: lines of the file.
        losses: names whose value after ``backward()`` is that of all ranks.
    """
    try:
        tree = ast.parse("".join(source))
    except (SyntaxError, ValueError):
        return []
    for node in ast.walk(tree):
        if isinstance(node, (ast.For, ast.AsyncFor)) and node.lineno == loop_line:
            sometimes = _trains_sometimes(node)
            return [replace(one, sometimes=sometimes) for one in _in_loop(node, set(losses))]
    return []


def sentence(found: Sequence[Counter], place: Callable[[int], str]) -> str:
    """One remark on all of a loop's lines.

    Args:
        place: a line in words.
    """
    counted = [one for one in found if one.fix]
    early = [one for one in found if not one.fix]
    parts = []
    if counted:
        said = ", ".join(f"`{one.fix}` ({place(one.line)})" for one in counted[:MOST])
        more = f" and alike in {len(counted) - MOST} more" if len(counted) > MOST else ""
        parts.append(
            f"counts of a loop that is split are of this rank's share of each batch; of all ranks: {said}{more}"
        )
        if counted[0].sometimes:
            parts[-1] += ". Only where the loop trains: without gradients every rank sees all samples"
    if early:
        said = ", ".join(f"`{one.text}` ({place(one.line)})" for one in early[:MOST])
        parts.append(f"a loss is that of all ranks behind backward() only, where this belongs: {said}")
    return "; ".join(parts)


def _in_loop(loop: ast.For | ast.AsyncFor, losses: set[str]) -> Iterator[Counter]:
    known = Provenance(loop, losses)
    for statement in known.statements():
        if "train.sum" in (text := _own_text(statement)) or "train.mean" in text or "train.gather" in text:
            continue
        target, value = _sum(statement)
        if target is not None and value is not None:
            if ast.unparse(target) not in known.begun_inside and not names(target) & losses:
                yield from _summed(known, statement, target, value)
        elif (call := _method(statement)) is not None:
            yield from _collected(known, statement, call)
        elif isinstance(statement, (ast.Assign, ast.Expr)):
            yield from _progress(known, statement)


def _summed(known: Provenance, statement: ast.stmt, target: ast.expr, value: ast.expr) -> Iterator[Counter]:
    if not known.is_of_share(value):
        return
    text = ast.unparse(statement)
    if known.is_local_loss(value):
        yield Counter(line=statement.lineno, text=text, fix="")
        return
    fixed = _whole(known, value)
    if fixed is not None:
        yield Counter(line=statement.lineno, text=text, fix=f"{ast.unparse(target)} += {fixed}")


def _whole(known: Provenance, value: ast.expr) -> str | None:
    """The same of all ranks; None where that cannot be told."""
    text = ast.unparse(value)
    if known.is_global_loss(value):
        return _with_sum(known, value) if known.counts_samples(value) else None
    if _is_list(value):
        return f"sum(train.gather({text}), [])"
    if known.adds_up(value):
        return f"train.sum({text})"
    return (
        f"train.mean({text})" if known.has_backward else None
    )  # else a function returns it, maybe behind its own backward()


def _collected(known: Provenance, statement: ast.stmt, call: ast.Call) -> Iterator[Counter]:
    """``preds.append(z)``, ``seen.extend(y.tolist())``, ``metric.update(z, y)``."""
    assert isinstance(call.func, ast.Attribute)
    owner, method = ast.unparse(call.func.value), call.func.attr
    shares = [one for one in call.args if known.is_of_share(one)]
    if not shares or owner in known.begun_inside or names(call.func.value) & known.of_share:
        return
    text = ast.unparse(statement)
    if any(map(known.is_local_loss, shares)):
        yield Counter(line=statement.lineno, text=text, fix="")
        return
    if method == "extend":
        yield Counter(
            line=statement.lineno,
            text=text,
            fix=f"{owner}.extend(sum(train.gather({ast.unparse(shares[0])}), []))",
        )
    elif method == "append":
        if not _is_number(shares[0]):
            yield Counter(
                line=statement.lineno,
                text=text,
                fix=f"{owner}.extend(train.gather({ast.unparse(shares[0])}))",
            )
        elif (fixed := _whole(known, shares[0])) is not None:
            yield Counter(line=statement.lineno, text=text, fix=f"{owner}.append({fixed})")
    elif not any(isinstance(one, ast.Dict) for one in call.args):
        is_meter = any(map(known.counts_samples, shares))  # a mean, and of how many; or a bar
        fixes = [_updated(known, one, is_meter=is_meter) for one in call.args]
        yield Counter(line=statement.lineno, text=text, fix=f"{owner}.update({', '.join(fixes)})")


def _updated(known: Provenance, value: ast.expr, *, is_meter: bool) -> str:
    text = ast.unparse(value)
    if not known.is_of_share(value):
        return text
    if is_meter:
        return _with_sum(known, value) if known.counts_samples(value) else f"train.mean({text})"
    return f"torch.cat(train.gather({text}))"


def _progress(known: Provenance, statement: ast.stmt) -> Iterator[Counter]:
    """``(batch + 1) * len(x)``, how far the loop has come."""
    for node in ast.walk(statement):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult)):
            continue
        if names(node) & known.index and known.counts_samples(node):
            yield Counter(line=statement.lineno, text=ast.unparse(node), fix=_with_sum(known, node))
            return


def _trains_sometimes(loop: ast.For | ast.AsyncFor) -> bool:
    """Its backward stands below a condition, as in one loop for training and validation."""
    return any(isinstance(node, ast.If) and "backward(" in ast.unparse(node) for node in ast.walk(loop))


def _own_text(statement: ast.stmt) -> str:
    """Its source, of a compound statement none."""
    return "" if hasattr(statement, "body") else ast.unparse(statement)


def _method(statement: ast.stmt) -> ast.Call | None:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
        return call if call.func.attr in ("append", "extend", "update") and call.args else None
    return None


def _is_list(value: ast.expr) -> bool:
    """What is added is a list, of the samples' numbers for instance."""
    if isinstance(value, ast.Call):
        name = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
        return name in ("tolist", "list")
    return isinstance(value, (ast.List, ast.ListComp))


def _is_number(value: ast.expr) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("item", "float", "int", "mean", "sum", "len"):
                return True
    return isinstance(value, (ast.BinOp, ast.Compare))


def _sum(node: ast.AST) -> tuple[ast.expr | None, ast.expr | None]:
    """Target and summand of ``t += v`` or ``t = t + v``."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return node.target, node.value
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.BinOp):
        target, value = node.targets[0], node.value
        if isinstance(value.op, ast.Add) and ast.unparse(value.left) == ast.unparse(target):
            return target, value.right
    return None, None


class _Wrap(ast.NodeTransformer):
    def __init__(self, known: Provenance) -> None:
        self._known = known

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and self._known.is_count(node) and self._known.is_of_share(node):
            return ast.parse(f"train.sum({ast.unparse(node)})", mode="eval").body
        self.generic_visit(node)
        return node


def _with_sum(known: Provenance, value: ast.expr) -> str:
    tree = ast.parse(ast.unparse(value), mode="eval")
    return ast.unparse(_Wrap(known).visit(tree).body)  # type: ignore[attr-defined]
