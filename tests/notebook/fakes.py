"""A cluster in memory: a controller that plays back packed events, and a transport that keeps names in a pickle."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jupyter_train import home
from jupyter_train.errors import ClusterUnreachable, RunNotFound
from jupyter_train.record import Event, EventKind, RunSpec, pack_event

Script = Callable[["FakeRun"], None]


class FakeRun:
    """One run: what a script says of it is what ``events`` gives out."""

    def __init__(self, control: FakeControl, spec: RunSpec) -> None:
        self.control = control
        self.spec = spec
        self.packed: list[bytes] = []
        self.now = 1_700_000_000.0 + 100.0 * len(control.runs)  # ids of one second sort by chance
        self.ended = False
        self.stops: list[tuple[bool, str]] = []
        self.watched = threading.Event()
        self.stopped = threading.Event()
        self.killed = threading.Event()

    def say(self, kind: EventKind, payload: dict[str, Any], rank: int | None = None) -> None:
        with self.control.changed:
            self.now += 0.1
            event = Event(
                run_id=self.spec.run_id,
                seq=len(self.packed) + 1,
                attempt=1,
                rank=rank,
                time=self.now,
                kind=kind,
                payload=payload,
            )
            self.packed.append(pack_event(event))
            self.control.changed.notify_all()

    def state(self, state: str, **more: Any) -> None:
        self.say(EventKind.STATE, {"state": state, **more})

    def begin(self) -> None:
        self.state("PENDING", spec=self.spec.to_dict(for_journal=True))
        self.state("STARTING", placement=[{"rank": r, "worker": f"w{r}"} for r in range(self.spec.ranks)])
        self.state("RUNNING")

    def metrics(self, rank: int = 0, **curves: list[float]) -> None:
        columns = {
            name: {"step": np.arange(1, len(values) + 1), "value": np.array(values, np.float64)}
            for name, values in curves.items()
        }
        self.say(EventKind.METRICS, {"columns": columns}, rank)

    def usage(self, rank: int = 0, cores: float = 0.9, memory: int = 10**9) -> None:
        self.say(EventKind.USAGE, {"cpu_cores": cores, "memory_bytes": memory, "worker": f"w{rank}"}, rank)

    def prints(self, text: str, rank: int | None = 0, stream: str = "stdout") -> None:
        self.say(EventKind.LOG, {"stream": stream, "text": text}, rank)

    def error(self, rank: int | None, kind: str, message: str, **more: Any) -> None:
        frame = {
            "file": f"<train {self.spec.name}>",
            "line": self.spec.first_line,
            "name": "<module>",
            "source": self.spec.source.splitlines()[0],
        }
        payload = {
            "type": kind,
            "module": "builtins",
            "message": message,
            "frames": [frame],
            "text": "",
            "secondary": False,
            "cause": "exception",
        }
        self.say(EventKind.ERROR, payload | more, rank)

    def bring(self, _error: BaseException | None = None, **names: Any) -> None:
        """Names that come back, as rank 0's result file."""
        path = home.private_folder(home.run_folder(self.spec.run_id)) / "result-1.bin"
        path.write_bytes(pickle.dumps((names, _error)))
        payload = {
            "name": "result",
            "file": path.name,
            "size_bytes": path.stat().st_size,
            "names": list(names),
            "remarks": [],
            "worker": "w0",
        }
        self.say(EventKind.ARTIFACT, payload, 0)

    def end(self, state: str = "SUCCEEDED", **more: Any) -> None:
        self.state(state, **more)
        self.ended = True


