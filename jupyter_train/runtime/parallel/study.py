"""Watches the first batches of split loops, and judges with the other ranks whether they may be split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from jupyter_train.runtime.parallel.aligning import aligned, packed, unpacked
from jupyter_train.runtime.parallel.errors import NotSplittable, not_splittable
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.mixing import Mixing, Offence
from jupyter_train.runtime.parallel.patches import Patches
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.sites import Site, Sites
from jupyter_train.runtime.parallel.watching import BATCHES, Watch

MOST_TENSORS = 100  #: of one batch
DEEPEST = 4


class Study:
    """One rank's part in it. Main thread; on every rank the same batches are watched."""

    def __init__(self, *, groups: Groups, sites: Sites) -> None:
        self._groups = groups
        self._sites = sites
        self._watch = Watch(lambda: sites.instruction(4))
        self._mixing = Mixing()
        self.watched: Counter[Site] = Counter()  #: batches, by loop
        self._loop: Site | None = None  #: that is watched at the moment
        self._batches = 0
        self._in_step = False  #: an optimizer's, so that nothing is watched

    @property
    def is_under_way(self) -> bool:
        """The batch that is being worked on is watched."""
        return self._loop is not None

    # -- as the loop goes on

    def fetching(self, loop: Site, *, splits: bool) -> None:
        """The loop there is about to get its next batch."""
        self._watch.off()
        if splits and loop is self._loop and self.watched[loop] >= BATCHES:
            self.end()

    def fetched(self, loop: Site, batch: Any, share: Share | None) -> None:
        """It got it."""
        if share is None:
            if loop is self._loop:
                self._watch.on()
            return
        full = [size for size in share.sizes if size]
        if len(full) < 2 or len(set(full)) == 1 or (self.watched[loop] >= BATCHES and loop is not self._loop):
            if loop is self._loop:
                self._watch.on()
            return
        self._loop = loop
        self.watched[loop] += 1
        self._batches += 1
        tensors: list[torch.Tensor] = []
        _collect(batch, tensors, DEEPEST)
        self._mixing.hand_out(map(self._watch.number, tensors), self._batches)
        self._watch.on()

    def left(self, loop: Site) -> None:
        """The loop has ended."""
        if loop is self._loop:
            self._watch.off()
            if self.watched[loop] >= BATCHES:
                self.end()

    def end(self) -> None:
        """Enough was seen."""
        self._watch.forget()
        self._mixing = Mixing()
        self._loop = None

    def paused(self) -> AbstractContextManager[None]:
        """What is done meanwhile is not the loop's."""
        return self._watch.paused()

    def same_as(self, output: torch.Tensor, given: torch.Tensor) -> None:
        """``output`` is made of the samples of ``given``, of all ranks where it takes more than each."""
        self._watch.same_as(output, given)

    def install(self, patches: Patches) -> None:
        """Do not watch optimizers, unless they call a closure of the cell."""

        def before(optimizer: Any, args: Any, kwargs: Any) -> None:
            if self._watch.is_on and not any(map(callable, (*args[1:], *kwargs.values()))):
                self._watch.off()
                self._in_step = True

        def after(optimizer: Any, args: Any, kwargs: Any) -> None:
            if self._in_step:
                self._in_step = False
                self._watch.on()

        patches.on_undo(register_optimizer_step_pre_hook(before).remove)
        patches.on_undo(register_optimizer_step_post_hook(after).remove)

    # -- before a backward

    def judge(self, roots: Sequence[torch.Tensor], shares: Sequence[Share]) -> NotSplittable | None:
        """What stands against splitting the loop whose losses are ``roots``. Collective; the others may find nothing."""
        ops = self._watch.take()
        data = b"" if self._watch.has_lost else packed([op.shapes for op in ops])
        told: list[bytes] = self._groups.exchange(data)
        ranks = [rank for rank in range(len(told)) if all(share.sizes[rank] for share in shares)]
        if not all(told):
            self.end()
            return None
        mine = self._groups.rank
        if mine not in ranks or len(ranks) < 2:
            return None
        logs = [unpacked(told[rank]) for rank in ranks]
        sizes = [[share.sizes[rank] for rank in ranks] for share in shares]
        self._mixing.read(
            ops,
            aligned([op.shapes for op in ops], logs),
            [s for s in sizes if len(set(s)) > 1],
            ranks.index(mine),
        )
        found = self._mixing.blame(map(self._watch.number, roots))
        return None if found is None else self._in_words(found)

    def _in_words(self, found: Offence) -> NotSplittable:
        where, text = self._sites.words(found.place)
        return not_splittable(where, f"`{text}` {found.why}" if text else found.why, found.fix)


def _collect(value: Any, into: list[torch.Tensor], depth: int) -> None:
    if isinstance(value, torch.Tensor):
        into.append(value)
    elif depth and len(into) < MOST_TENSORS:
        held: Sequence[Any] = ()
        if isinstance(value, dict):
            held = list(value.values())
        elif isinstance(value, (list, tuple)):
            held = value
        elif hasattr(value, "__dict__"):
            held = list(vars(value).values())
        for one in held[:MOST_TENSORS]:
            _collect(one, into, depth - 1)
