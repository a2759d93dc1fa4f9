"""The campaigns of `make soak`, a few trials of each."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from benchmarks.soak.campaigns import SHORT, Place, place, run

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into other processes"),
]


@pytest.fixture(scope="module")
def here() -> Iterator[Place]:
    with place() as made:
        made.patient()  # here, since what a test starts must not outlive it
        yield made


@pytest.mark.timeout(180)
@pytest.mark.parametrize("campaign", [name for name, count in SHORT.counts().items() if count])
def test_what_must_hold_of_a_campaign_holds_of_a_short_one(campaign: str, here: Place) -> None:
    record, judged = run(campaign, here, SHORT, seed=0)
    assert record["trials"]
    # Times are those of a machine that has nothing else to do: the long campaign judges them.
    broken = [claim for claim in judged if not claim.holds and not claim.is_about_time]
    assert not broken, (broken, record["trials"])
