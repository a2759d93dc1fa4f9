"""From two recordings to a verdict: what the ranks did, what one process did alone. Pure.

What is equal in exact numbers differs by rounding, since sums over shares are
added in another order. How much that may be depends on the type that was computed
in, and grows from step to step: an optimizer such as Adam makes a full step of a
gradient that is zero but for rounding. So the first step is held to a narrow limit
and the later ones to a wide one; the faults that are looked for change gradients by
a tenth or more. Running statistics are compared behind the first step alone: the
bias in front of a BatchNorm has gradients that are all rounding, and its mean follows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jupyter_train.record.proof import Proof, Verdict, power, unchecked
from jupyter_train.runtime.proof.recording import Recording, Sample, Step

#: Of types, the limits for the first step and for later ones, relative. What rounding makes of a mean over a batch is
#: some 1e-7 in float32 (24 bits) and 1e-16 in float64; a convolution's weights sum over all pixels as well.
LIMITS = {"float64": (1e-8, 1e-5), "float32": (1e-3, 3e-2), "coarse": (0.1, 0.3)}
#: Below this part of the largest gradient of a step a parameter's own gradients are taken for rounding: those of a
#: bias in front of a BatchNorm are zero but for it.
FLOOR = 0.02
ALIGNED = 0.999  #: cosine from which two gradients are multiples of each other
RANDOM_RATIOS = (0.2, 5.0)  #: of norms, beyond which random numbers explain no difference
NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gap:
    """How far one thing is off."""

    name: str
    difference: float
    ratio: float | None  #: ranks to one process, where one is a multiple of the other


def judge(ours: Recording, alone: Recording, *, ranks: int) -> Proof:
    """What the recordings of rank 0 and of one process say about a run on ``ranks`` ranks."""
    pairs = list(zip(ours.steps, alone.steps, strict=False))
    if not pairs:
        return unchecked("nothing was recorded")
    first = pairs[0]
    common = first[0].gradients.keys() & first[1].gradients.keys()
    if not common:
        return unchecked("no parameter of the ranks was found again in one process")
    if (start := _start(*first)) is not None:
        return start
    if alone.draws:
        return _by_chance(*first, draws=alone.draws)
    return _exactly(pairs, ours, alone, ranks=ranks)


def _start(mine: Step, theirs: Step) -> Proof | None:
    """The verdict where the two did not begin alike."""
    if mine.place != theirs.place:
        cause = f"the ranks are at {mine.place} where one process is at {theirs.place}"
        return _differs(None, None, cause, 1)
    gaps = list(_gaps(mine.weights, theirs.weights, floor=0.0))
    off = [gap for gap in gaps if gap.difference > 1e-6]
    if not off:
        return None
    cause = (
        f"the start differs: {_names(off)} had other weights before the first step (random numbers that no seed "
        "fixes, or something read from outside)"
    )
    return _differs(_worst(off), None, cause, 1)


def _by_chance(mine: Step, theirs: Step, *, draws: Sequence[str]) -> Proof:
    """The loop draws random numbers, of which each rank has its own: only gross faults can be seen."""
    ratio = _norm(mine.gradients) / (_norm(theirs.gradients) or math.nan)
    what = " and ".join(draws)
    if math.isfinite(ratio) and not RANDOM_RATIOS[0] < ratio < RANDOM_RATIOS[1]:
        cause = f"gradients are {ratio:.2g}× as large, more than the random numbers of {what} explain"
        return _differs(None, ratio, cause, 1)
    text = (
        f"same as one process up to the random numbers that {what} draws: each rank has its own, so that only "
        f"the size of the gradients could be compared ({ratio:.2g}×)"
    )
    return Proof(verdict=Verdict.RANDOM, text=text, ratio=ratio, steps=1)


def _exactly(pairs: Sequence[tuple[Step, Step]], ours: Recording, alone: Recording, *, ranks: int) -> Proof:
    largest = 0.0
    compared = 0
    known = pairs[0][0].weights.keys() & pairs[0][1].weights.keys()
    loudest = max((abs(step.loss or 0.0) for step in alone.steps if _is_finite(step.loss)), default=0.0)
    for number, (mine, theirs) in enumerate(pairs):
        if mine.place != theirs.place:
            cause = (
                f"after {number} steps the ranks are at {mine.place} where one process is at {theirs.place}"
            )
            return _differs(largest, None, cause, number + 1)
        limit = _limit(theirs, alone.coarse, first=number == 0)
        loss = _loss_gap(mine, theirs, loudest)
        gradients = list(_gaps(mine.gradients, theirs.gradients, floor=FLOOR))
        missing = sorted((mine.gradients.keys() ^ theirs.gradients.keys()) & known)
        buffers = list(_gaps(mine.buffers, theirs.buffers, floor=FLOOR)) if number == 0 else []
        worst = max([loss, _worst(gradients), _worst(buffers)])
        if worst > limit or missing:
            cause, ratio = _cause(loss, gradients, buffers, missing, limit=limit, ranks=ranks, step=number)
            return _differs(worst, ratio, cause, number + 1)
        largest = max(largest, worst)
        compared = max(compared, len(gradients))
    if len(ours.steps) != len(alone.steps):
        cause = (
            f"the ranks call backward {len(ours.steps)} times where one process does {len(alone.steps)} times"
        )
        return _differs(largest, None, cause, len(pairs))
    rest = ours.nameless + max(len(step.gradients) for step in ours.steps) - compared
    part = f", {compared} of {compared + rest} parameters" if rest else ""
    steps = f"{len(pairs)} steps" if len(pairs) > 1 else "1 step"
    text = f"same as one process ({power(largest)}{part}): loss and gradients of the first {steps}"
    return Proof(verdict=Verdict.SAME, text=text, difference=largest, steps=len(pairs))


def _cause(
    loss: float,
    gradients: Sequence[_Gap],
    buffers: Sequence[_Gap],
    missing: Sequence[str],
    *,
    limit: float,
    ranks: int,
    step: int,
) -> tuple[str, float | None]:
    """What probably made the difference, and the ratio that all gradients have."""
    off = [gap for gap in gradients if gap.difference > limit]
    if missing:
        return f"{_listed(missing)} has gradients on the ranks or in one process alone", None
    if not off:
        behind = [gap for gap in buffers if gap.difference > limit]
        if behind and loss <= limit:
            return f"{_names(behind)}: statistics of a batch that are not those of the whole batch", None
        return f"the loss differs at step {step + 1} while its gradients are the same", None
    ratio = _common(off)
    if ratio is not None and len(off) == len([gap for gap in gradients if gap.ratio is not None]):
        return _scaled(ratio, ranks), ratio
    if len(off) < len(gradients) // 2 + 1 and loss <= limit:
        more = f", {ratio:.3g}× as large" if ratio is not None else ""
        return f"one group of parameters has other gradients{more}: {_names(off)}", ratio
    if loss > limit and step == 0:
        return "the losses differ from the first step: other samples, or samples that count otherwise", ratio
    if step == 0:
        return "the loss is the same and its gradients are not: they are not averaged over the ranks", ratio
    return f"the first {step} steps are the same; then other gradients come than belong to the batch", ratio


def _scaled(ratio: float, ranks: int) -> str:
    if abs(ratio * ranks - 1) < 0.05:
        return f"all gradients are {ratio:.3g}×: averaged twice, or a sum loss divided twice?"
    if abs(ratio / ranks - 1) < 0.05:
        return f"all gradients are {ratio:.3g}×: added over the ranks instead of averaged, or a sum loss?"
    return f"all gradients are {ratio:.3g}×: samples count otherwise than in one process"


def _gaps(mine: Mapping[str, Sample], theirs: Mapping[str, Sample], *, floor: float) -> Iterator[_Gap]:
    """How far what both have is off, relative to its own largest entry, and at least to ``floor`` of the largest of all.

    Of other shapes in both are plain tensors made for a batch: they are left out.
    """
    common = [name for name in theirs if name in mine and mine[name].shape == theirs[name].shape]
    loudest = max((_top(theirs[name].values) for name in common), default=0.0)
    for name in common:
        a, b = mine[name], theirs[name]
        scale = max(_top(b.values), floor * loudest) or max(_top(a.values), 1e-30)
        both = np.isfinite(a.values) & np.isfinite(b.values)
        if not np.array_equal(np.isfinite(a.values), np.isfinite(b.values)):
            yield _Gap(name=name, difference=1.0, ratio=None)
            continue
        x, y = a.values[both].astype(np.float64), b.values[both].astype(np.float64)
        difference = float(np.abs(x - y).max(initial=0.0)) / scale
        if math.isfinite(a.norm) and math.isfinite(b.norm):  # what lies between the entries that were kept
            difference = max(difference, abs(a.norm - b.norm) / max(b.norm, scale))
        yield _Gap(name=name, difference=difference, ratio=_ratio(x, y, scale))


def _ratio(x: NDArray[np.float64], y: NDArray[np.float64], scale: float) -> float | None:
    """How many times ``y`` is ``x``; None where it is no multiple of it, or next to nothing."""
    xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
    if not xx or not yy or np.abs(y).max(initial=0.0) < 1e-3 * scale or xy < ALIGNED * math.sqrt(xx * yy):
        return None
    return xy / yy


def _common(gaps: Sequence[_Gap]) -> float | None:
    """The ratio that all have."""
    ratios = [gap.ratio for gap in gaps if gap.ratio is not None]
    if not ratios or max(ratios) > 1.02 * min(ratios):
        return None
    return float(np.median(ratios))


def _limit(step: Step, coarse: str, *, first: bool) -> float:
    types = {sample.dtype for sample in step.gradients.values()}
    kind = "float64" if types == {"float64"} else "float32"
    if coarse or types & {"float16", "bfloat16"}:
        kind = "coarse"
    return LIMITS[kind][0 if first else 1]


def _loss_gap(mine: Step, theirs: Step, loudest: float) -> float:
    if mine.loss is None or theirs.loss is None:
        return 0.0
    if not _is_finite(mine.loss) or not _is_finite(theirs.loss):
        return 0.0 if _is_finite(mine.loss) == _is_finite(theirs.loss) else 1.0
    scale = max(abs(mine.loss), abs(theirs.loss), FLOOR * loudest)
    return abs(mine.loss - theirs.loss) / scale if scale else 0.0


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _norm(samples: Mapping[str, Sample]) -> float:
    return math.sqrt(sum(sample.norm**2 for sample in samples.values()))


def _top(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.abs(finite).max(initial=0.0))


def _worst(gaps: Sequence[_Gap]) -> float:
    return max((gap.difference for gap in gaps), default=0.0)


def _names(gaps: Sequence[_Gap]) -> str:
    worst = sorted(gaps, key=lambda gap: -gap.difference)
    return _listed([gap.name for gap in worst])


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _differs(difference: float | None, ratio: float | None, cause: str, steps: int) -> Proof:
    size = "" if difference is None else f" ({power(difference)})"
    return Proof(
        verdict=Verdict.DIFFERS,
        text=f"differs from one process{size}: {cause}",
        difference=difference,
        ratio=ratio,
        cause=cause,
        steps=steps,
    )
