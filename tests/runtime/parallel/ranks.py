"""Runs a cell as real processes: once plainly, and once per rank with data parallel installed."""

from __future__ import annotations

import contextlib
import functools
import gc
import linecache
import os
import pickle
import random
import select
import signal
import socket
import sys
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np

CELL = "<train cell>"
PRELUDE = """\
import copy, math, os, time
import torch, torch.nn as nn, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset, IterableDataset, Dataset, random_split
class TensorDataset(TensorDataset):
    def __getitems__(self, rows):
        if torch.is_grad_enabled(): drawn.append([int(k) for k in rows])
        return [self[k] for k in rows]
drawn = []  # indices that training loops asked for, by batch
torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
g0 = torch.Generator().manual_seed(5)
N = 83
X = torch.randn(N, 10, generator=g0)
Y = (X[:, :3].sum(1) > 0).long() + (X[:, 3] > 0.5).long()
def mlp(i=10, h=32, o=3): return nn.Sequential(nn.Linear(i, h), nn.Tanh(), nn.Linear(h, o))
"""


def prelude(*, single: bool = False) -> str:
    """What stands before each cell, in float64 or in float32."""
    return PRELUDE.replace("float64", "float32") if single else PRELUDE


MOST_ATTEMPTS = 9
FIRST_LINE = PRELUDE.count("\n") + 1


@dataclass
class Outcome:
    """What one process ended with."""

    weights: list[np.ndarray] = field(default_factory=list)
    buffers: list[np.ndarray] = field(default_factory=list)
    out: Any = None
    error: str = ""  #: type: message
    kind: str = ""
    remarks: list[str] = field(default_factory=list)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    seconds: float = 0.0
    names: dict[str, Any] = field(default_factory=dict)
    seen: Any = None  #: what ``Way.within`` gave
    attempts: int = 1  #: one more each time that the cell was started over
    whole: tuple[Any, ...] = ()  #: loops for which it was, or (if it was no more) that this rank has found


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.remarks: list[str] = []

    def withhold(self) -> None:
        self.kept, self.metrics = self.metrics, {}

    def go_on(self, *, keep: bool) -> None:
        if not keep:
            self.metrics = {}

    def newest(self, name: str) -> float | None:
        return self.metrics[name][-1][1] if name in self.metrics else None

    def metric(self, name: str, value: Any, step: int) -> None:
        self.metrics.setdefault(name, []).append((step, float(value)))

    def remark(self, text: str) -> None:
        self.remarks.append(text)


class _Train:
    """The part of ``train`` that cells here use."""

    def __init__(self, rank: int, parallel: Any, observer: Any, stop: Any) -> None:
        self.rank = rank
        self._observer = observer
        self.stop = stop
        if parallel is not None:
            self.sum, self.mean, self.gather = parallel.sum, parallel.mean, parallel.gather
            self.world_size = parallel.world_size
        else:
            self.sum = self.mean = lambda x: x
            self.gather = lambda x: [x]
            self.world_size = 1

    @property
    def should_stop(self) -> bool:
        return bool(self._observer is not None and self._observer.should_stop)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How ranks run a cell."""

    ranks: int
    keep: tuple[str, ...] = ()  #: names to bring back
    single: bool = False  #: in float32
    batch: str = "global"
    strategy: str = "auto"
    sync_batchnorm: bool = True
    parting_timeout_s: float = 30.0
    hosts: int = 1  #: as how many hosts they take themselves for
    limit_s: float = 60.0  #: for one cell
    prepare: Callable[[dict[str, Any]], None] | None = None  #: fills the namespace before the cell
    #: around the cell, given what ``install`` gave, and the observer
    within: Callable[[Any, Any], contextlib.AbstractContextManager[Any]] | None = None


def plain(cell: str, *, keep: tuple[str, ...] = ()) -> Outcome:
    """The cell in one forked process with nothing installed."""
    (outcome,) = plainly([cell], keep=keep)
    return outcome


def plainly(cells: Sequence[str], *, keep: tuple[str, ...] = ()) -> list[Outcome]:
    """The cells, one after the other, in one forked process with nothing installed."""

    def run() -> Iterator[Outcome]:
        return (_plain(cell, keep) for cell in cells)

    (outcomes,) = _in_processes([run], len(cells), 100.0)
    assert not any(outcome.error for outcome in outcomes), outcomes
    return outcomes


def on_ranks(cell: str, ranks: int, **way: Any) -> list[Outcome]:
    """The outcomes of the cell on each of ``ranks`` forked processes, by rank; see :class:`Way`."""
    return [outcomes[0] for outcomes in together([cell], Way(ranks=ranks, **way))]


def together(cells: Sequence[str], way: Way) -> list[list[Outcome]]:
    """The outcomes of the cells, one after the other, by rank and cell.

    Where a cell takes longer than ``limit_s`` the processes are killed; it says
    "hung", and those behind it "not run".
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def run(rank: int) -> Iterator[Outcome]:
        return _rank(cells, rank, way, listener)

    runs = [functools.partial(run, rank) for rank in range(way.ranks)]
    outcomes = _in_processes(runs, len(cells), way.limit_s)
    listener.close()
    return outcomes


