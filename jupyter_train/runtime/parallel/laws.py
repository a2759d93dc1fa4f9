"""What the ranks' readings of a loss say together, and the factors that follow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from jupyter_train.runtime.parallel.loss import Part, Reading

APART = 1e-5  #: relative; more than threads that add in another order make of a loss in float32


class Law(IntEnum):
    """How the amounts of a term go together over the ranks."""

    SHARE = 0  #: factor N·d_r/Σd
    WHOLE = 1  #: a sum, divided by nothing or by the same number everywhere: factor N


@dataclass(slots=True)
class Profile:
    """What is known of the loss of one line, agreed between the ranks."""

    reading: Reading
    laws: tuple[Law, ...]
    is_settled: bool  #: learned on uneven shares, so that constants and sizes could be told apart
    needs_exchange: bool  #: factors depend on what other ranks see: exchange before each backward


def amounts(reading: Reading, *, share: int, is_empty: bool) -> list[float]:
    """This rank's amount of each term: 0 where its share counts nothing; a sum without divisor has 1."""
    out = []
    for term in reading.terms:
        if is_empty:
            out.append(0.0)
        elif term.part is Part.OPAQUE:
            out.append(float(share))
        elif term.part is Part.SUM:
            out.append(1.0 if term.amount is None else term.amount)
        else:
            assert term.amount is not None
            out.append(term.amount)
    return out


def lie_apart(losses: Sequence[float]) -> bool:
    """Whether a loss that every rank computes whole is not the same on all, by more than rounding; NaN is taken to be."""
    return bool(losses) and max(losses) - min(losses) > APART * max(map(abs, losses))


def scales_agree(rows: Sequence[Sequence[float]], sizes: Sequence[int]) -> bool:
    """Whether what multiplies the terms (``rows``, by rank) is the same on all ranks that have samples."""
    full = [row for row, size in zip(rows, sizes, strict=True) if size]
    return all(_alike(column) for column in zip(*full, strict=True))


def settle(reading: Reading, rows: Sequence[Sequence[float]], sizes: Sequence[int]) -> Profile:
    """What the amounts of all ranks (``rows``, by rank) say about each term."""
    full = [r for r, size in enumerate(sizes) if size]
    uneven = len({sizes[r] for r in full}) > 1
    laws = []
    regular = True
    for number, term in enumerate(reading.terms):
        values = [rows[r][number] for r in full]
        per_sample = [rows[r][number] / sizes[r] for r in full]
        if term.part is Part.SUM:
            constant = _alike(values)
            whole = constant and (uneven or term.amount is None or not float(per_sample[0]).is_integer())
            laws.append(Law.WHOLE if whole else Law.SHARE)
            regular = regular and (whole or _alike(per_sample))
        else:
            laws.append(Law.SHARE)
            regular = regular and _alike(per_sample)
        regular = regular and not term.by_tensor
    single = len(reading.terms) <= 1
    constants = all(
        term.part is Part.SUM and law is Law.WHOLE for term, law in zip(reading.terms, laws, strict=True)
    )
    return Profile(
        reading=reading,
        laws=tuple(laws),
        is_settled=uneven or not reading.terms or all(t.part is not Part.SUM for t in reading.terms),
        needs_exchange=not (regular and (single or constants)),
    )


def factors(
    profile: Profile, rows: Sequence[Sequence[float]], sizes: Sequence[int], rank: int
) -> list[float]:
    """The factor of each term on ``rank`` that makes the average over the ranks the value of one process."""
    ranks = len(sizes)
    out = []
    for number, law in enumerate(profile.laws):
        if law is Law.WHOLE:
            out.append(float(ranks) if sizes[rank] else 0.0)
            continue
        total = sum(row[number] for row in rows)
        out.append(ranks * rows[rank][number] / total if total else 1.0)
    return out


def expected(profile: Profile, mine: Sequence[float], sizes: Sequence[int], rank: int) -> list[list[float]]:
    """What the other ranks' amounts are if they are in proportion to their shares."""
    own = sizes[rank] or 1
    rows = []
    for size in sizes:
        rows.append(
            [
                (value if size else 0.0) if law is Law.WHOLE else value * size / own
                for law, value in zip(profile.laws, mine, strict=True)
            ]
        )
    return rows


def in_proportion(values: Sequence[float], law: Law, sizes: Sequence[int]) -> bool:
    """Whether the amounts of one term are what ``expected`` said; the same answer on every rank."""
    full = [r for r, size in enumerate(sizes) if size]
    return _alike([values[r] if law is Law.WHOLE else values[r] / sizes[r] for r in full])


def _alike(values: Sequence[float]) -> bool:
    low, high = min(values), max(values)
    return high == low or high - low <= 1e-6 * max(abs(low), abs(high))
