from __future__ import annotations

import pytest

from jupyter_train.runtime.parallel.counters import counters

LOOP = """\
for x, y in loader:
    z = model(x)
    loss = crit(z, y)
    {before}
    loss.backward()
    opt.step()
    n = x.size(0)
    {after}
"""


def found(*, before: str = "pass", after: str = "pass") -> list[tuple[str, str]]:
    source = LOOP.format(before=before, after=after).splitlines(keepends=True)
    return [(one.text, one.fix) for one in counters(source, loop_line=1, losses={"loss"})]


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        (
            "correct += (z.argmax(1) == y).sum().item()",
            "write correct += train.sum((z.argmax(1) == y).sum().item())",
        ),
        ("total += len(y)", "write total += train.sum(len(y))"),
        ("total += n", "write total += train.sum(n)"),
        ("total = total + y.shape[0]", "write total += train.sum(y.shape[0])"),
        ("seen += y.tolist()", "write seen += sum(train.gather(y.tolist()), [])"),
        ("running += loss.item() * x.size(0)", "write running += loss.item() * train.sum(x.size(0))"),
        ("running += loss.item() * x.shape[0]", "write running += loss.item() * train.sum(x.shape[0])"),
    ],
)
def test_a_count_of_the_share_is_named_with_its_fix(line: str, fix: str) -> None:
    assert found(after=line) == [(line, fix)]


@pytest.mark.parametrize(
    "line",
    [
        "running += loss.item()",
        "running = running + float(loss)",
        "steps += 1",
        "correct += train.sum((z.argmax(1) == y).sum().item())",
        "losses.append(loss.item())",
        "loss = loss + penalty(model)",
    ],
)
def test_what_is_whole_already_is_not_named(line: str) -> None:
    assert found(after=line) == []


def test_a_loss_read_before_backward_is_named() -> None:
    ((text, fix),) = found(before="running += loss.item()")
    assert text == "running += loss.item()"
    assert "behind backward()" in fix


def test_no_source_no_remark() -> None:
    assert counters([], loop_line=3, losses={"loss"}) == []
    assert counters(["%%train\n"], loop_line=1, losses=set()) == []