def side_by_side(cells: Mapping[str, str], way: Way) -> dict[str, tuple[Outcome, list[Outcome]]]:
    """Each cell, plainly and on ranks, in two starts of processes for all of them."""
    texts = list(cells.values())
    shared, alone = together(texts, way), plainly(texts, keep=way.keep)
    return {name: (alone[k], [outcomes[k] for outcomes in shared]) for k, name in enumerate(cells)}


def _in_processes(
    runs: Sequence[Callable[[], Iterator[Outcome]]], count: int, limit_s: float
) -> list[list[Outcome]]:
    """The ``count`` outcomes of each of ``runs``, in a forked process of its own.

    In place of those that did not come stands an error: "hung" where the process
    was killed, since nobody said anything for ``limit_s``, "nothing" where it
    died, and "not run" behind that.
    """
    running: dict[int, tuple[int, int]] = {}
    for number, run in enumerate(runs):
        read, pid = _forked(run)
        running[read] = (number, pid)
    outcomes: list[list[Outcome]] = [[] for _ in runs]
    why = ["nothing"] * len(runs)
    data = {read: bytearray() for read in running}
    end = time.monotonic() + limit_s
    while running:
        ready, _, _ = select.select(list(running), [], [], max(0.0, end - time.monotonic()))
        if not ready:
            for number, pid in running.values():
                os.kill(pid, signal.SIGKILL)
                why[number] = "hung"
            end = time.monotonic() + 5
            continue
        for read in ready:
            chunk = os.read(read, 1 << 20)
            number, pid = running[read]
            if not chunk:
                del running[read]
                os.close(read)
                os.waitpid(pid, 0)
                continue
            data[read] += chunk
            while len(data[read]) >= 8 and len(data[read]) >= 8 + int.from_bytes(data[read][:8], "big"):
                size = int.from_bytes(data[read][:8], "big")
                outcomes[number].append(pickle.loads(data[read][8 : 8 + size]))
                del data[read][: 8 + size]
                if "hung" not in why:
                    end = time.monotonic() + limit_s
    for came, reason in zip(outcomes, why, strict=True):
        if len(came) < count:
            came.append(Outcome(error=reason, kind=reason))
        came.extend([Outcome(error="not run", kind="not run")] * (count - len(came)))
    return outcomes


