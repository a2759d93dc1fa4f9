"""What checkpoints need of the engine that runs a cell: its random states, its counts, what it has learned, and the other ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from jupyter_train.runtime.checkpoint import plainpass, randomness

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.passes import Passes
    from jupyter_train.runtime.checkpoint.position import PassStanding
    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel.collectives import Collectives
    from jupyter_train.runtime.parallel.feed import Feed
    from jupyter_train.runtime.parallel.groups import Groups
    from jupyter_train.runtime.parallel.header import Header
    from jupyter_train.runtime.parallel.learned import Learned
    from jupyter_train.runtime.parallel.patches import Patches
    from jupyter_train.runtime.parallel.rng import Streams
    from jupyter_train.runtime.parallel.sites import Sites


class Engine:
    """One rank of a run in which nothing is split. Main thread."""

    def __init__(
        self,
        *,
        ranks: int,
        device: torch.device,
        observer: Observer,
        collectives: Collectives,
        patches: Patches,
    ) -> None:
        self.ranks = ranks
        self._device = device
        self._observer = observer
        self._collectives = collectives
        self._patches = patches
        self._is_watched = False

    @property
    def sites(self) -> Sites:
        """The lines of the user's code."""
        return self._observer.sites

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self._observer.step

    @property
    def is_alike(self) -> bool:
        """The ranks train one model together: what is trained is the same on all."""
        return self.ranks == 1

    def watch(self, passes: Passes) -> None:
        """Let ``passes`` follow the loaders; more than once does nothing."""
        if not self._is_watched:
            self._is_watched = True
            self._watch(passes)

    def _watch(self, passes: Passes) -> None:
        plainpass.install(self._patches, passes, self.sites)

    def place_of(self, one: Any) -> list[Any] | None:
        """Where a pass over a loader began, as plain values."""
        del one
        return None

    def reopen(self, loader: Any, place: Sequence[Any] | None, standing: PassStanding) -> Any:
        """Another pass over ``loader``, which is to go on where one stood that began at ``place``."""
        del place, standing
        return iter(loader)

    def meet(self) -> None:
        """This rank asks for a checkpoint: so does every other."""

    def agree(self, wanted: bool) -> bool:
        """What rank 0 wants. Every rank has to ask."""
        if self.ranks == 1:
            return wanted
        return bool(self._collectives.gather(wanted)[0])

    def random_states(self) -> dict[str, Any]:
        """All of them, as plain values."""
        return {"shared": randomness.read(self._device)}

    def set_random_states(self, states: Mapping[str, Any] | None) -> None:
        """Go on from there."""
        if states is not None:
            randomness.write(states["shared"], self._device)

    def state(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        """What is counted, as plain values.

        Args:
            objects: by label; those that are counted are named by theirs.
        """
        return {"observer": self._observer.counts(objects)}

    def set_state(self, state: Mapping[str, Any] | None, objects: Mapping[str, Any]) -> None:
        """Go on counting from there."""
        if state is not None:
            self._observer.set_counts(state["observer"], objects)


class SplitEngine(Engine):
    """One rank of a run whose batches are split."""

    def __init__(
        self,
        *,
        ranks: int,
        device: torch.device,
        observer: Observer,
        collectives: Collectives,
        patches: Patches,
        streams: Streams,
        feed: Feed,
        header: Header,
        groups: Groups,
        learned: Learned,
    ) -> None:
        super().__init__(
            ranks=ranks, device=device, observer=observer, collectives=collectives, patches=patches
        )
        self._streams = streams
        self._feed = feed
        self._header = header
        self._groups = groups
        self._learned = learned

    @property
    def is_alike(self) -> bool:
        """As long as the cell does not use torch.distributed itself."""
        return self._feed.active

    def _watch(self, passes: Passes) -> None:
        self._feed.passes = passes

    def meet(self) -> None:
        """Collective.

        Raises:
            RanksDiverged: another rank is somewhere else.
        """
        from jupyter_train.runtime.parallel.header import Kind

        if self._feed.active:
            self._header.post(Kind.CHECKPOINT, self.sites.here())
            self._header.check()
            self._groups.all_gather(torch.zeros(1))

    def place_of(self, one: Any) -> list[Any] | None:
        return self._feed.place_of(one, self.sites.key_of)

    def reopen(self, loader: Any, place: Sequence[Any] | None, standing: PassStanding) -> Any:
        if place is None:
            return iter(loader)
        key, loop = place
        return self._feed.reopen(loader, self.sites.with_key(key), loop, standing)

    def agree(self, wanted: bool) -> bool:
        """Collective."""
        from jupyter_train.runtime.parallel.header import Kind

        if not self._feed.active:
            return super().agree(wanted)
        self._header.post(Kind.EPOCH, self.sites.here())
        self._header.check()
        return bool(self._groups.all_gather(torch.tensor([float(wanted)]))[0, 0])

    def random_states(self) -> dict[str, Any]:
        return self._streams.states()

    def set_random_states(self, states: Mapping[str, Any] | None) -> None:
        if states is not None:
            self._streams.set_states(states)

    def state(self, objects: Mapping[str, Any]) -> dict[str, Any]:
        return {**super().state(objects), "learned": self._learned.state()}

    def set_state(self, state: Mapping[str, Any] | None, objects: Mapping[str, Any]) -> None:
        super().set_state(state, objects)
        if state is not None and "learned" in state:
            self._learned.set_state(state["learned"])
