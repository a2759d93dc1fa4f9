"""Runs campaigns, each with a kernel, a cluster and a home of its own, and says what came of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kernel import HOME, stop_clusters
from benchmarks.report import progress
from benchmarks.soak import cells, cycles, interrupts, machine, page
from benchmarks.soak.claims import Claim
from benchmarks.soak.kernel import Patient


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    interrupts: int = 60
    interrupted_s: float = 20.0  #: length of a run that is interrupted
    places: tuple[str, ...] = cells.PLACES
    cycles: int = 200
    looks: int = 11

    def counts(self) -> dict[str, int]:
        """How many trials of each campaign."""
        return {"interrupts": self.interrupts, "cycles": self.cycles}


#: Of ``make test``.
SHORT = Size(interrupts=3, interrupted_s=2.0, places=("step", "loader", "C"), cycles=4, looks=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a campaign happens."""

    home: Path
    temporary: Path  #: TMPDIR of everything that works there


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A home for one campaign; afterwards its clusters and its files are gone, and the environment is as it was."""
    top = Path(tempfile.mkdtemp(prefix="jt-soak-"))
    home, temporary = top / "home", top / "tmp"
    before = {name: os.environ.get(name) for name in (HOME, "TMPDIR")}
    for folder in (home, temporary):
        folder.mkdir(mode=0o700)
    os.environ[HOME], os.environ["TMPDIR"] = str(home), str(temporary)
    try:
        yield Place(home=home, temporary=temporary)
    finally:
        stop_clusters(home)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(top, ignore_errors=True)


@contextlib.contextmanager
def patient(home: Path) -> Iterator[Patient]:
    """A kernel that has trained once, so that its cluster is there."""
    kernel = Patient(home)
    try:
        kernel.run("%load_ext jupyter_train")
        kernel.run(cells.SETUP)
        kernel.run(cells.NEXT.format(name="first"))
        yield kernel
    finally:
        kernel.close()


def _interrupts(here: Place, size: Size, seed: int) -> Iterator[Any]:
    with patient(here.home) as kernel:
        yield from interrupts.campaign(
            kernel, size.interrupts, length_s=size.interrupted_s, seed=seed, places=size.places
        )


def _cycles(here: Place, size: Size, seed: int) -> Iterator[Any]:
    with patient(here.home) as kernel:
        yield from cycles.campaign(
            kernel, size.cycles, folders=(here.temporary,), looks=size.looks, seed=seed
        )


CAMPAIGNS: Mapping[str, Callable[[Place, Size, int], Iterator[Any]]] = {
    "interrupts": _interrupts,
    "cycles": _cycles,
}


def run(campaign: str, here: Place, size: Size, *, seed: int) -> tuple[page.Record, list[Claim]]:
    """Does one campaign; gives its record and what is claimed of it."""
    on, begun = machine.describe(), time.monotonic()
    trials = page.as_records(CAMPAIGNS[campaign](here, size, seed))
    record = {
        "options": {campaign: size.counts()[campaign]},
        "machine": on,
        "seed": seed,
        "took_s": round(time.monotonic() - begun, 1),
        "trials": trials,
    }
    judged = page.judge(campaign, trials)
    for claim in judged:
        progress(f"{'ok    ' if claim.holds else 'FAILED'}  {campaign}: {claim.text}: {claim.found}")
    return record, judged


def soak(size: Size, *, seed: int = 0, docs: Path | None = page.DOCS) -> bool:
    """All campaigns with trials to do, each in a place of its own; whether everything held.

    Each is written down below ``docs`` as soon as it has ended.
    """
    holds = True
    for campaign, count in size.counts().items():
        if not count:
            continue
        with place() as here:
            record, judged = run(campaign, here, size, seed=seed)
        if docs is not None:
            page.save(campaign, record, docs)
        holds = holds and all(claim.holds for claim in judged)
    return holds
