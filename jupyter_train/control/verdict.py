"""How a run, or one attempt of it, will end once its ranks are gone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jupyter_train.control.placement import Place
from jupyter_train.record import RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """RETRYING: the attempt ends, and another one follows. Everything else ends the run."""

    state: RunState
    reason: str
    is_secondary: bool = False  #: only a consequence is known so far: the cause may still come
    loss: str = ""  #: with RETRYING, after the loss of a rank: its cause in a few words
    is_unread: bool = False  #: with RETRYING: the checkpoint to begin from could not be read
    place: Place | None = None  #: of the worker that was lost, where it was that

    @property
    def ends_the_run(self) -> bool:
        """No other attempt follows."""
        return self.state is not RunState.RETRYING

    def widened(self, host: str, sentence: str) -> Verdict:
        """This once it is known that all of ``host`` was lost: its workers are missed one after the other."""
        if self.place is None or self.place.host != host:
            return self
        return replace(self, reason=f"RankLost: {sentence}", loss=sentence if self.loss else "")
