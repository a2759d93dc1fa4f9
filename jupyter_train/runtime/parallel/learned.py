"""What a rank has learned about the lines of a cell, in a form that another attempt can go on with.

A line is told by its code and instruction, which are the same wherever the
same cell runs. What is not known there any more is learned anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jupyter_train.runtime.parallel.feed import Feed
from jupyter_train.runtime.parallel.laws import Law, Profile
from jupyter_train.runtime.parallel.loss import Part, Reading
from jupyter_train.runtime.parallel.sites import Sites
from jupyter_train.runtime.parallel.study import Study
from jupyter_train.runtime.parallel.weighing import Weigher


class Learned:
    """Main thread of a rank; the same on all ranks."""

    def __init__(self, *, sites: Sites, weigher: Weigher, feed: Feed, study: Study) -> None:
        self._sites = sites
        self._weigher = weigher
        self._feed = feed
        self._study = study

    def state(self) -> dict[str, Any]:
        """As plain values."""
        key = self._sites.key_of
        return {
            "losses": [
                [key(site), [_of_profile(one) for one in profiles]]
                for site, profiles in self._weigher.profiles.items()
            ],
            "watched": [[key(site), count] for site, count in self._study.watched.items()],
            "feed": self._feed.state(key),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there: what has been learned meanwhile is known better there."""
        find = self._sites.with_key
        for key, profiles in state["losses"]:
            self._weigher.profiles[find(key)] = [_profile(one) for one in profiles]
        for key, count in state["watched"]:
            self._study.watched[find(key)] = count
        self._feed.set_state(state["feed"], find)


def _of_profile(profile: Profile) -> list[Any]:
    reading = profile.reading
    return [
        [[name, int(part)] for name, part in reading.visits],
        reading.has_weights,
        reading.digest,
        [int(law) for law in profile.laws],
        profile.is_settled,
        profile.needs_exchange,
    ]


def _profile(plain: Sequence[Any]) -> Profile:
    visits, has_weights, digest, laws, is_settled, needs_exchange = plain
    reading = Reading(
        terms=(),
        visits=tuple((str(name), Part(part)) for name, part in visits),
        has_weights=bool(has_weights),
        digest=int(digest),
    )
    return Profile(
        reading=reading,
        laws=tuple(Law(law) for law in laws),
        is_settled=bool(is_settled),
        needs_exchange=bool(needs_exchange),
    )
