from __future__ import annotations

import pytest

from jupyter_train.runtime.parallel.counters import counters, sentence

LOOP = """\
for batch, (x, y) in enumerate(loader):
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
        ("correct += (z.argmax(1) == y).sum().item()", "correct += train.sum((z.argmax(1) == y).sum().item())"),
        ("total += len(y)", "total += train.sum(len(y))"),
        ("total += n", "total += train.sum(n)"),
        ("total = total + y.shape[0]", "total += train.sum(y.shape[0])"),
        ("self.total += y.numel()", "self.total += train.sum(y.numel())"),
        ("seen += y.tolist()", "seen += sum(train.gather(y.tolist()), [])"),
        ("running += loss.item() * x.size(0)", "running += loss.item() * train.sum(x.size(0))"),
        ("running += loss.item() * x.shape[0]", "running += loss.item() * train.sum(x.shape[0])"),
        ("running += loss.item() * n", "running += loss.item() * train.sum(n)"),
        ("accuracy += (z.argmax(1) == y).float().mean().item()", "accuracy += train.mean((z.argmax(1) == y).float().mean().item())"),
        ("part += penalty(z).item()", "part += train.mean(penalty(z).item())"),
        ("right += (z.argmax(1) == y).sum() / len(y)", "right += train.mean((z.argmax(1) == y).sum() / len(y))"),
        ("preds.append(z.argmax(1))", "preds.extend(train.gather(z.argmax(1)))"),
        ("preds.extend(z.argmax(1).tolist())", "preds.extend(sum(train.gather(z.argmax(1).tolist()), []))"),
        ("accs.append((z.argmax(1) == y).float().mean().item())", "accs.append(train.mean((z.argmax(1) == y).float().mean().item()))"),
        ("metric.update(z, y)", "metric.update(torch.cat(train.gather(z)), torch.cat(train.gather(y)))"),
        ("meter.update(loss.item(), x.size(0))", "meter.update(loss.item(), train.sum(x.size(0)))"),
        ("bar.update(len(x))", "bar.update(train.sum(len(x)))"),
        ("print((batch + 1) * len(x))", "(batch + 1) * train.sum(len(x))"),
        ("loss, current = (loss.item(), (batch + 1) * len(x))", "(batch + 1) * train.sum(len(x))"),
    ],
)  # fmt: skip
def test_a_count_of_the_share_is_found_with_its_fix(line: str, fix: str) -> None:
    found_text, found_fix = found(after=line)[0]
    assert found_text in line
    assert found_fix == fix
    assert len(found(after=line)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "running += loss.item()",
        "running = running + float(loss)",
        "steps += 1",
        "correct += train.sum((z.argmax(1) == y).sum().item())",
        "losses.append(loss.item())",
        "losses.append((batch, float(loss)))",
        "loss = loss + penalty(model)",
        "norm += float(clip_grad_norm_(model.parameters(), 1.0))",
        "seconds += time.time() - began",
        "rates.append(scheduler.get_last_lr()[0])",
        "width += x.shape[1] + x.size(1)",
        "ema.update(model)",
        "log.update({'n': x.size(0)})",
        "bar.update(1)",
        "bar.set_postfix(loss=loss.item())",
        "print(batch * 16)",
        "parts = []; parts.append(z)",
        "last = loss.item(); running += last",
        "flat = z.view(len(x), -1)",
    ],
)
def test_what_is_whole_or_only_computed_with_is_not_named(line: str) -> None:
    assert found(after=line) == []


@pytest.mark.parametrize(
    "line", ["running += loss.item()", "losses.append(loss.item())", "meter.update(loss.item(), x.size(0))"]
)
def test_a_loss_read_before_backward_belongs_behind_it(line: str) -> None:
    assert found(before=line) == [(line, "")]


@pytest.mark.parametrize(
    "line", ["loss = loss + z.pow(2).mean()", "loss += z.abs().mean()", "loss = loss / len(x)"]
)
def test_putting_the_loss_together_is_no_count(line: str) -> None:
    assert found(before=line) == []


def test_a_loss_that_a_function_returns_behind_its_own_backward_is_left_alone() -> None:
    source = [
        "for x, y in loader:\n",
        "    l = step(x, y)\n",
        "    running += l\n",
        "    losses.append(l.item())\n",
        "    seen += len(x)\n",
    ]
    (one,) = counters(source, loop_line=1, losses={"loss"})
    assert one.fix == "seen += train.sum(len(x))"


def test_a_loop_gets_one_remark() -> None:
    after = "correct += (z == y).sum().item(); total += len(y); a += n; b += n; c += n"
    source = LOOP.format(before="running += loss.item()", after=after).splitlines(keepends=True)
    said = sentence(counters(source, loop_line=1, losses={"loss"}), lambda line: f"line {line}")
    assert said == (
        "counts of a loop that is split are of this rank's share of each batch; of all ranks: "
        "`correct += train.sum((z == y).sum().item())` (line 8), `total += train.sum(len(y))` (line 8), "
        "`a += train.sum(n)` (line 8), `b += train.sum(n)` (line 8) and alike in 1 more; "
        "a loss is that of all ranks behind backward() only, where this belongs: `running += loss.item()` (line 4)"
    )


def test_a_loop_for_training_and_validation_is_told_when_its_counts_are_shares() -> None:
    source = """\
for x, y in loaders[phase]:
    loss = crit(model(x), y)
    if phase == "train":
        loss.backward(); opt.step()
    total += len(y)
"""
    said = sentence(counters(source.splitlines(keepends=True), loop_line=1, losses={"loss"}), str)
    assert said.endswith(
        "`total += train.sum(len(y))` (5). Only where the loop trains: without gradients every rank sees all samples"
    )


def test_no_source_no_remark() -> None:
    assert counters([], loop_line=3, losses={"loss"}) == []
    assert counters(["%%train\n"], loop_line=1, losses=set()) == []
