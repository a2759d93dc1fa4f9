"""How a run is told to stop: a flag that travels on the gradient reduction, and the exception that unwinds the cell."""

from __future__ import annotations


class StopRun(BaseException):
    """Unwinds the cell of a run that is being stopped.

    A ``BaseException``, so that ``except Exception`` in the cell cannot eat it.
    Raised in the rank's main thread: after an optimizer step once all ranks
    agreed, or asynchronously where a rank reaches none in time.
    """


class StopFlag:
    """What this rank has been asked.

    ``requested`` is set by any thread of the rank process. In a data parallel
    run it only asks: the flag rides on the next gradient reduction, and every
    rank stops after that same optimizer step.
    """

    __slots__ = ("requested",)

    def __init__(self) -> None:
        self.requested = False

    def request(self) -> None:
        """Ask for a stop; any thread, any number of times."""
        self.requested = True
