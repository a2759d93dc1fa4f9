"""How much one rank's loss counts, agreed with the others before its backward starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from jupyter_train.runtime.parallel.errors import NotSplittable, not_splittable
from jupyter_train.runtime.parallel.groups import Groups
from jupyter_train.runtime.parallel.laws import (
    Law,
    Profile,
    amounts,
    expected,
    factors,
    in_proportion,
    scales_agree,
    settle,
)
from jupyter_train.runtime.parallel.loss import Part, Reading, refusal
from jupyter_train.runtime.parallel.remarks import Remarks
from jupyter_train.runtime.parallel.shares import Share
from jupyter_train.runtime.parallel.sites import Site
from jupyter_train.runtime.parallel.walking import walk

_SCALED = (
    "is scaled by a quantity of the batch, which differs between shares",
    "It is split where that is one number for the whole data set",
)
_PAIRS = (
    "compares the samples of a batch with each other",
    "It is split where a sample is compared with nothing but what lies beside the batch",
)


@dataclass(slots=True)
class Weights:
    """What is done to one backward so that the average of the ranks' gradients is that of one process."""

    digest: int = 0  #: of the loss's structure, compared between ranks
    root: float = 1.0  #: factor of the whole loss
    nodes: list[tuple[Any, float]] = field(default_factory=list)  #: factors of single terms
    value: float = 1.0  #: the global loss is the sum of ``value`` times each rank's loss
    is_estimate: bool = (
        False  #: as far as that can be told: its terms count differently, and only their sum is known
    )
    amount: float = 0.0  #: what was supposed of this rank, to be checked by all afterwards
    law: Law | None = None  #: what the check goes by; None: exact already


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What one rank read in its loss."""

    refusal: tuple[str, str] | None = None  #: why, and what would help
    digest: int = 0
    amounts: list[float] = field(default_factory=list)
    scales: list[float] = field(default_factory=list)
    doubt: tuple[str, str] | None = None
    judged: frozenset[tuple[int, ...]] = frozenset()
    pairs: frozenset[tuple[int, int]] = frozenset()
    visits: tuple[tuple[str, Part], ...] = ()
    has_weights: bool = False


class Weigher:
    """Knows the losses of all lines. Main thread of a rank; a line's first loss is read together with the other ranks."""

    def __init__(
        self,
        *,
        groups: Groups,
        remarks: Remarks,
        is_weight: Callable[[torch.Tensor], bool],
        ask_uneven: Callable[[], None],
    ) -> None:
        self._groups = groups
        self._remarks = remarks
        self._is_weight = is_weight
        self._ask_uneven = ask_uneven
        self.profiles: dict[Site, list[Profile]] = {}  #: what is known of the losses of each line

    def read(self, site: Site, root: torch.Tensor) -> tuple[Profile, Reading] | None:
        """What is known of the loss ``root`` of that line; None where it has to be studied first."""
        node = root.grad_fn
        for profile in self.profiles.get(site, ()):
            reading = walk(node, guide=profile.reading, is_weight=self._is_weight)
            if reading is not None and profile.is_settled:
                return profile, reading
        return None

    def study(
        self, site: Site, root: torch.Tensor, share: Share, batch_sizes: Sequence[int]
    ) -> tuple[Profile, Reading]:
        """Read the loss ``root`` for the first time, together with the other ranks. Collective.

        Args:
            batch_sizes: this rank's samples in each open pass.

        Raises:
            NotSplittable: it cannot be put together from shares.
        """
        reading, told = self._read_together(site, root, share, batch_sizes)
        full = [theirs for theirs, size in zip(told, share.sizes, strict=True) if size]
        doubt = full[0].doubt
        if doubt is not None and all(theirs.doubt for theirs in full):
            raise refusal(str(site), *doubt)
        uneven = len({size for size in share.sizes if size}) > 1
        if uneven and frozenset.intersection(*(theirs.pairs for theirs in full)):
            raise refusal(str(site), *_PAIRS)
        if not scales_agree([theirs.scales for theirs in told], share.sizes):
            raise refusal(str(site), *_SCALED)
        profile = settle(reading, [theirs.amounts for theirs in told], share.sizes)
        self._say_what_is_supposed(site, profile)
        self._keep(site, profile)
        if not profile.is_settled:
            self._ask_uneven()
        return profile, reading

    def _read_together(
        self, site: Site, root: torch.Tensor, share: Share, batch_sizes: Sequence[int]
    ) -> tuple[Reading, list[_Told]]:
        """Shapes that are the same on ranks with different shares have no batch in them: read again without those."""
        fixed: set[tuple[int, ...]] = set()
        full = [rank for rank, size in enumerate(share.sizes) if size]
        uneven = len({share.sizes[rank] for rank in full}) > 1
        while True:
            reading: Reading | None = None
            mine = _Told()
            try:
                reading = walk(
                    root.grad_fn,
                    guide=None,
                    batch_sizes=batch_sizes,
                    fixed=fixed,
                    where=str(site),
                    is_weight=self._is_weight,
                )
            except NotSplittable as error:
                mine = _Told(refusal=(error.why.removeprefix(f"{site}: "), error.fix))
            if reading is not None:
                mine = _Told(
                    digest=reading.digest,
                    amounts=amounts(reading, share=share.mine, is_empty=share.is_empty),
                    scales=_scales(reading),
                    doubt=reading.doubt,
                    judged=reading.judged,
                    pairs=reading.pairs,
                    visits=reading.visits,
                    has_weights=reading.has_weights,
                )
            told: list[_Told] = self._groups.exchange(mine)
            alike = frozenset.intersection(*(told[rank].judged for rank in full)) if uneven else frozenset()
            if alike - fixed:
                fixed |= alike
                continue
            if reading is not None and all(theirs.digest == reading.digest for theirs in told):
                return reading, told
            return self._read_as_the_largest(site, root, share, told)

    def _read_as_the_largest(
        self, site: Site, root: torch.Tensor, share: Share, told: list[_Told]
    ) -> tuple[Reading, list[_Told]]:
        """A share of one sample shows less than a larger one: its batch may have no dimension left.

        Where the ranks read differently, all go by what the largest share saw,
        as long as their graphs have the same nodes.
        """
        largest = told[max(range(len(told)), key=lambda rank: (share.sizes[rank], -rank))]
        if largest.refusal is not None:
            why, fix = largest.refusal
            raise not_splittable(str(site), why, fix)
        guide = Reading(
            terms=(), visits=largest.visits, has_weights=largest.has_weights, digest=largest.digest
        )
        reading = walk(root.grad_fn, guide=guide, where=str(site), is_weight=self._is_weight)
        mine = _Told()
        if reading is not None:
            mine = _Told(
                digest=reading.digest,
                amounts=amounts(reading, share=share.mine, is_empty=share.is_empty),
                scales=_scales(reading),
                doubt=told[share.rank].doubt,
            )
        told = self._groups.exchange(mine)
        if reading is None or any(theirs.digest != guide.digest for theirs in told):
            raise refusal(str(site), "is made of different terms on different ranks")
        return reading, told

    def _keep(self, site: Site, profile: Profile) -> None:
        known = self.profiles.setdefault(site, [])
        known[:] = [one for one in known if one.reading.digest != profile.reading.digest]
        known.insert(0, profile)

    def _say_what_is_supposed(self, site: Site, profile: Profile) -> None:
        for term in profile.reading.terms:
            if term.part is Part.OPAQUE:
                self._remarks.say(
                    f"{site}: the loss comes out of {term.node.name()}, which cannot be looked into; "
                    "ranks are weighted by their number of samples"
                )
            if term.part is Part.SUM and term.by_tensor:
                self._remarks.say(
                    f"{site}: the loss is divided by a tensor, taken to be a sum over the batch"
                )

    def weigh(
        self, site: Site, profile: Profile, reading: Reading, share: Share, *, exactly: bool
    ) -> Weights:
        """The factors of this backward.

        Args:
            exactly: ask the other ranks instead of supposing that their amounts
                are in proportion to their shares (one all-gather).

        Raises:
            NotSplittable: what multiplies a term differs between the ranks.
        """
        rank, sizes = share.rank, share.sizes
        if not reading.terms:
            return Weights(digest=reading.digest, value=1.0 / len(sizes))
        raw = amounts(reading, share=share.mine or 1, is_empty=False)
        if not exactly and len(raw) == 1 and share.is_even and profile.laws[0] is Law.SHARE:
            weights = Weights(digest=reading.digest, value=1.0 / len(sizes))  # by far the most frequent
        else:
            if exactly:
                rows = self._ask(site, reading, [0.0] * len(raw) if share.is_empty else raw, share)
            else:
                rows = expected(profile, raw, sizes, rank)
            weights = _weights(reading, factors(profile, rows, sizes, rank), share)
        if not exactly and len(raw) == 1:
            weights.law = profile.laws[0]
            weights.amount = 0.0 if share.is_empty else raw[0]
        return weights

    def _ask(self, site: Site, reading: Reading, mine: list[float], share: Share) -> list[list[float]]:
        """Everybody's amounts, by rank."""
        told = self._groups.all_gather(torch.tensor(mine + _scales(reading), dtype=torch.float64)).tolist()
        if not scales_agree([row[len(mine) :] for row in told], share.sizes):
            raise refusal(str(site), *_SCALED)
        return [row[: len(mine)] for row in told]

    def distrust(self, site: Site, digest: int) -> None:
        """The supposition was wrong: from now on the ranks ask each other."""
        for profile in self.profiles.get(site, ()):
            if profile.reading.digest == digest:
                profile.needs_exchange = True


