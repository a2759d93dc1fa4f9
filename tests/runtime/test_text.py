"""Text of ranks: whole lines, in order, bounded."""

from __future__ import annotations

from jupyter_train.runtime.text import MAX_WAITING, PARTIAL_LINE_S, TAIL, TextBuffer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pieces_of_one_stream_become_one_text() -> None:
    text = TextBuffer(Clock())
    for piece in ("epoch ", "1", "\n", "epoch 2\n"):
        text.write("stdout", piece)
    assert list(text.take(everything=False)) == [("stdout", "epoch 1\nepoch 2\n")]


def test_streams_keep_their_order() -> None:
    text = TextBuffer(Clock())
    text.write("stdout", "a\n")
    text.write("stderr", "b\n")
    text.write("stdout", "c\n")
    assert list(text.take(everything=False)) == [("stdout", "a\n"), ("stderr", "b\n"), ("stdout", "c\n")]


def test_an_unfinished_line_waits_for_its_end() -> None:
    text = TextBuffer(Clock())
    text.write("stdout", "loss: ")
    assert list(text.take(everything=False)) == []
    assert text.waiting
    text.write("stdout", "0.5\n")
    assert list(text.take(everything=False)) == [("stdout", "loss: 0.5\n")]
    assert not text.waiting


def test_an_unfinished_line_is_given_once_it_is_old() -> None:
    clock = Clock()
    text = TextBuffer(clock)
    text.write("stdout", "working")
    assert list(text.take(everything=False)) == []
    clock.now = PARTIAL_LINE_S
    assert list(text.take(everything=False)) == [("stdout", "working")]


def test_another_stream_does_not_overtake_an_unfinished_line() -> None:
    text = TextBuffer(Clock())
    text.write("stdout", "half")
    assert list(text.take(everything=False)) == []
    text.write("stderr", "warning\n")
    assert list(text.take(everything=False)) == [("stdout", "half"), ("stderr", "warning\n")]


def test_everything_means_unfinished_lines_too() -> None:
    text = TextBuffer(Clock())
    text.write("stderr", "no newline")
    assert list(text.take(everything=True)) == [("stderr", "no newline")]


def test_a_flood_is_counted_instead_of_kept() -> None:
    text = TextBuffer(Clock())
    line = "x" * 1023 + "\n"
    for _ in range(1000):
        text.write("stdout", line)
    (_, kept), (stream, told), (_, end) = text.take(everything=False)
    assert len(kept) == MAX_WAITING
    assert stream == "stderr"
    assert f"{1000 * len(line) - len(kept) - len(end):,} characters left out" in told


def test_the_end_of_a_flood_is_kept_too() -> None:
    text = TextBuffer(Clock())
    for number in range(100_000):
        text.write("stdout", f"line {number}\n")
    text.write("stderr", "warning\n")
    text.write("stdout", "accuracy 0.97\n")
    _, _, *end = text.take(everything=True)
    assert end[-2:] == [("stderr", "warning\n"), ("stdout", "accuracy 0.97\n")]
    lines = end[0][1].splitlines()
    assert lines[-1] == "line 99999"
    assert all(line.startswith("line ") for line in lines)
    assert sum(len(part) for _, part in end) <= TAIL


def test_one_piece_that_is_too_long_is_cut() -> None:
    text = TextBuffer(Clock())
    text.write("stdout", "x" * (10 * MAX_WAITING))
    text.write("stdout", "\nafter\n")
    (_, kept), _, (_, end) = text.take(everything=True)
    assert len(kept) == MAX_WAITING
    assert end == "after\n"


def test_after_a_flood_text_is_kept_again() -> None:
    text = TextBuffer(Clock())
    text.write("stdout", "x" * (MAX_WAITING + 1))
    text.write("stdout", "lost")
    list(text.take(everything=True))
    text.write("stdout", "kept\n")
    assert list(text.take(everything=False)) == [("stdout", "kept\n")]
