"""Rank 0's part in the proof of its run: it records, and asks its agent for somebody to compare with."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from jupyter_train.record.proof import Proof, unchecked
from jupyter_train.runtime.channel import FrameKind
from jupyter_train.runtime.proof.attach import watch_rank
from jupyter_train.runtime.proof.recording import Recording, recording_file, write

if TYPE_CHECKING:
    from jupyter_train.record import RunSpec
    from jupyter_train.runtime.job import Job
    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel import Parallel
    from jupyter_train.runtime.parallel.sites import Site
    from jupyter_train.runtime.proof.witness import Witness
    from jupyter_train.runtime.recorder import Recorder


class Asking:
    """Asks for a proof with the first backward on shares. Main thread of rank 0.

    Nothing here is ever the run's failure: where it cannot be done, the verdict says so.
    """

    def __init__(self, job: Job, recorder: Recorder) -> None:
        self._job = job
        self._spec: RunSpec = job.run_spec
        self._recorder = recorder
        self._witness: Witness | None = None
        self._observer: Observer | None = None
        self._asked = False
        self._written = False
        self._began = time.monotonic()

    def watch(self, observer: Observer, parallel: Parallel, *, device: str) -> None:
        """Record the cell's first steps, where the run is to be proven."""
        spec = self._spec
        if spec.check is False or self._job.rank:
            return
        if spec.resume is not None:  # nobody who begins at the start could be compared with it
            if spec.check and spec.resume.run_id != spec.run_id:
                self._tell(unchecked("it goes on from a checkpoint of another run"))
            return
        if why := why_not(spec):
            if spec.check:
                self._tell(unchecked(why))
            return
        if not parallel.is_split:
            return  # a remark has said why
        if device != "cpu" and spec.check is None:
            self._tell(unchecked(f"it would take memory of the {device.upper()}; --check asks for it"))
            return
        self._began = time.monotonic()
        self._witness = watch_rank(observer, parallel, begun=self._begun, full=self._full)
        self._observer = observer
        observer.witness = self

    def backward(self, site: Site, tensors: Any, loss: Any) -> None:
        """See `Witness`; an odd tensor that cannot be sampled costs the proof, not the run."""
        witness = self._witness
        if witness is None:
            return
        try:
            witness.backward(site, tensors, loss)
            if not witness.is_full:
                return
        except Exception as error:
            self._written = True
            self._tell(
                unchecked(f"what the ranks did could not be recorded: {type(error).__name__}: {error}")
            )
        self._witness = None
        if self._observer is not None:
            self._observer.witness = None

    def finish(self) -> None:
        """The cell has ended: what was recorded is all that there will be."""
        witness, self._witness = self._witness, None
        if witness is None:
            return
        if self._asked:
            self._full(witness.recording)
        elif self._spec.check:
            self._tell(unchecked("no batch was split over the ranks"))

    def _begun(self, number: int) -> None:
        self._asked = True
        took_s = time.monotonic() - self._began
        self._say({"first": number, "took_s": took_s, "began": time.time() - took_s})

    def _full(self, recording: Recording) -> None:
        if self._written:
            return
        self._written = True
        try:
            write(recording, recording_file(self._job.folder, self._job.attempt))
        except OSError as error:
            self._tell(unchecked(f"what the ranks did could not be kept: {error.strerror or error}"))

    def _tell(self, proof: Proof) -> None:
        self._say({"proof": proof.to_payload()})

    def _say(self, told: dict[str, Any]) -> None:
        self._recorder.word(FrameKind.PROVE, json.dumps(told).encode())


def why_not(spec: RunSpec) -> str:
    """Why a run as ``spec`` has it cannot be compared with one process; "" where it can."""
    if spec.ranks == 1:
        return "it has one rank"
    if spec.strategy == "none":
        return "with --strategy none nothing is split"
    if spec.batch == "per-rank":
        return "with --batch per-rank the batches are not those of one process"
    if not spec.sync_batchnorm:
        return "with --no-sync-bn each rank has statistics of its own"
    return ""
