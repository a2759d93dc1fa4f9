"""``%train clean``: which runs go, and that somebody is asked."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from IPython.core.error import StdinNotImplementedError, UsageError

from jupyter_train import home
from jupyter_train.notebook import words
from jupyter_train.notebook.cleaning import DAY_S, Wanted, age, listed, to_go
from jupyter_train.record import RunState
from jupyter_train.store import JournalWriter, RunSummary, Store
from tests.notebook.conftest import Shell
from tests.notebook.fakes import FakeControl, FakeRun

NOW = 1_700_000_000.0


def run(number: int, *, days: float = 0.0, state: RunState = RunState.SUCCEEDED, **spec: Any) -> RunSummary:
    ended = NOW - days * DAY_S if state.is_terminal else None
    run_id = f"20261122-1530{number:02d}-ab12cd"
    return RunSummary(
        run_id=run_id,
        name=f"run {number}",
        state=state,
        started=NOW - (days + 1) * DAY_S,
        ended=ended,
        spec=spec,
    )


def gone(runs: list[RunSummary], sizes: dict[int, int] | None = None, **wanted: Any) -> list[int]:
    by_id = {runs[number].run_id: size for number, size in (sizes or {}).items()}
    return [runs.index(one) for one in to_go(runs, by_id, Wanted(**wanted), now=NOW)]


def test_old_ones_go_oldest_first() -> None:
    assert gone([run(0, days=1), run(1, days=31), run(2, days=40)], older_than_s=30 * DAY_S) == [2, 1]


def test_all_that_is_said_has_to_hold() -> None:
    runs = [run(n, days=10 * n) for n in range(5)]
    sizes = {0: 10, 1: 900, 2: 10, 3: 900, 4: 900}
    assert gone(runs, sizes, larger_than=100) == [4, 3, 1]
    assert gone(runs, sizes, larger_than=100, older_than_s=15 * DAY_S) == [4, 3]
    assert gone(runs, sizes, larger_than=100, older_than_s=15 * DAY_S, keep=4) == [4]
    assert gone(runs, keep=0) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("state", [s for s in RunState if not s.is_terminal and s is not RunState.LOST])
def test_what_goes_on_never_goes(state: RunState) -> None:
    assert gone([run(0, days=99, state=state)], keep=0) == []


def test_a_lost_run_is_as_old_as_its_start() -> None:
    assert gone([run(0, days=39, state=RunState.LOST)], older_than_s=40 * DAY_S) == [0]
    assert gone([run(0, days=39, state=RunState.LOST)], older_than_s=41 * DAY_S) == []


def test_a_run_from_whose_checkpoint_another_may_begin_again_stays() -> None:
    old = run(1, days=99)
    resumed = run(0, state=RunState.RUNNING, resume={"run_id": old.run_id})
    assert gone([resumed, old], keep=0) == []
    assert gone([run(0, resume={"run_id": old.run_id}), old], keep=1) == [1]


@pytest.mark.parametrize(("seconds", "text"), [(90, "2 min"), (7200, "2 h"), (47 * 3600, "47 h"), (3 * DAY_S, "3 days"), (-5, "0 min")])  # fmt: skip
def test_ages_are_short(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_long_list_is_cut() -> None:
    text = listed([run(n) for n in range(60)], {}, now=NOW)
    assert "… and 20 more" in text
    assert len(text.splitlines()) == 42


@pytest.mark.parametrize(
    ("given", "size"),
    [("10", 10), ("1kb", 1000), ("1.5GB", 1_500_000_000), ("2 GiB", 2**31), ("3m", 3_000_000)],
)
def test_sizes_are_bytes(given: str, size: int) -> None:
    assert words.size(given) == size


@pytest.mark.parametrize("given", ["", "much", "-1GB", "1XB"])
def test_what_is_no_size_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="500MB"):
        words.size(given)


@pytest.fixture
def store(shell: Shell, control: FakeControl) -> Store:
    """Two runs that have ended, in a journal whose writer is gone; the older one has files of 3 kB."""
    shell.run("%%train -n 1 --name old\nx = 1")
    shell.run("%%train -n 1 --name new\nx = 1")
    writer = JournalWriter(home.journals_folder() / "c.sqlite")
    for fake in control.runs.values():
        writer.append(fake.spec.run_id, *_packed(fake))
    assert writer.flush()
    writer.close()
    old = next(iter(control.runs))
    (home.run_folder(old) / "checkpoint-1-1.pt").write_bytes(3000 * b"x")
    return Store()


def _packed(fake: FakeRun) -> tuple[list[Any], list[bytes]]:
    from jupyter_train.record import unpack_event

    return [unpack_event(data) for data in fake.packed], fake.packed


def names(store: Store) -> list[str]:
    return sorted(one.name for one in store.runs())


def test_it_shows_what_would_go_and_asks(
    shell: Shell, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers(word: str) -> None:
        monkeypatch.setattr(builtins, "input", lambda question: asked.append(question) or word)

    answers("")
    shell.run("%train clean --keep 1")
    said = capsys.readouterr().out
    assert "old" in said
    assert "new" not in said
    assert "nothing was deleted" in said
    assert asked[0].startswith("Delete 1 run, ")
    assert names(store) == ["new", "old"]
    answers("y")
    shell.run("%train clean --keep 1")
    assert shell.error is None
    assert "deleted: 1 run" in capsys.readouterr().out
    assert names(store) == ["new"]
    shell.run("%train log old")
    assert "no run 'old'" in str(shell.error)


def test_yes_does_not_ask(shell: Shell, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run("%train clean --keep 0 --yes")
    assert shell.error is None
    assert names(store) == []
    assert "deleted: 2 runs" in capsys.readouterr().out


def test_where_nobody_can_be_asked_nothing_goes(
    shell: Shell, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(question: str) -> str:
        raise StdinNotImplementedError("no stdin")

    monkeypatch.setattr(builtins, "input", refuses)
    shell.run("%train clean --keep 0")
    assert shell.error is None
    assert "--yes" in capsys.readouterr().out
    assert names(store) == ["new", "old"]


def test_by_itself_only_what_ended_a_month_ago_goes(
    shell: Shell, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    # They ended in 2023, by the fake's clock.
    shell.run("%train clean --older-than 100000d --yes")
    assert "of 2 runs none ended more than 100000 days ago" in capsys.readouterr().out
    shell.run("%train clean --yes")
    assert names(store) == []


@pytest.mark.parametrize("line", ["--older-than soon", "--larger-than much", "--keep -1", "--kep 3"])
def test_what_makes_no_sense_deletes_nothing(shell: Shell, store: Store, line: str) -> None:
    shell.run(f"%train clean {line} --yes")
    assert isinstance(shell.error, UsageError)
    assert names(store) == ["new", "old"]
