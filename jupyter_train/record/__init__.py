"""The one shape of data: events, run states, RunSpec, and the fold from events to a RunView."""

from jupyter_train.record.checkpoint import (
    Checkpoint,
    CheckpointPart,
    Gathered,
    ResumePoint,
    checkpoint_part,
    goes_on,
    resume_point,
)
from jupyter_train.record.curve import Curve
from jupyter_train.record.events import (
    Event,
    EventKind,
    pack_event,
    split_events,
    unpack_event,
    unpack_events,
)
from jupyter_train.record.folding import fold
from jupyter_train.record.proof import Proof, Verdict
from jupyter_train.record.spec import Call, ContentRef, RunSpec, WholeLoop, new_run_id, whole_loops
from jupyter_train.record.states import RunState, legal_move
from jupyter_train.record.view import PastAttempt, Progress, RunView

__all__ = [
    "Call",
    "Checkpoint",
    "CheckpointPart",
    "ContentRef",
    "Curve",
    "Event",
    "EventKind",
    "Gathered",
    "PastAttempt",
    "Progress",
    "Proof",
    "ResumePoint",
    "RunSpec",
    "RunState",
    "RunView",
    "Verdict",
    "WholeLoop",
    "checkpoint_part",
    "fold",
    "goes_on",
    "legal_move",
    "new_run_id",
    "pack_event",
    "resume_point",
    "split_events",
    "unpack_event",
    "unpack_events",
    "whole_loops",
]
