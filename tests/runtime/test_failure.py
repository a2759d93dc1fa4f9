"""How an error is told."""

from __future__ import annotations

import json
import sys

import pytest

from jupyter_train.errors import CaptureError
from jupyter_train.record import Event, EventKind, pack_event
from jupyter_train.runtime.cell import cell_file, compile_cell, execute
from jupyter_train.runtime.failure import MAX_FRAMES, MAX_TEXT, comes_from_peer, describe, is_users


def fail(source: str) -> BaseException:
    try:
        execute(compile_cell(source, file=cell_file("x"), first_line=2), {"__name__": "__main__"})
    except BaseException as error:
        trace = error.__traceback__
        return error.with_traceback(trace and trace.tb_next)  # without this very frame, as in a rank
    raise AssertionError("it did not fail")


def test_only_the_users_frames_are_told_with_their_source() -> None:
    told = describe(fail("import json\ndef parse(text):\n    return json.loads(text)\nparse('{')"))
    assert told["type"] == "JSONDecodeError"
    assert told["module"] == "json.decoder"
    assert [(f["file"], f["line"], f["name"], f["source"].strip()) for f in told["frames"]] == [
        ("<train x>", 5, "<module>", "parse('{')"),
        ("<train x>", 4, "parse", "return json.loads(text)"),
    ]
    assert told["cause"] == "exception"


def test_the_whole_text_begins_at_the_cell() -> None:
    text = describe(fail("import json\njson.loads('{')"))["text"]
    assert text.splitlines()[1].strip().startswith('File "<train x>", line 3')
    assert "json/decoder.py" in text


def test_a_chain_is_in_the_text() -> None:
    text = describe(
        fail("try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('bad') from e")
    )["text"]
    assert "ZeroDivisionError" in text
    assert "direct cause" in text


def test_a_recursion_is_told_by_its_ends() -> None:
    told = describe(fail("def f(n):\n    return f(n + 1)\nf(0)"))
    assert told["type"] == "RecursionError"
    assert len(told["frames"]) == MAX_FRAMES
    assert told["frames"][0]["name"] == "<module>"
    assert len(told["text"]) <= MAX_TEXT + 10


def test_an_exception_that_cannot_be_shown_is_told_all_the_same() -> None:
    told = describe(fail("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E"))
    assert told["type"] == "E"
    assert "cannot be shown" in told["message"]


def test_what_is_told_fits_into_an_event() -> None:
    told = describe(fail("1/0"))
    pack_event(Event(run_id="r", time=0.0, kind=EventKind.ERROR, payload=told))
    json.dumps(told)


def test_leaving_by_exit_is_told_as_such() -> None:
    assert describe(fail("import sys\nsys.exit('enough')"))["cause"] == "exit"


@pytest.mark.parametrize(
    ("file", "users"),
    [
        ("<train digits>", True),
        ("<ipython-input-3-abc>", True),
        ("/tmp/ipykernel_12/345.py", True),
        ("/home/me/notebooks/helpers.py", True),
        (json.__file__, False),
        (pytest.__file__, False),
        (sys.modules["jupyter_train.runtime.cell"].__file__, False),
        ("<frozen importlib._bootstrap>", False),
    ],
)
def test_whose_code_a_file_is(file: str, users: bool) -> None:
    assert is_users(file) is users


def test_a_collective_that_lost_its_peer_is_recognised() -> None:
    assert comes_from_peer(
        RuntimeError("[/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
    )
    assert not comes_from_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not comes_from_peer(ValueError("Connection reset by peer"))


def test_a_group_is_told_with_what_it_holds() -> None:
    told = describe(ExceptionGroup("many", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])]))
    assert told["message"].splitlines() == [
        "many (2 sub-exceptions)",
        "ValueError: a",
        "ExceptionGroup: more (1 sub-exception)",
        "KeyError: 'b'",
    ]


def test_a_missing_module_is_told_with_the_python_that_lacks_it() -> None:
    try:
        try:
            import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401
        except ImportError as error:
            raise CaptureError("x needs it") from error
    except CaptureError as error:
        told = describe(error)

    assert told["missing"] == {"module": "no_such_module_anywhere", "python": sys.executable}
    assert "missing" not in describe(ValueError("x"))
