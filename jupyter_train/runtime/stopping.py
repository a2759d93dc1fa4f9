"""What unwinds a cell from outside: a stop, whose flag travels on the gradient reduction, and the wish to start over."""

from __future__ import annotations

from jupyter_train.record import WholeLoop


class StopRun(BaseException):
    """Unwinds the cell of a run that is being stopped.

    A ``BaseException``, so that ``except Exception`` in the cell cannot eat it.
    Raised in the rank's main thread: after an optimizer step once all ranks
    agreed, or asynchronously where a rank reaches none in time.
    """


class StartOver(BaseException):
    """Unwinds the cell of an attempt that is given up: some of its loops have been split and must not be.

    A ``BaseException``, so that ``except Exception`` in the cell cannot eat it.
    ``whole`` are the loops that this rank found, empty where another rank did.
    """

    def __init__(self, whole: tuple[WholeLoop, ...] = ()) -> None:
        super().__init__("; ".join(one.why for one in whole) or "another rank starts over")
        self.whole = whole


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
