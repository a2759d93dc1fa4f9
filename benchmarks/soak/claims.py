"""What must hold of a campaign, judged trial by trial. Pure: what happened in, claims out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from benchmarks.soak.cells import PLACES_WITH_STEPS
from benchmarks.soak.cycles import Cycle, Look
from benchmarks.soak.ends import LOST_WITHIN_S, Left
from benchmarks.soak.interrupts import Interrupted
from benchmarks.soak.kills import Killed
from jupyter_train.runtime.escalation import STOP_RAISE_S

GRACEFUL_S = 5.0
FORCED_P95_S = 1.0
DETECTED_S = 2.0
AGAIN_P95_S = 10.0
#: Of private memory, per cycle, between the middle of a campaign and its end: less is what allocators do by themselves.
GROWTH_BYTES = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One line of a verdict."""

    text: str
    found: str
    holds: bool
    is_about_time: bool = False  #: a busy machine may break it


def percentile(values: Sequence[float], q: float) -> float:
    """The ``q``-th percentile (linear between neighbours); 0 of nothing."""
    return float(np.percentile(values, q)) if len(values) else 0.0


def _all(text: str, good: Iterable[bool]) -> Claim:
    outcomes = list(good)
    return Claim(text=text, found=f"{sum(outcomes)} of {len(outcomes)}", holds=all(outcomes))


def _times(text: str, values: Sequence[float], limit: float, q: float) -> Claim:
    found = percentile(values, q)
    spread = f"median {percentile(values, 50):.2f} s, " if len(values) else ""
    word = "longest" if q == 100 else f"p{q:g}"
    return Claim(
        text=text,
        found=f"{spread}{word} {found:.2f} s of {len(values)}",
        holds=found <= limit,
        is_about_time=True,
    )


def of_interrupts(trials: Sequence[Interrupted]) -> list[Claim]:
    """The promises about interrupts."""
    in_time = [t for t in trials if not t.was_over]
    graceful = [t.graceful_s for t in in_time if t.graceful_s is not None]
    forced = [t.forced_s for t in in_time if t.forced_s is not None]
    stepping = [t for t in in_time if _reached_a_step(t)]
    return [
        _all(
            "interrupted runs end as CANCELLED, their cells with KeyboardInterrupt",
            ((t.state in ("CANCELLED", "")) and t.error == "KeyboardInterrupt" for t in in_time),
        ),
        _times(f"one interrupt ends the cell within {GRACEFUL_S:g} s", graceful, GRACEFUL_S, 100),
        _times(f"a second one ends it within {FORCED_P95_S:g} s (p95)", forced, FORCED_P95_S, 95),
        _all(
            "ranks that all reach a step have stopped after the same one", (_agree(t.steps) for t in stepping)
        ),
        _all(
            "and the kernel has the names as they were then",
            (t.steps_in_kernel == t.steps[0] for t in stepping if _agree(t.steps)),
        ),
        _all("no process of the run is left", (t.left == 0 for t in trials)),
        _all("the next run starts and is right", (t.next_ok for t in trials)),
        _all("variables that the cell does not name are as they were", (t.intact for t in trials)),
    ]


def _reached_a_step(trial: Interrupted) -> bool:
    """All ranks came to a step before they would have been told to stop wherever they are."""
    in_time = trial.graceful_s is not None and trial.graceful_s < STOP_RAISE_S
    return in_time and trial.place in PLACES_WITH_STEPS and len(trial.steps) > 1


def _agree(steps: Sequence[int]) -> bool:
    return len(set(steps)) == 1


def of_kills(trials: Sequence[Killed]) -> list[Claim]:
    """The promises about what is killed under ``--retries``."""
    in_time = [t for t in trials if not t.was_over]
    resumed = [t for t in in_time if t.resumed_at is not None]
    return [
        _times(
            f"the loss is on record within {DETECTED_S:g} s",
            [t.detected_s for t in in_time if t.detected_s is not None],
            DETECTED_S,
            100,
        ),
        _times(
            f"all ranks have done a step again within {AGAIN_P95_S:g} s (p95)",
            [t.again_s for t in in_time if t.again_s is not None],
            AGAIN_P95_S,
            95,
        ),
        _all("each run has succeeded, by one more attempt", (_went_on(t) for t in in_time)),
        _all("its weights are those of an undisturbed run, to the bit", (t.same_weights for t in trials)),
        _all("each sample counts once in each epoch", (t.complete for t in trials)),
        _all(
            "it went on from the newest checkpoint that all ranks had written",
            (t.resumed_at == t.newest for t in in_time),
        ),
        _all(
            "no more steps were repeated than had been done since",
            (t.repeated == t.done - (t.resumed_at or 0) for t in resumed),
        ),
        _all("no process of the run is left", (t.left == 0 for t in trials)),
    ]


