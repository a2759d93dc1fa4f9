"""What an attempt is told of the ones before it, and when there is no use in another. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from jupyter_train.record import WholeLoop

MOST_ATTEMPTS = 8
#: The last resort: with it nothing is split, so that nothing is left to be found.
EVERY_LOOP = WholeLoop(why="again and again loops of this cell were found that cannot be split")


def to_be_whole(
    known: tuple[WholeLoop, ...], found: Iterable[WholeLoop], attempt: int
) -> tuple[WholeLoop, ...] | None:
    """The loops that the next attempt does not split; None: it would find what this one, number ``attempt``, has found."""
    if EVERY_LOOP in known:
        return None
    loops = {(one.file, one.line): one for one in known}
    before = len(loops)
    for one in found:
        loops.setdefault((one.file, one.line), one)
    if len(loops) == before or attempt >= MOST_ATTEMPTS - 1:
        return (*loops.values(), EVERY_LOOP)
    return tuple(loops.values())
