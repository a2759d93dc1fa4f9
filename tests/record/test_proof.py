"""The proof of a run in its view."""

from __future__ import annotations

from jupyter_train.record import Event, EventKind, Proof, RunSpec, RunState, RunView, Verdict, fold

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


def test_another_attempt_has_a_proof_of_its_own() -> None:
    spec = RunSpec(run_id="r", name="n", source="", ranks=2)
    view = RunView(run_id="r", state=RunState.RETRYING, attempt=1, proof=PROOF)
    starting = Event(
        run_id="r",
        seq=9,
        attempt=2,
        time=2.0,
        kind=EventKind.STATE,
        payload={"state": "STARTING", "spec": spec.to_dict()},
    )
    assert fold([starting], view).proof is None
