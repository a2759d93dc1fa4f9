"""Every error that jupyter_train raises on purpose.

    TrainError
    ├── ClusterError
    │   ├── NotEnoughWorkers      more ranks than the cluster has workers
    │   ├── ClusterUnreachable    nothing answers at the address
    │   └── EnvironmentMismatch   other Python, torch or jupyter_train on the workers
    ├── CaptureError              a name of the notebook cannot travel to the ranks
    ├── CellError                 the cell cannot run as it is written: refused before anything starts
    ├── RunError
    │   ├── RunNotFound           no run of that name or id
    │   ├── RunFailed             the run ended FAILED and the user's own exception cannot be raised
    │   │   ├── RankLost          a rank, its agent or its worker died
    │   │   ├── RunTimeout        --timeout was reached
    │   │   └── RanksDiverged     ranks took different paths through the cell
    │   ├── RunCancelled          stopped by somebody else
    │   └── CheckpointUnreadable  a file of a checkpoint is missing, damaged or of a newer version
    └── StoreError
        ├── StoreTooNew           written by a newer jupyter_train
        └── StoreDamaged          a journal that cannot be read

A message says what, where and what to do. All of them pickle: the arguments
are the message alone.
"""

from __future__ import annotations


class TrainError(Exception):
    """Base class: catch it to catch everything that jupyter_train raises on purpose."""


class ClusterError(TrainError):
    """Something about the cluster."""


class NotEnoughWorkers(ClusterError):
    """The run needs more ranks than the cluster has workers."""


class ClusterUnreachable(ClusterError):
    """Nothing answers at the cluster's address."""


class EnvironmentMismatch(ClusterError):
    """Python, torch or jupyter_train differ between the kernel and the workers."""


class CaptureError(TrainError):
    """A name that the cell reads cannot travel to the ranks."""


class CellError(TrainError):
    """The cell cannot run as it is written; nothing was started."""


class RunError(TrainError):
    """Something about one run."""


class RunNotFound(RunError):
    """No run of that name or id is in the store."""


class RunFailed(RunError):
    """The run ended FAILED, and the user's own exception cannot be raised."""


class RankLost(RunFailed):
    """A rank, its agent or its worker died."""


class RunTimeout(RunFailed):
    """The time given by --timeout was reached."""


class RanksDiverged(RunFailed):
    """Ranks took different paths through the cell."""


class RunCancelled(RunError):
    """The run was stopped by somebody else."""


class CheckpointUnreadable(RunError):
    """A file of a checkpoint is not on this host, damaged, or written by a newer jupyter_train."""


class StoreError(TrainError):
    """Something about the store on disk."""


class StoreTooNew(StoreError):
    """The store was written by a newer jupyter_train."""


class StoreDamaged(StoreError):
    """A journal cannot be read."""
