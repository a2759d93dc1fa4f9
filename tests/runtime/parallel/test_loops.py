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

    def __init__(self, by_values: bool) -> None:
        self.by_values = by_values

    def __iter__(self) -> Iterator[int]:
        frames = consumers(sys._getframe(1), lambda frame: frame.f_back)
        SEEN.append(kind_of(frames, by_values=self.by_values))
        return iter(())


def step(loss: Any) -> None:
    loss.backward()


def perhaps(loss: Any, optimizer: Any) -> Any:
    if optimizer is None:
        return loss
    loss.backward()
    return loss


class Trainer:
    def __init__(self) -> None:
        self.is_training = True

    def step(self, loss: Any) -> None:
        step(loss)

    def fit(self, loader: Any) -> None:
        for x in loader:
            self.step(x)


CASES = {
    "for x in loader: x.backward()": Loop.TRAINS,
    "for k, x in enumerate(loader):\n  if k: x.backward()": Loop.UNKNOWN,
    "for x in loader:\n  if k: x.backward()\n  else: step(x)": Loop.TRAINS,
    "for x in loader:\n  if k: step(x)\n  else: step(x)": Loop.TRAINS,
    "for x in loader:\n  if x is None: continue\n  x.backward()": Loop.UNKNOWN,
    "for x in loader:\n  if x is None: break\n  x.backward()": Loop.TRAINS,
    "for x in loader:\n  if x is None: raise ValueError\n  x.backward()": Loop.TRAINS,
    "for x in loader:\n  with torch.set_grad_enabled(k):\n    y = x\n    if k: x.backward()\n  print(y)": Loop.UNKNOWN,
    "for x in loader:\n  try: x.backward()\n  except RuntimeError: continue": Loop.TRAINS,
    "for x in loader:\n  for _ in range(3):\n    if k: continue\n    x.backward()": Loop.UNKNOWN,
    "for x in loader:\n  while True:\n    x.backward()\n    break": Loop.TRAINS,
    "for x in loader: perhaps(x, None)": Loop.UNKNOWN,
    "for x in loader:\n  if k: y = perhaps(x, None)\n  x.backward()": Loop.TRAINS,
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
    "def g():\n  for x in loader: yield x\nfor x in g(): x < 0 and x.backward()": Loop.UNKNOWN,
    "it = iter(loader)\nfor k in range(0): step(k)": Loop.UNKNOWN,
    "list(loader)\nfor k in range(0): step(k)": Loop.UNKNOWN,
    "it = iter(loader)\nfor k in [1]: print(k)": Loop.UNKNOWN,
    "for x in loader: torch.autograd.grad(x, x)": Loop.SOLVES,
    "for x in loader: torch.autograd.grad(x, x); x.backward()": Loop.TRAINS,
}


BY_VALUES = {
    "if yes: x.backward()": Loop.TRAINS,
    "if not yes: x.backward()": Loop.READS,
    "if yes and x > 1: x.backward()": Loop.UNKNOWN,
    "if not yes and x > 1: x.backward()": Loop.READS,
    "if not yes or x > 1: x.backward()": Loop.UNKNOWN,
    "if phase == 'train': x.backward()": Loop.TRAINS,
    "if phase == 'val': x.backward()": Loop.READS,
    "if phase != 'val': step(x)": Loop.TRAINS,
    "if nothing is None: continue\n x.backward()": Loop.READS,
    "if phase is not None: x.backward()": Loop.TRAINS,
    "if net.training: x.backward()": Loop.READS,
    "if trainer.is_training: x.backward()": Loop.TRAINS,
    "net.train()\n if net.training: x.backward()": Loop.UNKNOWN,
    "if yes: x.backward()\n yes = x": Loop.UNKNOWN,
    "if yes() == 1: x.backward()": Loop.UNKNOWN,
    "if unbound: x.backward()": Loop.UNKNOWN,
    "perhaps(x, None)": Loop.UNKNOWN,
    "if yes: perhaps(x, None)": Loop.UNKNOWN,
    "if not yes: perhaps(x, None)": Loop.READS,
    "with torch.set_grad_enabled(yes):\n  if yes: x.backward()\n print(x)": Loop.TRAINS,
}


def kinds(source: str, *, by_values: bool) -> set[Loop]:
    SEEN.clear()
    names: dict[str, Any] = {"loader": Loader(by_values), "step": step, "perhaps": perhaps, "k": 1}
    names |= {"Trainer": Trainer, "torch": torch, "yes": True, "phase": "train", "nothing": None}
    names |= {"net": torch.nn.Linear(1, 1).eval(), "trainer": Trainer()}
    exec(compile(source, "<cell>", "exec"), names)
    return set(SEEN)


@pytest.mark.parametrize("source", CASES)
def test_kind_of_loop(source: str) -> None:
    assert kinds(source, by_values=False) == {CASES[source]}


@pytest.mark.parametrize("source", BY_VALUES)
def test_a_condition_whose_value_is_known_decides(source: str) -> None:
    loop = f"for x in loader:\n {source}"
    arguments = "yes, phase, nothing, net, trainer"
    inside = f"def run({arguments}):\n " + loop.replace("\n", "\n ") + f"\nrun({arguments})"
    assert kinds(loop, by_values=True) == {BY_VALUES[source]}
    assert kinds(inside, by_values=True) == {BY_VALUES[source]}


def test_what_names_hold_does_not_matter_to_what_is_remembered() -> None:
    assert kinds("for x in loader:\n if yes: x.backward()", by_values=False) == {Loop.UNKNOWN}
