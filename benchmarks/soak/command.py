"""``python -m benchmarks soak``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from benchmarks.soak.campaigns import SHORT, Size, soak

HELP = "long campaigns of faults on a real kernel and cluster; writes docs/soak.md"


def add_to(parsers: Any) -> None:
    """Makes ``soak`` known to the command line."""
    usual = Size()
    one: argparse.ArgumentParser = parsers.add_parser("soak", help=HELP, description=HELP)
    for campaign, count in usual.counts().items():
        one.add_argument(
            f"--{campaign}", type=int, metavar="N", help=f"trials (default: {count}); 0: not this campaign"
        )
    one.add_argument("--only", choices=list(usual.counts()), help="this campaign and no other")
    one.add_argument("--short", action="store_true", help="a few of each, as in the tests; writes nothing")
    one.add_argument("--seed", type=int, default=0, help="of the random times (default: 0)")


def run(asked: argparse.Namespace) -> int:
    """Does what was asked for; the exit status says whether all that must hold held."""
    size = SHORT if asked.short else Size()
    counts = {name: getattr(asked, name) for name in size.counts() if getattr(asked, name) is not None}
    if asked.only is not None:
        counts = {
            name: counts.get(name, size.counts()[name]) * (name == asked.only) for name in size.counts()
        }
    size = replace(size, **counts)
    if asked.short:
        return 0 if soak(size, seed=asked.seed, docs=None) else 1
    return 0 if soak(size, seed=asked.seed) else 1