def _forked(run: Callable[[], Iterator[Outcome]]) -> tuple[int, int]:
    """A process that writes each outcome into a pipe: the pipe's end for reading, and its number."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest-timeout has a thread
        pid = os.fork()
    if pid == 0:
        try:
            gc.freeze()  # or each collection goes through all of torch: 0.2 s, and copies its pages
            os.close(read)
            with os.fdopen(write, "wb") as pipe:
                for outcome in run():
                    answer = pickle.dumps(outcome)
                    pipe.write(len(answer).to_bytes(8, "big") + answer)
                    pipe.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    return read, pid


def _new_main(source: str) -> dict[str, Any]:
    linecache.cache[CELL] = (len(source), None, source.splitlines(True), CELL)
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    return main.__dict__


def _plain(cell: str, keep: tuple[str, ...]) -> Outcome:
    source = PRELUDE + textwrap.dedent(cell)
    namespace = _new_main(source)
    namespace["train"] = _Train(0, None, None, None)
    exec(compile(source, CELL, "exec"), namespace)
    return _gathered(Outcome(), namespace, keep)


def _rank(cells: Sequence[str], rank: int, way: Way, listener: socket.socket) -> Iterator[Outcome]:
    import torch
    import torch.distributed as dist

    ranks, port = way.ranks, listener.getsockname()[1]
    os.environ.update(GLOO_SOCKET_IFNAME="lo", RANK=str(rank), WORLD_SIZE=str(ranks), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    store = dist.TCPStore(
        "127.0.0.1", port, ranks, rank == 0, timedelta(seconds=30),
        wait_for_workers=False, master_listen_fd=listener.detach() if rank == 0 else None,
    )  # fmt: skip
    outcome = Outcome()
    for number, cell in enumerate(cells):
        outcome = _attempts(cell, rank, way, dist.PrefixStore(str(number), store))
        yield outcome
    if not outcome.error:
        end = time.monotonic() + 5
        with contextlib.suppress(RuntimeError):  # rank 0 has failed meanwhile, and its store went with it
            store.add("done", 1)
            while rank == 0 and time.monotonic() < end and int(store.add("done", 0)) < ranks:
                time.sleep(0.005)  # rank 0 hosts the store that the others still read


def _attempts(cell: str, rank: int, way: Way, store: Any) -> Outcome:
    """The cell, started over as long as loops are found in it that have to be whole: as the controller does."""
    import torch.distributed as dist

    whole: dict[Any, Any] = {}
    for attempt in range(1, MOST_ATTEMPTS + 1):
        outcome = _one(cell, rank, way, dist.PrefixStore(str(attempt), store), tuple(whole.values()))
        outcome.attempts = attempt
        if outcome.kind != "StartOver":
            break
        store.set(f"{attempt}/whole/{rank}", pickle.dumps(outcome.whole))
        for other in range(way.ranks):
            found = pickle.loads(store.get(f"{attempt}/whole/{other}"))
            whole |= {(one.file, one.line): one for one in found}
    outcome.whole = tuple(whole.values())
    return outcome


def _one(cell: str, rank: int, way: Way, store: Any, whole: tuple[Any, ...]) -> Outcome:
    from jupyter_train.runtime.observe import Observer
    from jupyter_train.runtime.parallel import install
    from jupyter_train.runtime.stopping import StopFlag

    recorder, stop = Recorder(), StopFlag()
    observer = Observer(recorder, stop, CELL)
    source = prelude(single=way.single) + textwrap.dedent(cell)
    namespace = _new_main(source)
    random.seed(0)  # forking seeds it anew
    if way.prepare is not None:
        exec(PRELUDE, namespace)
        way.prepare(namespace)
    began = time.monotonic()
    parallel = install(
        rank=rank, world_size=way.ranks, local_world_size=way.ranks // way.hosts, store=store, device="cpu",
        batch=way.batch, strategy=way.strategy, sync_batchnorm=way.sync_batchnorm, whole=tuple(whole),
        parting_timeout_s=way.parting_timeout_s, recorder=recorder, stop=stop, observer=observer, cell_file=CELL,
    )  # fmt: skip
    namespace["train"] = _Train(rank, parallel, observer, stop)
    outcome = Outcome()
    within = contextlib.nullcontext() if way.within is None else way.within(parallel, observer)
    try:
        with within as outcome.seen:
            exec(compile(source, CELL, "exec"), namespace)
            parallel.finish()
    except BaseException as raised:
        error = parallel.reconsidered(raised)
        parallel.fail(error)
        outcome.error = f"{type(error).__name__}: {error}"
        outcome.kind = type(error).__name__
        outcome.whole = getattr(error, "whole", ())
        if os.environ.get("SHOW"):
            traceback.print_exc()
    outcome.seconds = time.monotonic() - began
    parallel.close()
    outcome.remarks = recorder.remarks
    outcome.metrics = recorder.metrics
    return _gathered(outcome, namespace, way.keep)


def _gathered(outcome: Outcome, namespace: dict[str, Any], keep: tuple[str, ...]) -> Outcome:
    model = namespace.get("model")
    if model is not None:
        outcome.weights = [p.detach().numpy() for p in model.parameters()]
        outcome.buffers = [b.detach().numpy() for b in model.buffers()]
    outcome.out = namespace.get("out")
    outcome.names = {name: namespace.get(name) for name in keep}
    namespace.clear()  # loaders end their workers, which hold our pipe
    gc.collect()
    return outcome


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """The largest difference, relative to the largest weight."""
    assert len(one) == len(other)
    assert one
    scale = max(float(np.abs(a).max()) for a in one if a.size)
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True) if a.size) / scale
