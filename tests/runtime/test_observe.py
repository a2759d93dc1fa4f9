"""What a plain training loop shows of itself, in this process."""

from __future__ import annotations

import linecache
import textwrap
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jupyter_train.runtime import observe
from jupyter_train.runtime.observe import MANUAL_AFTER, Observer
from jupyter_train.runtime.stopping import StopFlag, StopRun

SETUP = """
import torch, torch.nn as nn
w = torch.ones(2, requires_grad=True); v = torch.ones(2, requires_grad=True)
opt = torch.optim.SGD([w], lr=0.5)
"""


class Recorder:
    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[int, Any]]] = {}

    def metric(self, name: str, value: Any, step: int) -> None:
        self.metrics.setdefault(name, []).append((step, value))

    def remark(self, text: str) -> None:
        raise AssertionError(text)


class Watched:
    def __init__(self) -> None:
        self.recorder, self.stop = Recorder(), StopFlag()
        self.observer = Observer(self.recorder, self.stop, "<cell>")

    def run(self, cell: str, **given: Any) -> dict[str, Any]:
        source = SETUP + textwrap.dedent(cell)
        linecache.cache["<cell>"] = (len(source), None, source.splitlines(keepends=True), "<cell>")
        names: dict[str, Any] = {"stop": self.stop, "observer": self.observer, **given}
        self.observer.attach()
        try:
            exec(compile(source, "<cell>", "exec"), names)
        finally:
            self.observer.close()
        return names

    def curve(self, name: str) -> list[tuple[int, float]]:
        return [(step, float(value)) for step, value in self.recorder.metrics[name]]


@pytest.fixture
def watched() -> Iterator[Watched]:
    before = torch.autograd.backward
    one = Watched()
    yield one
    assert torch.autograd.backward is before


def test_loss_and_learning_rate_are_recorded_at_the_steps_done(watched: Watched) -> None:
    watched.run("""
        for k in range(3):
            opt.zero_grad(); loss = (w * w).sum(); loss.backward(); opt.step()
            for g in opt.param_groups: g['lr'] = 0.25
        """)
    assert watched.curve("loss") == [(1, 2.0), (2, 0.0), (3, 0.0)]
    assert watched.curve("lr") == [(1, 0.5), (2, 0.25), (3, 0.25)]
    assert len(watched.curve("step_time_s")) == 3
    assert watched.observer.step == 3


def test_curves_have_the_names_that_the_cell_uses(watched: Watched) -> None:
    watched.run("""
        d = torch.optim.SGD([{'params': [w]}, {'params': [v], 'lr': 0.1}], lr=1.0)
        d_loss = w.sum(); d_loss.backward(); opt.step()
        (w.sum() + v.sum()).backward(); d.step()
        """)
    assert watched.curve("d_loss") == [(1, 2.0)]
    assert watched.curve("w.sum() + v.sum()")[0][0] == 2
    assert watched.curve("lr (2)/1") == [(2, 0.1)]


def test_accumulated_losses_are_one_point(watched: Watched) -> None:
    watched.run("""
        for k in range(4):
            loss = (w * (k + 1)).sum(); loss.backward()
            if k % 2: opt.step(); w.data.fill_(1.); opt.zero_grad()
        """)
    assert watched.curve("loss") == [(1, 3.0), (2, 7.0)]


def test_weights_updated_by_hand_count_backwards_as_steps(watched: Watched) -> None:
    watched.run(f"""
        for k in range({MANUAL_AFTER + 2}):
            loss = w.sum(); loss.backward()
        """)
    assert [step for step, _ in watched.curve("loss")] == list(range(1, MANUAL_AFTER + 3))


def test_a_few_backwards_without_an_optimizer_are_recorded_at_the_end(watched: Watched) -> None:
    watched.run("for k in range(3): loss = w.sum(); loss.backward()")
    assert watched.curve("loss") == [(1, 2.0), (2, 2.0), (3, 2.0)]


def test_samples_per_second_come_from_the_loader(watched: Watched) -> None:
    watched.run("""
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(10, 2)), batch_size=5)
        for (x,) in loader:
            opt.zero_grad(); loss = (x * w).mean(); loss.backward(); opt.step()
        """)
    times = dict(watched.curve("step_time_s"))
    for step, rate in watched.curve("samples_per_s"):
        assert rate == pytest.approx(5 / times[step])


def test_a_step_takes_as_long_as_the_loop_does_without_what_is_between_two_passes(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(observe, "time", SimpleNamespace(monotonic=lambda: now[0]))
    names = {"spend": lambda seconds: now.__setitem__(0, now[0] + seconds)}
    watched.run(
        """
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(3, 2)))
        for epoch in range(2):
            for (x,) in loader:
                spend(1); opt.zero_grad(); loss = (x * w).mean(); loss.backward(); opt.step()
                spend(2)
            spend(100)
            for (x,) in loader: spend(10)
        """,
        **names,
    )
    assert [took for _, took in watched.curve("step_time_s")] == [1, 3, 3, 1, 3, 3]


def test_a_stop_ends_the_loop_after_an_optimizer_step(watched: Watched) -> None:
    with pytest.raises(StopRun):
        watched.run("""
            for k in range(9):
                if k == 2: stop.request()
                try:
                    loss = w.sum(); loss.backward(); opt.step()
                except Exception: pass
            """)
    assert watched.observer.step == 3


def test_a_cell_that_asks_whether_to_stop_is_not_unwound(watched: Watched) -> None:
    names = watched.run("""
        for k in range(9):
            if k == 2: stop.request()
            loss = w.sum(); loss.backward(); opt.step()
            if observer.should_stop: break
        """)
    assert names["k"] == 2


def test_an_optimizer_step_that_fails_does_not_hide_later_ones(watched: Watched) -> None:
    watched.run("""
        def bad(): raise ValueError
        try: opt.step(bad)
        except ValueError: pass
        loss = w.sum(); loss.backward(); opt.step()
        """)
    assert watched.curve("loss") == [(1, 2.0)]
