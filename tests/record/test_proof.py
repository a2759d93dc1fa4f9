"""The proof of a run in its view."""

from __future__ import annotations

from jupyter_train.record import Event, EventKind, Proof, RunState, RunView, Verdict, fold

PROOF = Proof(verdict=Verdict.SAME, text="same as one process (2e-7)", difference=2e-7, steps=4)


def _log(payload: object, seq: int = 1) -> Event:
    assert isinstance(payload, dict)
    return Event(run_id="r", seq=seq, attempt=1, rank=0, time=1.0, kind=EventKind.LOG, payload=payload)


def test_a_proof_is_in_the_view_and_in_the_log() -> None:
    view = fold([_log(PROOF.to_payload())])
    assert view.proof == PROOF
    assert [line.text for line in view.log] == [PROOF.text]


def test_a_proof_that_is_none_is_passed_over() -> None:
    for odd in ({"verdict": "proven"}, {"verdict": None}, {"difference": "much"}, {"steps": "x"}):
        view = fold([_log({**PROOF.to_payload(), **odd})])
        assert view.proof is None
        assert view.seq == 1


POINT = {"run_id": "r", "attempt": 1, "number": 3, "step": 9, "files": ["checkpoint-1-3.pt"]}


def _retrying(**payload: object) -> Event:
    return Event(
        run_id="r",
        seq=9,
        attempt=1,
        time=2.0,
        kind=EventKind.STATE,
        payload={"state": "RETRYING", **payload},
    )


def test_an_attempt_that_starts_over_has_a_proof_of_its_own() -> None:
    view = RunView(run_id="r", state=RunState.RUNNING, attempt=1, proof=PROOF)
    assert fold([_retrying()], view).proof is None


def test_what_was_proven_before_a_checkpoint_stands_after_it() -> None:
    view = fold(
        [_retrying(resume=POINT)], RunView(run_id="r", state=RunState.RUNNING, attempt=1, proof=PROOF)
    )
    unchecked = Event(
        run_id="r",
        attempt=2,
        rank=0,
        time=3.0,
        kind=EventKind.LOG,
        payload=Proof(verdict=Verdict.UNCHECKED, text="not checked").to_payload(),
    )
    assert fold([unchecked], view).proof == PROOF
