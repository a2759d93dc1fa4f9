from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from jupyter_train.runtime.parallel.loops import Loop, consumers, kind_of

SEEN: list[Loop] = []


class Loader:
    """Notes what kind of loop asks it for an iterator."""

    def __iter__(self) -> Iterator[int]:
        SEEN.append(kind_of(consumers(sys._getframe(1), lambda frame: frame.f_back)))
        return iter(())


def step(loss: Any) -> None:
    loss.backward()


class Trainer:
    def step(self, loss: Any) -> None:
        step(loss)

    def fit(self, loader: Any) -> None:
        for x in loader:
            self.step(x)


CASES = {
    "for x in loader: x.backward()": Loop.TRAINS,
    "for k, x in enumerate(loader):\n  if k: x.backward()": Loop.TRAINS,
    "for x, y in zip(loader, loader): x.backward()": Loop.TRAINS,
    "for x in loader: step(x)": Loop.TRAINS,
    "for x in loader:\n  for _ in range(3): x.backward()": Loop.TRAINS,
    "def f():\n  for x in loader: step(x)\nf()": Loop.TRAINS,
    "for x in loader:\n  def closure(): x.backward()\n  o.step(closure)": Loop.TRAINS,
    "Trainer().fit(loader)": Loop.TRAINS,
    "t = Trainer()\nfor x in loader: t.step(x)": Loop.TRAINS,
    "for x in loader: print(x)": Loop.READS,
    "[x for x in loader]": Loop.READS,
    "sum(x for x in loader)": Loop.READS,
    "for e in range(2):\n  for x in loader: pass\n  if e > 2: o.backward()": Loop.READS,
    "list(loader)": Loop.UNKNOWN,
    "def g():\n  for x in loader: yield x\nfor x in g(): x.backward()": Loop.TRAINS,
    "def g():\n  for x in loader: yield x\nfor x in g(): print(x)": Loop.READS,
    "def g():\n  for x in loader: print(x)\n  yield 1\nfor x in g(): x < 0 and x.backward()": Loop.READS,
    "it = iter(loader)\nfor k in range(0): step(k)": Loop.UNKNOWN,
    "for x in loader: torch.autograd.grad(x, x)": Loop.SOLVES,
    "for x in loader: torch.autograd.grad(x, x); x.backward()": Loop.TRAINS,
}


@pytest.mark.parametrize("source", CASES)
def test_kind_of_loop(source: str) -> None:
    SEEN.clear()
    names = {"loader": Loader(), "step": step, "Trainer": Trainer, "torch": torch}
    exec(compile(source, "<cell>", "exec"), names)
    assert SEEN
    assert set(SEEN) == {CASES[source]}
