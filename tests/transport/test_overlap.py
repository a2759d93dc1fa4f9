"""What is said of names that two runs return."""

from __future__ import annotations

from jupyter_train.transport.overlap import Touch, sentences


def touch(name: str, *, run: str = "hare", wins: bool = True) -> Touch:
    return Touch(run=run, name=name, wins=wins)


def test_names_of_one_other_run_are_one_sentence() -> None:
    assert sentences({name: touch(name) for name in ("xb", "yb")}) == [
        'xb, yb stay as run hare left them, which ended later; run.result("xb") and the like have this run\'s'
    ]


def test_each_other_run_has_a_sentence_of_its_own() -> None:
    said = sentences({"a": touch("a"), "b": touch("b", wins=False), "c": touch("c", run="tortoise")})
    assert [text.partition(" ")[0] for text in said] == ["a", "b", "c"]
    assert said[1] == "b was set by run hare too, which ended earlier: this run's value replaced it"
