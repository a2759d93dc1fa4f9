"""What is left of a rank's output where nobody could see the rest, and where it appears."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from jupyter_train.notebook.output import RankOutput
from jupyter_train.notebook.shown import Clear, Display, Shown, Text, condensed, settled, shown
from jupyter_train.notebook.stage import NotebookStage, TextStage
from jupyter_train.notebook.throttle import REDRAW_S, Redraws, Throttle
from jupyter_train.record import Event, EventKind


def text(words: str, stream: str = "stdout") -> Text:
    return Text(stream=stream, text=words)


def display(words: str, display_id: str | None = None, *, update: bool = False) -> Display:
    return Display(data={"text/plain": words}, display_id=display_id, update=update)


WAITING, AT_ONCE = Clear(wait=True), Clear(wait=False)


@pytest.mark.parametrize(
    ("pieces", "left"),
    [
        (
            [text("a"), text("b"), text("c", "stderr"), text("d")],
            [text("ab"), text("c", "stderr"), text("d")],
        ),
        ([text("a"), display("b"), text("c")], [text("a"), display("b"), text("c")]),
        ([text("a"), AT_ONCE], [AT_ONCE]),
        ([text("a"), WAITING], [text("a"), WAITING]),
        ([text("a"), WAITING, text("b"), WAITING, text("c")], [WAITING, text("c")]),
        ([text("a"), WAITING, text("b"), WAITING], [WAITING, text("b"), WAITING]),
        (
            [display("1", "x"), display("2", "x", update=True), text("a"), display("3", "x", update=True)],
            [display("1", "x"), text("a"), display("3", "x", update=True)],
        ),
        (
            [display("1", "x", update=True), display("2", "y", update=True)],
            [display("1", "x", update=True), display("2", "y", update=True)],
        ),
        # A display of an earlier cell changes, whatever is cleared here.
        (
            [display("1", "x", update=True), text("a"), WAITING, text("b")],
            [display("1", "x", update=True), WAITING, text("b")],
        ),
    ],
)
def test_only_what_could_be_seen_is_left(pieces: list[Shown], left: list[Shown]) -> None:
    assert condensed(pieces) == left


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("one\rtwo\r", "one\rtwo\r"),  # few: as it was written
        ("".join(f"step {n}\r" for n in range(100)), "\rstep 99\r"),
        ("".join(f"\rstep {n}" for n in range(100)), "\rstep 99"),
        ("long text\r" + "ab\r" * 50 + "\nnext\n", "\rabng text\r\nnext\n"),
        ("\x1b[1mbold\r" * 50, "\x1b[1mbold\r" * 50),
    ],
)
def test_a_line_that_overwrites_itself_is_shown_as_it_stands(written: str, left: str) -> None:
    assert settled(written) == left


def event(payload: dict[str, Any], rank: int | None = 0) -> Event:
    return Event(run_id="r", rank=rank, time=0.0, kind=EventKind.LOG, payload=payload)


def test_other_ranks_and_what_is_not_as_documented_are_passed_over() -> None:
    assert (
        shown(
            [
                event({"stream": "stdout", "text": "x"}, rank=1),
                event({"stream": "remark", "text": "x"}, rank=None),
                event({"stream": "remark", "text": "x"}),
                event({"stream": "display", "data": "x"}),
                event({"stream": "progress", "bar": "x"}),
            ]
        )
        == []
    )
    assert shown([event({"stream": "display", "data": {"text/plain": "x"}, "metadata": 3})]) == [display("x")]


class Stage:
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def text(self, stream: str, text: str) -> None:
        self.seen.append(text)

    def display(self, shown: Display) -> None:
        self.seen.append(str(shown.data["text/plain"]))

    def clear(self) -> None:
        self.seen.append("<clear>")


class TestPaced:
    def setup_method(self) -> None:
        self.now = 0.0
        self.stage = Stage()
        self.output = RankOutput("digits", stage=self.stage, clock=lambda: self.now)
        self.output.after_clear = lambda: self.stage.seen.append("<view>")

    def says(self, *payloads: dict[str, Any]) -> None:
        self.output.events(map(event, payloads))

    def test_a_clear_that_waits_comes_with_what_follows_and_the_view_after_it(self) -> None:
        self.says({"stream": "stdout", "text": "old"}, {"stream": "clear", "wait": True})
        assert self.stage.seen == ["old"]
        self.now += 1
        self.says({"stream": "stdout", "text": "new"})
        assert self.stage.seen == ["old", "<clear>", "<view>", "new"]

    def test_pictures_change_only_so_often_and_the_last_one_stays(self) -> None:
        for frame in range(100):
            self.now += 0.01
            self.says(
                {"stream": "clear", "wait": True}, {"stream": "display", "data": {"text/plain": str(frame)}}
            )
        assert self.stage.seen.count("<clear>") <= 1 + 1.0 / REDRAW_S
        assert 0 < self.output.due_in() <= REDRAW_S
        self.output.close()
        assert self.stage.seen[-1] == "99"

    def test_what_waits_is_shown_when_it_is_due_without_news(self) -> None:
        self.says({"stream": "display", "data": {"text/plain": "one"}})
        self.says({"stream": "display", "data": {"text/plain": "two"}})
        assert self.stage.seen == ["one"]
        self.now += self.output.due_in()
        self.says()
        assert self.stage.seen == ["one", "two"]
        assert self.output.due_in() == float("inf")

    def test_more_displays_than_a_page_bears_are_said(self) -> None:
        for number in range(1_200):
            self.now += 1.0
            self.says({"stream": "display", "data": {"text/plain": str(number)}})
        self.output.close()
        assert self.stage.seen[999] == "999"
        assert self.stage.seen[1000:] == ["[… 200 displays are only in the log: %train log digits]\n"]

    def test_the_end_of_a_flood_is_shown_once_there_is_room(self) -> None:
        self.says({"stream": "stdout", "text": ("y" * 99 + "\n") * 10_000 + "newest\n"})
        assert "newest" not in "".join(self.stage.seen)
        self.now += self.output.due_in()
        self.says()
        assert self.stage.seen[-1].endswith("newest\n")
        assert "only in the log" in self.stage.seen[-2]


class TestStartedOver:
    def setup_method(self) -> None:
        self.stage = Stage()

    def output(self, *, clears: bool) -> RankOutput:
        output = RankOutput("digits", stage=self.stage, clears=clears, clock=lambda: 0.0)
        output.after_clear = lambda: self.stage.seen.append("<view>")
        return output

    def events(self, attempt: int, *texts: str) -> list[Event]:
        payloads = [{"stream": "stdout", "text": text} for text in texts]
        return [replace(event(payload), attempt=attempt) for payload in payloads]

    def retrying(self) -> Event:
        return Event(run_id="r", attempt=1, time=0.0, kind=EventKind.STATE, payload={"state": "RETRYING"})

    def test_what_the_attempt_before_had_shown_goes(self) -> None:
        output = self.output(clears=True)
        output.events(self.events(1, "begin\n"))
        output.events([*self.events(1, "never seen\n"), self.retrying(), *self.events(2, "begin\n")])
        output.events(self.events(1, "late\n"))
        output.close()
        assert self.stage.seen == ["begin\n", "<clear>", "<view>", "begin\n"]

    def test_what_was_shown_before_an_attempt_that_goes_on_stays(self) -> None:
        output = self.output(clears=True)
        output.events(self.events(1, "epoch 0\n"))
        going_on = replace(self.retrying(), payload={"state": "RETRYING", "resume": {"run_id": "r"}})
        output.events([going_on, *self.events(2, "epoch 1\n")])
        output.close()
        assert self.stage.seen == ["epoch 0\n", "epoch 1\n"]

    def test_where_it_cannot_go_a_line_says_so(self) -> None:
        output = self.output(clears=False)
        output.events(self.events(1, "begin\n"))
        output.events([self.retrying(), *self.events(2, "begin\n")])
        assert self.stage.seen[0] == self.stage.seen[2] == "begin\n"
        assert "started over" in self.stage.seen[1]

    def test_where_nothing_was_shown_nothing_is_said(self) -> None:
        for clears in (True, False):
            self.output(clears=clears).events([self.retrying()])
        assert self.stage.seen == []


def test_a_cell_that_prints_for_hours_fills_no_page() -> None:
    throttle = Throttle()
    line = "z" * 99 + "\n"
    shown = sum(len(throttle.shown(line * 200, now=float(second))) for second in range(4000))
    assert 7_000_000 < shown <= 8_000_000
    assert throttle.due_in(5000.0) == float("inf")


def test_what_counts_is_bytes() -> None:
    assert len(Throttle(burst=1000, rate=1).shown("ü\n" * 1000, 0.0)) <= 2 * 1000 / 3 + 2


def test_large_pictures_are_shown_more_rarely() -> None:
    redraws = Redraws()
    redraws.drawn(10_000_000, now=0.0)
    assert redraws.due_in(0.0) == pytest.approx(10.0)


class Shell:
    """The part of a kernel's shell that is used."""

    execution_count = 7
    displayhook = None

    def __init__(self) -> None:
        self.published: list[tuple[Any, ...]] = []
        self.display_pub = self

    def publish(
        self, data: dict[str, Any], metadata: dict[str, Any], *, transient: dict[str, Any], update: bool
    ) -> None:
        self.published.append((data, metadata, transient, update))

    def clear_output(self, *, wait: bool) -> None:
        self.published.append(("clear", wait))


def test_a_notebook_gets_displays_with_their_ids_and_a_shell_of_another_make_results_as_displays() -> None:
    shell = Shell()
    stage = NotebookStage(shell)
    stage.display(display("one", "x"))
    stage.display(display("two", "x", update=True))
    stage.display(Display(data={"text/plain": "3"}, is_result=True))
    stage.clear()
    assert shell.published == [
        ({"text/plain": "one"}, {}, {"display_id": "x"}, False),
        ({"text/plain": "two"}, {}, {"display_id": "x"}, True),
        ({"text/plain": "3"}, {}, {}, False),
        ("clear", True),
    ]


def test_a_terminal_gets_words() -> None:
    out = io.StringIO()
    stage = TextStage(out, io.StringIO())
    stage.display(Display(data={"text/plain": "<Figure>", "image/png": "x"}))
    stage.display(Display(data={"image/png": "x"}))
    stage.clear()
    assert out.getvalue() == "<Figure>\n"
