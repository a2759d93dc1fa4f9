"""The first files of a capture: what the others are.

Several, because one changes with every run (random states) and the others only
with the structure of what was captured: the second run of a cell sends the
small one alone.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from jupyter_train.errors import CaptureError
from jupyter_train.transport.mappings import FilePart
from jupyter_train.transport.memory import NOTHING, Layout

#: Version of the files of a capture.
FORMAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """How objects and memory lie in the files that follow."""

    names: tuple[str, ...] = ()  #: in the order of the dumps; a last dump has the source of the functions
    given: tuple[str, ...] = ()  #: those of ``names`` that are labels, not names of the notebook
    imports: tuple[str, ...] = ()  #: submodules that code reaches through a captured package
    layout: Layout = NOTHING
    #: Of each region: file, and offset in bytes. Files count from the first behind the sealed ones.
    placement: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    #: Files of the disk that regions lie in: file −1 − n of ``placement``.
    elsewhere: tuple[FilePart, ...] = ()
    buffers: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a capture holds."""

    tables: Tables = Tables()
    random_state: dict[str, Any] | None = None  #: see ``randomness.random_state``; None: the run has a seed
    settings: Mapping[str, bytes] = field(default_factory=dict)  #: see ``settings.current_settings``
    accelerator: bool = False  #: whether the kernel could compute on something else than a CPU
    sources: str = ""  #: key of the file with the notebook's local modules; empty: there are none
    #: Of the stream, in order: file, offset, length in bytes.
    pieces: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 3), np.int64))
    #: Numbers of objects that the kernel has no more.
    dropped: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the dumps."""
        return self.tables.names


#: How many files :func:`seal` makes; those with stream and memory follow.
SEALED = 3

#: A cell that trains uses this generator, so that its state is seldom the last run's.
_RESTLESS = "torch"


def seal(envelope: Envelope) -> tuple[bytes, bytes, bytes]:
    """Three files: what changes from run to run, the tables, and all that is at rest."""
    states = envelope.random_state
    restless = None
    if states is not None:
        restless = _by_place(states.get(_RESTLESS))
        states = {kind: state for kind, state in states.items() if kind != _RESTLESS}
    # What else refers to an object is a matter of chance, so these numbers change too; as bits they
    # repeat themselves and take hardly any room.
    dropped = np.zeros(int(envelope.dropped.max(initial=-1)) + 1, bool)
    dropped[envelope.dropped] = True
    bare = Envelope()
    at_rest = replace(
        envelope, tables=bare.tables, random_state=states, dropped=bare.dropped, pieces=bare.pieces
    )
    return (
        zlib.compress(pickle.dumps((FORMAT, restless, np.packbits(dropped), envelope.pieces), 5), 1),
        pickle.dumps(envelope.tables, 5),
        zlib.compress(pickle.dumps(at_rest, 5), 1),
    )


def open_envelope(files: Sequence[bytes | memoryview]) -> Envelope:
    """What :func:`seal` made; of a run that captured nothing there are no files.

    Raises:
        CaptureError: another version wrote them.
    """
    if not files:
        return Envelope()
    try:
        version, restless, dropped, pieces = pickle.loads(zlib.decompress(files[0]))
    except (zlib.error, TypeError, ValueError):
        version = restless = dropped = pieces = None
    if version != FORMAT:
        raise CaptureError("the capture was written by another version of jupyter_train")
    at_rest = pickle.loads(zlib.decompress(files[2]))
    assert isinstance(at_rest, Envelope)
    states = at_rest.random_state
    if states is not None:
        states = {_RESTLESS: _in_order(restless), **states}
    return replace(
        at_rest,
        tables=pickle.loads(files[1]),
        random_state=states,
        dropped=np.flatnonzero(np.unpackbits(dropped)),
        pieces=pieces,
    )


def _by_place(state: Any) -> Any:
    """torch writes each number into eight bytes, four of them zero: together they take no room."""
    if state is None or state.size % 8:
        return state
    return np.ascontiguousarray(state.reshape(-1, 8).T)


def _in_order(state: Any) -> Any:
    if state is None or state.ndim == 1:
        return state
    return np.ascontiguousarray(state.T).reshape(-1)
