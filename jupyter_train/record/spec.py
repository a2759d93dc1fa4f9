"""What one run was asked to do: everything the cluster needs to know to start it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from jupyter_train.record.checkpoint import ResumePoint, resume_point

Strategy = Literal["auto", "none"]
BatchMeaning = Literal["global", "per-rank"]


def new_run_id(now: float | None = None) -> str:
    """A new id that sorts by time: ``20261122-153000-ab12cd`` (UTC)."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(time.time() if now is None else now))
    return f"{stamp}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRef:
    """Captured bytes by their hash."""

    key: str  #: xxh3_128, 32 hexadecimal digits
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLoop:
    """A loop over a loader that trains, and of which every rank takes whole batches: they cannot be split."""

    file: str = ""  #: of the loop's code, as tracebacks name it; empty: of the cell itself
    line: int = 0  #: on which the loop begins; 0: every loop there is
    why: str = ""  #: the line that forbids it, and the reason
    fix: str = ""  #: a sentence on what would let it be split, where something would
    after_s: float = 0.0  #: the cell had run for so long when this was found; 0: in an earlier run


def whole_loops(told: Any) -> tuple[WholeLoop, ...]:
    """The loops in ``told``, JSON values of anybody's making; what is not as documented is left out."""
    found = []
    for one in told if isinstance(told, (list, tuple)) else ():
        if isinstance(one, WholeLoop):
            found.append(one)
        elif isinstance(one, Mapping):
            try:
                found.append(
                    WholeLoop(
                        file=str(one.get("file", "")),
                        line=int(one.get("line", 0)),
                        why=str(one.get("why", "")),
                        fix=str(one.get("fix", "")),
                        after_s=float(one.get("after_s", 0.0)),
                    )
                )
            except (TypeError, ValueError):
                continue
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A function that runs in the place of a cell, by the labels of what was captured for it."""

    function: str
    args: tuple[str, ...] = ()
    kwargs: Mapping[str, str] = field(default_factory=dict)  #: label by parameter
    file: str = ""  #: of the function's code, as tracebacks name it


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One ``%%train``, as submitted. Travels as JSON (``to_dict``), never pickled."""

    run_id: str
    name: str  #: what the user called it, else the notebook's name
    source: str  #: the cell without its magic line, or the text of the function
    first_line: int = 2  #: line of the cell on which ``source`` starts, from 1
    ranks: int
    call: Call | None = None  #: what runs instead of ``source``
    capture: tuple[ContentRef, ...] = ()  #: the pickle stream first, then its buffers
    captured_names: tuple[str, ...] = ()
    strategy: Strategy = "auto"
    batch: BatchMeaning = "global"
    sync_batchnorm: bool = True  #: its statistics are those of the global batch
    #: compare the first steps with those of one process; None: where that costs little
    check: bool | None = False
    whole: tuple[WholeLoop, ...] = ()  #: loops that are known not to be splittable
    parting_timeout_s: float = 30.0  #: a rank that others wait for so long is named
    seed: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None  #: names that come back; None: all assigned
    timeout_s: float | None = None
    retries: int = 0  #: further attempts after the loss of a rank, worker or host
    checkpoint_every_s: float | None = None  #: ``train.epochs`` keeps one by itself so often
    hang_timeout_s: float = (
        300.0  #: a rank that the others wait for so long, and that does nothing, is given up; 0: never
    )
    keep_last: int = 2  #: checkpoints, where ``train.checkpoint`` does not say
    resume: ResumePoint | None = None  #: begin from there
    cwd: str = ""  #: the notebook's folder
    sys_path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)  #: allow-listed; never journalled
    session: str = ""  #: id of the kernel that submitted it
    notebook: str = ""  #: path of the notebook, where it is known
    cluster: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)  #: see docs/events.md; ranks are not told
    submitted: float = 0.0  #: unix time, seconds

    def to_dict(self, *, for_journal: bool = False) -> dict[str, Any]:
        """JSON values only. ``for_journal`` leaves out the values of environment variables."""
        out = asdict(self)
        if for_journal:
            del out["environment"]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """The spec in ``data``; fields of a newer version are ignored.

        Raises:
            ValueError: a required field is missing.
        """
        known = {f.name for f in fields(cls)}
        given = {k: v for k, v in data.items() if k in known}
        try:
            given["capture"] = tuple(
                ref if isinstance(ref, ContentRef) else ContentRef(**ref) for ref in given.get("capture", ())
            )
            given["whole"] = whole_loops(given.get("whole", ()))
            for name in ("captured_names", "sys_path"):
                given[name] = tuple(given.get(name, ()))
            if given.get("keep") is not None:
                given["keep"] = tuple(given["keep"])
            given["resume"] = resume_point(given.get("resume"))
            if isinstance(call := given.get("call"), Mapping):
                given["call"] = Call(**{**call, "args": tuple(call.get("args", ()))})
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"not the specification of a run: {error}") from None
