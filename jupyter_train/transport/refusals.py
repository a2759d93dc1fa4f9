"""What cannot travel to another process, in words, with what to do instead."""

from __future__ import annotations

_INSIDE = "make it inside the cell"
_FILE = "an open file; open it inside the cell"
_LOCK = f"a lock; {_INSIDE}"
_GENERATOR = "a running generator; make it inside the cell, or a list of what it yields"
_QUEUE = f"a queue between threads; {_INSIDE}"
_THREAD = f"a thread; {_INSIDE}"
_PROCESS = f"a process; {_INSIDE}"
_DATABASE = "a database connection; connect inside the cell"
_WEAK = "a weak reference"
_GROUP = "part of a process group; wrap the model inside the cell, and keep a name for what is wrapped"

#: By full name of the type or of one of its bases.
_REASONS = {
    "_io._IOBase": _FILE,
    "_io._TextIOBase": _FILE,
    "_thread.lock": _LOCK,
    "_thread.RLock": _LOCK,
    "threading.Condition": _LOCK,
    "threading.Event": f"an event between threads; {_INSIDE}",
    "threading.Thread": _THREAD,
    "threading.local": "data of one thread",
    "_thread._local": "data of one thread",
    "concurrent.futures._base.Executor": f"a pool of workers; {_INSIDE}",
    "multiprocessing.pool.Pool": f"a pool of workers; {_INSIDE}",
    "multiprocessing.process.BaseProcess": _PROCESS,
    "subprocess.Popen": _PROCESS,
    "queue.Queue": _QUEUE,
    "_queue.SimpleQueue": _QUEUE,
    "multiprocessing.queues.Queue": _QUEUE,
    "builtins.generator": _GENERATOR,
    "builtins.async_generator": _GENERATOR,
    "builtins.coroutine": "a coroutine; call it inside the cell",
    "builtins.frame": "a running frame",
    "builtins.traceback": "a traceback",
    "weakref.ReferenceType": _WEAK,
    "builtins.weakref": _WEAK,
    "builtins.weakproxy": _WEAK,
    "_socket.socket": "a socket; connect inside the cell",
    "sqlite3.Connection": _DATABASE,
    "sqlite3.Cursor": _DATABASE,
    "mmap.mmap": "a mapped file; map it inside the cell",
    "_contextvars.ContextVar": "a context variable",
    "builtins.ContextVar": "a context variable",
    "torch.utils.data.dataloader._BaseDataLoaderIter": (
        "an iterator over a DataLoader; call iter(…) inside the cell"
    ),
    "torch.jit._script.ScriptModule": "a scripted module; torch.jit.load it inside the cell",
    "torch.nn.parallel.distributed.DistributedDataParallel": _GROUP,
    "torch.distributed.fsdp.FSDPModule": _GROUP,
    "torch.distributed.fsdp.fully_sharded_data_parallel.FullyShardedDataParallel": _GROUP,
    "torch.distributed.tensor.DTensor": _GROUP,
    "torch.distributed.device_mesh.DeviceMesh": _GROUP,
    "torch.distributed.distributed_c10d.ProcessGroup": _GROUP,
    "torch.distributed.distributed_c10d.Store": _GROUP,
    "distributed.client.Client": "a connection to a Dask cluster",
    "jupyter_train.notebook.run.Run": "a run belongs to the notebook",
}

#: Streams in memory are files by inheritance, and travel.
_TRAVEL = frozenset({"_io.StringIO", "_io.BytesIO"})


def refusal(kind: type) -> str | None:
    """Why objects of ``kind`` cannot travel, or None where nothing speaks against them."""
    names = [f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__]
    if _TRAVEL.intersection(names):
        return None
    for name in names:
        if name in _REASONS:
            return _REASONS[name]
    return None
