"""Text of ranks: whole lines, in order, bounded."""

from __future__ import annotations

from jupyter_train.runtime.text import BOUND, EVENT_CHARACTERS, PARTIAL_LINE_S, OutputBuffer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pieces_of_one_stream_become_one_text() -> None:
    text = OutputBuffer(Clock())
    for piece in ("epoch ", "1", "\n", "epoch 2\n"):
        text.write("stdout", piece)
    assert list(text.take(everything=False)) == [("stdout", "epoch 1\nepoch 2\n")]


def test_streams_keep_their_order() -> None:
    text = OutputBuffer(Clock())
    text.write("stdout", "a\n")
    text.write("stderr", "b\n")
    text.write("stdout", "c\n")
    assert list(text.take(everything=False)) == [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]


def test_an_unfinished_line_waits_for_its_end() -> None:
    text = OutputBuffer(Clock())
    text.write("stdout", "loss: ")
    assert list(text.take(everything=False)) == []
    assert text.waiting
    text.write("stdout", "0.5\n")
    assert list(text.take(everything=False)) == [("stdout", "loss: 0.5\n")]
    assert not text.waiting


def test_an_unfinished_line_is_given_once_it_is_old() -> None:
    clock = Clock()
    text = OutputBuffer(clock)
    text.write("stdout", "working")
    assert list(text.take(everything=False)) == []
    clock.now = PARTIAL_LINE_S
    assert list(text.take(everything=False)) == [("stdout", "working")]


def test_another_stream_does_not_overtake_an_unfinished_line() -> None:
    text = OutputBuffer(Clock())
    text.write("stdout", "half")
    assert list(text.take(everything=False)) == []
    text.write("stderr", "warning\n")
    assert list(text.take(everything=False)) == [("stdout", "half"), ("stderr", "warning\n")]


def test_everything_means_unfinished_lines_too() -> None:
    text = OutputBuffer(Clock())
    text.write("stderr", "no newline")
    assert list(text.take(everything=True)) == [("stderr", "no newline")]


def test_a_display_keeps_its_place_among_the_text() -> None:
    output = OutputBuffer(Clock())
    output.write("stdout", "before")
    output.put("display", {"data": 1}, 10)
    output.put("display", {"data": 2}, 10)
    output.write("stdout", "after\n")
    assert list(output.take(everything=False)) == [
        ("stdout", "before"),
        ("display", {"data": 1}),
        ("display", {"data": 2}),
        ("stdout", "after\n"),
    ]


def test_more_than_the_bound_is_full_until_it_is_taken_and_nothing_is_lost() -> None:
    output = OutputBuffer(Clock())
    line = "x" * 1023 + "\n"
    while not output.is_full:
        output.write("stdout", line)
    output.write("stdout", line)
    taken = "".join(str(text) for _, text in output.take(everything=True))
    assert len(taken) >= BOUND
    assert taken == line * (len(taken) // len(line))
    assert not output.is_full


def test_a_long_text_comes_in_parts_that_end_with_a_line() -> None:
    output = OutputBuffer(Clock())
    output.write("stdout", ("y" * 999 + "\n") * 1000)
    parts = [str(text) for _, text in output.take(everything=False)]
    assert all(len(part) <= EVENT_CHARACTERS and part.endswith("\n") for part in parts)
    assert sum(map(len, parts)) == 1_000_000


def test_a_line_longer_than_an_event_comes_in_parts() -> None:
    output = OutputBuffer(Clock())
    output.write("stdout", "x" * (3 * EVENT_CHARACTERS + 1))
    parts = [len(str(text)) for _, text in output.take(everything=False)]
    assert parts == [EVENT_CHARACTERS] * 3 + [1]
