"""From the interpreter's last words to the cell's lines."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jupyter_train.control.crash import MAX_FRAMES, crash_frames
from jupyter_train.control.messages import ExitCause
from jupyter_train.control.words import exit_sentence

CRASH = """
import ctypes, faulthandler
faulthandler.enable()
cell = '''
def crash(depth):
    if depth:
        crash(depth - 1)
    ctypes.string_at(0)
crash({depth})
'''
exec(compile(cell, "<train my run>", "exec"))
"""


def last_words(depth: int) -> str:
    code = CRASH.replace("{depth}", str(depth))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr


def test_the_stack_begins_at_the_cell_and_ends_in_the_library() -> None:
    frames = crash_frames("a line before\n" + last_words(1))
    assert [(f["line"], f["name"]) for f in frames[:3]] == [(6, "<module>"), (4, "crash"), (5, "crash")]
    assert {f["file"] for f in frames[:3]} == {"<train my run>"}
    assert frames[-1]["name"] == "string_at"


def test_a_deep_stack_is_told_by_its_ends() -> None:
    frames = crash_frames(last_words(60))
    assert len(frames) == MAX_FRAMES
    assert frames[-1]["name"] == "string_at"


@pytest.mark.parametrize("text", ["", "Killed", "Fatal Python error: Aborted\n\n<no Python frame>"])
def test_nothing_is_made_up_where_nothing_is_told(text: str) -> None:
    assert crash_frames(text) == []


@pytest.mark.parametrize(
    ("known", "said"),
    [(True, "out of memory"), (False, "did not do it for want of memory"), (None, "when memory runs out")],
)
def test_a_kill_is_blamed_on_memory_only_as_far_as_it_is_known(known: bool | None, said: str) -> None:
    assert said in exit_sentence(1, ExitCause(kind="signal", signal=9, out_of_memory=known))


def test_a_rank_whose_parent_died_says_so() -> None:
    assert (
        exit_sentence(2, ExitCause(kind="lost", text="its parent ended"))
        == "rank 2 is lost: its parent ended"
    )
