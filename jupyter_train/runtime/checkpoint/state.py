"""What a rank keeps at one moment, as it is handed over for keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of one rank after a step. Its values are live: whoever keeps it copies them first."""

    number: int  #: of the checkpoint, from 1, over all attempts of the run; alike on all ranks
    step: int  #: optimizer steps done
    epoch: int | None = None  #: of ``train.epochs``, in which the run goes on; None: outside of it
    batch: int = 0  #: batches of that epoch that are done
    position: Mapping[str, Any] = field(default_factory=dict)  #: where the loops stand, plain values
    shared: Mapping[str, Any] = field(
        default_factory=dict
    )  #: label → what is alike on all ranks; rank 0 writes it
    own: Mapping[str, Any] = field(default_factory=dict)  #: label → what only this rank has
    names: tuple[str, ...] = ()  #: what the cell gave, as it calls it: these labels have to be kept
    metric: Mapping[str, float] = field(
        default_factory=dict
    )  #: what it is ranked by, where ``best`` asks for it
    keep_last: int | None = None  #: how many to keep; None: as set up for the run
    best: str | None = (
        None  #: ``"val_loss"``, ``"min val_loss"`` or ``"max accuracy"``: the best one is kept, too
    )