def _went_on(trial: Killed) -> bool:
    return trial.state == "SUCCEEDED" and trial.attempts == 2


def of_ends(trials: Sequence[Left]) -> list[Claim]:
    """The promises about kernels, servers and schedulers that die."""
    survived = [t for t in trials if t.lost_s is None]
    lost = [t for t in trials if t.lost_s is not None]
    return [
        _all(
            "runs outlive kernel, server and both: they succeed",
            (t.state == "SUCCEEDED" for t in survived),
        ),
        _all("every value they logged is on record", (t.values == t.values_expected for t in survived)),
        _all("every line they wrote is on record", (t.lines == t.lines_expected for t in survived)),
        _times(
            f"without its scheduler a run is LOST for its readers within {LOST_WITHIN_S:g} s",
            [t.lost_s for t in lost if t.lost_s is not None],
            LOST_WITHIN_S,
            100,
        ),
        _all("and they say so", (t.state == "LOST" for t in lost)),
        _all("nothing is on record that was not logged or written", (t.wrong == 0 for t in trials)),
        _all(
            "`--resume` goes on from the newest checkpoint, and succeeds",
            (t.resumed == "SUCCEEDED" and t.resumed_at == (t.resumed_from or 0) for t in lost),
        ),
        _all("with the weights of an undisturbed run, to the bit", (t.same_weights is True for t in lost)),
        _all("no process of a run is left", (t.left == 0 for t in trials)),
    ]


def of_cycles(cycles: Sequence[Cycle], looks: Sequence[Look]) -> list[Claim]:
    """The promises about what many short runs leave behind."""
    first, last = looks[0], looks[-1]
    left = set(last.files) - set(first.files)
    claims = [
        _all("each cycle ends as its kind ends", (c.is_as_expected for c in cycles)),
        _same("processes", first.roles, last.roles),
        _same("zombies", {"": first.zombies}, {"": last.zombies}),
        _same("sockets", first.sockets, last.sockets),
        _same("descriptors", first.descriptors, last.descriptors),
        Claim(text="no temporary file is left", found=str(len(left)), holds=not left),
    ]
    for role, per_cycle in growth(looks).items():
        claims.append(
            Claim(
                text=f"memory of {role}: grows by less than {GROWTH_BYTES / 1000:g} kB per cycle once half are done",
                found=f"{per_cycle / 1000:+.1f} kB",
                holds=per_cycle < GROWTH_BYTES,
            )
        )
    return claims


def _same(what: str, before: dict[str, int], after: dict[str, int]) -> Claim:
    more = {role: n - before.get(role, 0) for role, n in after.items() if n > before.get(role, 0)}
    found = ", ".join(f"{role} +{n}" for role, n in more.items()) or f"{sum(after.values())}"
    return Claim(text=f"no more {what} than before", found=found, holds=not more)


def growth(looks: Sequence[Look]) -> dict[str, float]:
    """Private bytes per cycle of each kind of process in the second half of the looks: the median of all slopes (Theil and Sen).

    In the first half caches of a fixed size fill; a single step, as an allocator takes it, is no growth. Fewer
    than three looks in the second half tell nothing.
    """
    late = [look for look in looks if look.cycles >= looks[-1].cycles / 2]
    if len(late) < 3:
        return {}
    roles = sorted(set.intersection(*(set(look.private_bytes) for look in late)))
    return {
        role: float(
            np.median(
                [
                    (b.private_bytes[role] - a.private_bytes[role]) / (b.cycles - a.cycles)
                    for a, b in combinations(late, 2)
                ]
            )
        )
        for role in roles
    }
