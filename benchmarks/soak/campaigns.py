"""Runs campaigns, each with a kernel, a cluster and a home of its own, and says what came of them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.kernel import HOME, stop_clusters
from benchmarks.report import progress
from benchmarks.soak import cells, census, cycles, ends, interrupts, kills, machine, page, plain
from benchmarks.soak.claims import Claim
from benchmarks.soak.interrupts import wait_until
from benchmarks.soak.kernel import Patient
from benchmarks.soak.plain import plain_cluster

NANNY_SHARE = 4  #: of so many kills one is of a nanny
KILLED_PAUSE_S = 0.05  #: between two steps of a run that is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    interrupts: int = 60
    interrupted_s: float = 20.0  #: length of a run that is interrupted
    places: tuple[str, ...] = cells.PLACES
    kills: int = 60
    killed_epochs: int = 24  #: of a run that is killed: half a minute
    killed_until: float = 0.97  #: of its length
    ends: int = 12
    cycles: int = 200
    looks: int = 11

    def counts(self) -> dict[str, int]:
        """How many trials of each campaign."""
        return {
            "interrupts": self.interrupts,
            "kills": self.kills,
            "ends": self.ends,
            "cycles": self.cycles,
        }

    def details(self, campaign: str) -> dict[str, float]:
        """What else the trials of a campaign are like."""
        if campaign == "interrupts":
            return {"s a run": self.interrupted_s}
        return {"epochs a run": self.killed_epochs} if campaign == "kills" else {}


#: Of ``make test``.
SHORT = Size(
    interrupts=3,
    interrupted_s=2.0,
    places=("step", "loader", "C"),
    kills=1,
    killed_epochs=3,
    ends=0,
    cycles=4,
    looks=2,
)


class Place:
    """Where campaigns happen: a home, and a kernel in it from the first time it is asked for."""

    def __init__(self, home: Path, temporary: Path) -> None:
        self.home = home
        self.temporary = temporary  #: TMPDIR of everything that works there
        self._kernel: Patient | None = None

    def patient(self) -> Patient:
        """A kernel that has trained once, so that its cluster is there."""
        if self._kernel is None:
            self._kernel = opened(self.home)
            self._kernel.run(cells.NEXT.format(name="first"))
        return self._kernel

    def close(self) -> None:
        """End kernel and clusters."""
        if self._kernel is not None:
            self._kernel.close()
        stop_clusters(self.home)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A place with a home of its own; afterwards its files are gone too, and the environment is as it was."""
    top = Path(tempfile.mkdtemp(prefix="jt-soak-"))
    home, temporary = top / "home", top / "tmp"
    before = {name: os.environ.get(name) for name in (HOME, "TMPDIR")}
    for folder in (home, temporary):
        folder.mkdir(mode=0o700)
    os.environ[HOME], os.environ["TMPDIR"] = str(home), str(temporary)
    here = Place(home, temporary)
    try:
        yield here
    finally:
        here.close()
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(top, ignore_errors=True)


def opened(home: Path) -> Patient:
    """A kernel that is ready for the cells of the campaigns; the caller closes it."""
    kernel = Patient(home)
    kernel.run("%load_ext jupyter_train")
    kernel.run(cells.SETUP)
    return kernel


def _interrupts(here: Place, size: Size, seed: int) -> Iterator[Any]:
    yield from interrupts.campaign(
        here.patient(), size.interrupts, length_s=size.interrupted_s, seed=seed, places=size.places
    )


def _kills(here: Place, size: Size, seed: int) -> Iterator[Any]:
    nannies = size.kills // NANNY_SHARE
    campaign = partial(
        kills.campaign, epochs=size.killed_epochs, pause_s=KILLED_PAUSE_S, until=size.killed_until, seed=seed
    )
    yield from campaign(here.patient(), size.kills - nannies)
    if not nannies:
        return
    with (
        plain_cluster(here.home, here.home / "dask", size=3) as dask,
        contextlib.closing(opened(here.home)) as kernel,
    ):
        kernel.run(f"%train cluster use {dask.address}\n")
        wait_until(lambda: _trains(kernel), plain.START_S)
        # Those of the local cluster stay: it is there too, until it has nothing to do for long.
        warm = census.take(here.home).count("zygote")

        def mend() -> None:
            dask.fill()
            wait_until(lambda: census.take(here.home).count("zygote") >= warm, plain.START_S)

        yield from campaign(kernel, nannies, victims=("nanny",), find=lambda _: dask.nannies, mend=mend)


def _trains(kernel: Patient) -> bool:
    return not kernel.go(cells.NEXT.format(name="first")).error


def _ends(here: Place, size: Size, seed: int) -> Iterator[Any]:
    yield from ends.campaign(here.home, size.ends, seed=seed)


def _cycles(here: Place, size: Size, seed: int) -> Iterator[Any]:
    yield from cycles.campaign(
        here.patient(), size.cycles, folders=(here.temporary,), looks=size.looks, seed=seed
    )


CAMPAIGNS: Mapping[str, Callable[[Place, Size, int], Iterator[Any]]] = {
    "interrupts": _interrupts,
    "kills": _kills,
    "ends": _ends,
    "cycles": _cycles,
}


def run(campaign: str, here: Place, size: Size, *, seed: int) -> tuple[page.Record, list[Claim]]:
    """Does one campaign; gives its record and what is claimed of it."""
    on, begun = machine.describe(), time.monotonic()
    trials = page.as_records(CAMPAIGNS[campaign](here, size, seed))
    record = {
        "options": {campaign: size.counts()[campaign], **size.details(campaign)},
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