class FakeControl:
    """The part of ControllerClient that the notebook uses."""

    def __init__(self, workers: int = 2) -> None:
        self.script: Script = succeed
        self.workers = workers
        self.runs: dict[str, FakeRun] = {}
        self.changed = threading.Condition()
        self.unreachable = False
        self.has: set[str] = set()  #: keys of captured data that every worker has
        self.on_thread = False  #: the script plays beside the cell, not before submit returns
        self.threads: list[threading.Thread] = []
        self.problems: list[BaseException] = []
        self.polls = 0

    def hello(self) -> dict[str, Any]:
        boot_id = Path("/proc/sys/kernel/random/boot_id")
        return {
            "protocol": 1,
            "home": str(home.home()),
            "boot_id": boot_id.read_text().strip() if boot_id.exists() else "",
            "journal": __file__,  # a file that exists
            "workers": [{"address": f"w{n}", "name": str(n), "run": None} for n in range(self.workers)],
            "runs": [
                {"run_id": r.spec.run_id, "state": "RUNNING", "name": r.spec.name}
                for r in self.runs.values()
                if not r.ended
            ],
        }

    def submit(self, spec: RunSpec) -> dict[str, Any]:
        # As it travels.
        run = self.runs[spec.run_id] = FakeRun(self, RunSpec.from_dict(spec.to_dict()))
        if self.on_thread:
            thread = threading.Thread(target=self._play, args=(run,), name="fake-cluster", daemon=True)
            self.threads.append(thread)
            thread.start()
        else:
            self.script(run)
        return {"run_id": spec.run_id, "state": "PENDING"}

    def _play(self, run: FakeRun) -> None:
        try:
            self.script(run)
        except BaseException as error:
            self.problems.append(error)
            run.end("FAILED", reason=f"the script failed: {error!r}")

    def missing(self, keys: Sequence[str]) -> set[str]:
        if self.unreachable:
            raise ClusterUnreachable("the scheduler cannot be reached")
        return set(keys) - self.has

    def events(self, run_id: str, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        if self.unreachable:
            raise ClusterUnreachable("the scheduler cannot be reached")
        self.polls += 1
        if run_id not in self.runs:
            raise RunNotFound(run_id)
        run = self.runs[run_id]
        run.watched.set()
        until = time.monotonic() + wait_s
        with self.changed:
            while len(run.packed) <= after and not run.ended and (left := until - time.monotonic()) > 0:
                self.changed.wait(left)
            return {"events": run.packed[after:], "last": len(run.packed), "terminal": run.ended}

    def stop(self, run_id: str, force: bool = False, reason: str = "") -> str:
        run = self.runs[run_id]
        run.stops.append((force, reason))
        run.stopped.set()
        if force:
            run.killed.set()
        return "STOPPING"

    @property
    def only(self) -> FakeRun:
        (run,) = self.runs.values()
        return run

    def finish(self) -> None:
        for thread in self.threads:
            thread.join(10)
        if self.problems:
            raise self.problems[0]


def succeed(run: FakeRun) -> None:
    """The script of a run that trains two steps."""
    run.begin()
    for rank in range(run.spec.ranks):
        run.metrics(rank, loss=[1.0, 0.5])
    run.bring(answer=42)
    run.end()


class FakeConnection:
    """The part of Connection that the notebook uses."""

    def __init__(self, control: FakeControl) -> None:
        self.control = control
        self.name = "fake"
        self.kind = "local"
        self.address = "tls://127.0.0.1:1"
        self.record = SimpleNamespace(name="fake", address=self.address)
        self.remarks: list[str] = []
        self.is_alive = True
        self.scaled: list[int] = []

    def workers(self) -> list[dict[str, Any]]:
        return list(self.control.hello()["workers"])

    def scale(self, n: int) -> None:
        self.scaled.append(n)
        self.control.workers = n


def capture(
    source: str,
    namespace: dict[str, Any],
    *,
    content: Any,
    random_state: bool = True,
    given: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    limit_bytes: int | None = None,
    shared_disk: bool = False,
) -> Any:
    """Captures nothing; says what it was asked for."""
    return SimpleNamespace(
        refs=(),
        names=(),
        sizes={},
        remarks=(),
        random_state=random_state,
        given=given,
        objects=(),
        bindings={},
        definitions={},
        modules=(),
        written_bytes=0,
    )


def apply_result(path: Path, captured: Any, namespace: dict[str, Any], **_: Any) -> Any:
    names, error = pickle.loads(path.read_bytes())
    returned = (names.pop("return value"),) if "return value" in names else ()
    namespace.update(names)
    return SimpleNamespace(
        names=tuple(names),
        changed=(),
        deleted=(),
        large=(),
        edited=(),
        remarks=(),
        error=error,
        returned=returned,
    )


def load_result(path: Path, refs: Any, content: Any, *, large: bool = True) -> dict[str, Any]:
    names, _ = pickle.loads(path.read_bytes())
    return dict(names)