def _scales(reading: Reading) -> list[float]:
    return [one.scale for one in reading.terms]


def _weights(reading: Reading, values: list[float], share: Share) -> Weights:
    ranks = len(share.sizes)
    part = share.mine / share.total
    by_share = all(abs(value - ranks * part) <= 1e-12 * ranks for value in values)
    alike = all(value == values[0] for value in values)
    weights = Weights(digest=reading.digest)
    if by_share:
        weights.value = part
    elif alike:
        weights.value = values[0] / ranks
        weights.is_estimate = reading.has_weights
    else:
        weights.value = part
        weights.is_estimate = True
    if alike and not reading.has_weights and values[0] != 0.0:
        weights.root = values[0]
    else:
        weights.nodes = [
            (term.node, value) for term, value in zip(reading.terms, values, strict=True) if value != 1.0
        ]
    return weights


def corrected(supposed: Weights, law: Law, told: Sequence[float], share: Share) -> float | None:
    """By what this rank's gradients must be multiplied, now that all amounts are known; None where all was right.

    The same answer (None or not) on every rank.
    """
    if in_proportion(told, law, share.sizes):
        return None
    ranks, rank = len(share.sizes), share.rank
    used = supposed.root if not supposed.nodes else supposed.nodes[0][1]
    total = sum(told)
    # A sum whose divisor differs between the ranks is no plain sum: its divisor is one of shares.
    exact = ranks * told[rank] / total if total else 1.0
    return exact / used if used else 0.0
