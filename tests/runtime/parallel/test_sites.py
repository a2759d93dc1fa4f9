from __future__ import annotations

import linecache
import sys
from typing import Any

import pytest
import torch

from jupyter_train.runtime.parallel.sites import Sites, drains, loss_name


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("loss.backward()", "loss"),
        ("(d_real + d_fake).backward()", "d_real + d_fake"),
        ("(loss / 4).backward()", "loss / 4"),
        ("self.loss.backward(retain_graph=True)", "self.loss"),
        ("losses['g'].backward()", "losses['g']"),
        ("scaler.scale(loss).backward()", "loss"),
        ("accelerator.backward(loss)", "loss"),
        ("acc.backward(loss / 4)", "loss / 4"),
        ("engine.backward(g_loss)", "g_loss"),
        ("loss.backward(retain)", "loss"),
        ("trainer.fit(model, loader)", "loss"),
        ("self.manual_backward(d_loss)", "d_loss"),
        ("torch.autograd.backward(g_loss)", "g_loss"),
        ("F.cross_entropy(model(x), y).backward()", "loss"),
        ("sum(losses).backward()", "loss"),
        ("not python", "loss"),
        ("", "loss"),
    ],
)
def test_a_curve_is_named_after_the_cells_own_expression(call: str, name: str) -> None:
    assert loss_name(call) == name


def test_a_long_name_is_trimmed() -> None:
    assert loss_name("(aaaaaaaaaaaaaaaaaaa + bbbbbbbbbbbbbbbbbbbbbbb + cccccccccc).backward()").endswith("…")


def run(source: str, call: Any) -> None:
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
    exec(compile(source, "<cell>", "exec"), {"call": call})


def test_a_site_knows_its_line_its_text_and_a_key_that_every_rank_has() -> None:
    found: list[Any] = []

    class Loss:
        def __init__(self, sites: Sites) -> None:
            self._sites = sites

        def backward(self, k: int) -> None:
            found.append(self._sites.of(sys._getframe(1)))

    for _ in range(2):
        run("x = 1\nfor k in range(2):\n    x; call.backward(k); x\n", Loss(Sites("<cell>")))
    assert found[0] is found[1], "one per instruction"
    assert (found[0].line, found[0].text) == (3, "call.backward(k)")
    assert found[0].key == found[2].key
    assert Sites("<cell>").place(found[0].key) == "line 3"
    assert Sites("<other>").place(found[0].key) == "line 3 of another file"


def test_frames_of_torch_and_packages_are_passed_over() -> None:
    found: list[Any] = []
    sites = Sites("<cell>")

    class Note(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            found.append(sites.here(3))
            return x

    run("a = 0\ncall(a)\n", Note())
    assert (found[0].file, found[0].line) == ("<cell>", 2)


@pytest.mark.parametrize(
    ("text", "at_once"),
    [
        ("list(loader)", True), ("[*loader]", True), ("sorted(loader, key=len)", True), ("collections.deque(loader)", True),
        ("loader", False), ("enumerate(loader)", False), ("zip(a, list(b))", False), ("tqdm(loader)", False), ("self.list(loader)", True),
    ],
)  # fmt: skip
def test_what_reads_a_loader_at_once_is_told_by_its_name(text: str, at_once: bool) -> None:
    assert drains(text) is at_once
