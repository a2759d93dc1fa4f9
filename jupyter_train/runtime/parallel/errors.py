"""What can go wrong between the ranks, apart from errors.RanksDiverged."""

from __future__ import annotations

from jupyter_train.errors import CellError


class PeerLost(BaseException):
    """Another rank failed or vanished, so that this one cannot go on.

    A ``BaseException``, so that ``except Exception`` in the cell cannot eat it:
    nothing that the cell did from then on would be the run's. Never the reason of
    a run: the other rank's own error is.
    """


class NotSplittable(CellError):
    """A batch was split that must not be: going on would train something else.

    The attempt is then started over with the loop whole; the user sees this
    error only where they force shares by ``--batch per-rank``.
    """

    why = ""  #: the line and the reason
    fix = ""  #: a sentence on what would let the loop be split, where something would


def not_splittable(where: str, why: str, fix: str = "") -> NotSplittable:
    """The error for the line ``where``: ``why`` says what is there that shares of a batch cannot give."""
    advice = f" {fix}." if fix else ""
    error = NotSplittable(
        f"{where}: {why}. Computed on shares of the batch it would train something else.{advice} Without "
        "--batch per-rank  every rank computes such a loop whole, and  -n 1  computes it once."
    )
    error.why, error.fix = f"{where}: {why}", fix
    return error
