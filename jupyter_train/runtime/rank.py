"""A rank process, from its birth in the zygote to its last word.

The main thread runs the cell. Beside it: ``jupyter-train-recorder`` writes what
is recorded, ``jupyter-train-control`` listens to the agent. The process ends by
``os._exit``: a process group that is destroyed in order may hang, and nothing is
left to clean up that its death does not.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jupyter_train.errors import CaptureError
from jupyter_train.home import content_folder
from jupyter_train.record import RunSpec
from jupyter_train.runtime import call, cell, environment, keyboard, output, processes, protection, stacks
from jupyter_train.runtime.channel import Cause, FrameKind
from jupyter_train.runtime.device import pick_device
from jupyter_train.runtime.display import Showing
from jupyter_train.runtime.failure import comes_from_peer, describe
from jupyter_train.runtime.interrupts import Interrupts
from jupyter_train.runtime.job import Job
from jupyter_train.runtime.machine import machine
from jupyter_train.runtime.proof.asking import Asking
from jupyter_train.runtime.recorder import Recorder
from jupyter_train.runtime.spool import ChannelSink, spool_name
from jupyter_train.runtime.stopping import StartOver, StopFlag, StopRun
from jupyter_train.runtime.train import Place, train

if TYPE_CHECKING:
    from jupyter_train.runtime.checkpoint.checkpoints import Checkpoints
    from jupyter_train.runtime.checkpoint.keeping import Keeping
    from jupyter_train.runtime.parallel import Parallel
    from jupyter_train.runtime.zygote import RankFiles
    from jupyter_train.transport.load import Loaded

STORE_TIMEOUT = timedelta(seconds=120)  #: the other ranks may wait for a zygote that is just starting
PARTED = "jupyter_train/parted"  #: in the store: how many of the other ranks are through
PART_POLL_S = 0.005
CHECKPOINT_S = 60.0  #: for the last checkpoint to come to the disk
DEFAULT_EVERY_S = 30.0  #: between checkpoints of a run with retries that nobody asked for
NOT_TAKEN_UP = "the cell came to no loop over train.epochs in which the checkpoint could be gone on from: it was done from its start"
AT_EXIT_S = 5.0  #: for what the cell registered with atexit


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How the cell ended."""

    cause: Cause
    error: BaseException | None = None


def main(files: RankFiles) -> NoReturn:
    """Be the rank that ``files`` describes. Called in a fresh fork of the zygote; never returns."""
    job = Job.from_file(files.job)
    channel = socket.socket(fileno=files.channel)
    if job.shadow is not None:
        from jupyter_train.runtime.proof import shadow

        shadow.main(job, job.shadow, channel)
    recorder = Recorder(
        ChannelSink(channel, job.folder / spool_name(job.attempt, job.rank)),
        run_id=job.spec["run_id"],
        attempt=job.attempt,
        rank=job.rank,
    )
    recorder.start()
    stop = StopFlag()
    interrupts = Interrupts(stop)
    interrupts.install(channel)
    processes.invite_oom_killer()
    output.redirect(recorder)
    protection.tell_crashes()
    if files.stacks is not None:
        stacks.answer(files.stacks)
    keyboard.unplug()
    atexit._clear()  # the zygote's own; what the cell registers runs at its end
    try:
        outcome = _Rank(job, recorder, stop, interrupts, files.listen).run()
    except BaseException as error:  # the capture cannot be loaded, the store not be reached
        outcome = _tell(recorder, error, secondary=comes_from_peer(error))
    _run_exit_functions(recorder)
    recorder.word(FrameKind.CAUSE, outcome.cause)
    recorder.close()
    os._exit(outcome.cause.code)


class _Rank:
    """The steps of one rank, in order."""

    def __init__(
        self, job: Job, recorder: Recorder, stop: StopFlag, interrupts: Interrupts, listen: int | None
    ) -> None:
        self._job = job
        self._spec: RunSpec = job.run_spec
        self._recorder = recorder
        self._stop = stop
        self._interrupts = interrupts
        self._listen = listen
        self._asking = Asking(job, recorder)

    def run(self) -> _Outcome:
        """Prepare, execute, bring the results to disk."""
        from jupyter_train.runtime.observe import Observer
        from jupyter_train.runtime.parallel import install
        from jupyter_train.transport.settings import future_flags, inline_options
        from jupyter_train.transport.torchsettings import forget_thread_settings

        job, spec, recorder = self._job, self._spec, self._recorder
        environment.settle(job, spec, recorder.remark)
        store = self._connect()
        device = pick_device(job.device_index)
        namespace = cell.new_main()
        loaded = self._load(namespace, str(device))
        for remark in loaded.remarks if job.rank == 0 else ():
            recorder.remark(remark)
        if spec.call is None:
            file = cell.cell_file(spec.name)
            codes = cell.compile_cell(
                spec.source, file=file, first_line=spec.first_line, future=future_flags(loaded.settings)
            )
            work = partial(cell.execute, codes, namespace)
        else:
            file = spec.call.file
            work = partial(call.execute, spec.call, loaded.given, namespace)
        environment.seed_everything(spec, loaded.random_state)
        observer = Observer(recorder, self._stop, cell_file=file)
        parallel = install(
            rank=job.rank,
            world_size=job.world_size,
            local_world_size=job.local_world_size,
            store=store,
            device=device,
            batch=spec.batch,
            strategy=spec.strategy,
            whole=spec.whole,
            sync_batchnorm=spec.sync_batchnorm,
            parting_timeout_s=spec.parting_timeout_s,
            hang_timeout_s=spec.hang_timeout_s,
            waits=self._tell_wait,
            recorder=recorder,
            stop=self._stop,
            observer=observer,
            cell_file=file,
        )
        keeping, checkpoints = self._checkpoints(parallel)
        self._asking.watch(observer, parallel, device=device.type)
        train.enter(
            Place(
                rank=job.rank,
                world_size=job.world_size,
                local_rank=job.local_rank,
                device=device,
                params=spec.params,
                recorder=recorder,
                observer=observer,
                collectives=parallel,
                checkpoints=checkpoints,
            )
        )
        namespace.setdefault("train", train)
        showing = Showing(recorder, leads=not job.rank)
        showing.open(sys.modules["__main__"], inline_options(loaded.settings))
        # Last, because what we set up is not the cell's: a default device would hold for our tensors, too.
        environment.restore_settings(job, spec, loaded.settings, device=str(device), remark=recorder.remark)
        recorder.machine(machine(device, cores=job.cores))
        recorder.word(FrameKind.READY)
        recorder.flush()  # a crash on the cell's first line is a crash of a running run
        outcome = self._execute(work, parallel)
        recorder.go_on(keep=True)
        if outcome.cause.kind == "done" and not checkpoints.has_arrived:
            recorder.remark(NOT_TAKEN_UP)
        keeping.close(CHECKPOINT_S)
        if outcome.cause.kind == "done":
            self._asking.finish()
        recorder.word(FrameKind.LEFT)
        forget_thread_settings()
        parallel.close()  # before anything is pickled: its hooks hang on the user's own objects
        showing.close()
        if namespace.get("train") is train:
            del namespace["train"]
        if outcome.cause.kind != "again":  # the next attempt begins with what was captured
            self._bring_back(loaded, namespace, outcome.error)
        if outcome.cause.kind == "done":
            self._part(store)
        return outcome

    def _checkpoints(self, parallel: Parallel) -> tuple[Keeping, Checkpoints]:
        """What keeps this rank's checkpoints, and what it begins from.

        Raises:
            RunError: the checkpoint that it is to begin from cannot be read.
        """
        from jupyter_train.runtime.checkpoint.checkpoints import Checkpoints, Rhythm
        from jupyter_train.runtime.checkpoint.keeping import Keeping
        from jupyter_train.runtime.checkpoint.reader import read_point

        job, spec, recorder = self._job, self._spec, self._recorder

        def remark(text: str) -> None:
            if job.rank == 0:
                recorder.remark(text)

        keeping = Keeping(
            folder=job.folder,
            attempt=job.attempt,
            rank=job.rank,
            world_size=job.world_size,
            worker=job.worker,
            tell=recorder.checkpoint,
            remark=recorder.remark,  # a disk may be full on one host only
            keep_last=spec.keep_last,
        )
        point, saved = spec.resume, None
        goes_on = point is not None and point.run_id == spec.run_id
        if point is not None:
            home = Path(job.home)
            saved = read_point(point, job.rank, home)
            if saved.world_size != job.world_size:  # what was each rank's own is nobody's now
                saved = read_point(point, 0, home)
            if goes_on:
                recorder.withhold()
        by_default = spec.checkpoint_every_s is None and spec.retries > 0
        assert parallel.engine is not None
        checkpoints = Checkpoints(
            engine=parallel.engine,
            keeping=keeping,
            rhythm=Rhythm(
                every_s=DEFAULT_EVERY_S if by_default else spec.checkpoint_every_s, by_default=by_default
            ),
            remark=remark,
            newest=recorder.newest,
            saved=saved,
            point=point,
            number=point.number if point is not None and goes_on else 0,
            arrived=partial(recorder.go_on, keep=False),
        )
        parallel.keep_when(checkpoints.is_due, checkpoints.agreed)
        return keeping, checkpoints

    def _tell_wait(self, rank: int, hung: str) -> None:
        """This rank waits for ``rank``, which hangs in the way that ``hung`` says, if it does."""
        self._recorder.word(FrameKind.WAITS, json.dumps({"on": rank, "hung": hung}).encode())

    def _load(self, namespace: dict[str, Any], device: str) -> Loaded:
        """Fill the namespace with what was captured.

        Raises:
            CaptureError: the data is not on this host, or cannot be rebuilt.
        """
        from jupyter_train.transport.content import ContentStore
        from jupyter_train.transport.load import load_capture

        content = ContentStore(content_folder(Path(self._job.home)))
        try:
            return load_capture(self._spec.capture, content, namespace, device=device)
        except FileNotFoundError as error:
            raise CaptureError(
                f"captured data is not on the worker {self._job.worker}: {error.filename} is missing; "
                "run the cell again to send it"
            ) from error

    def _connect(self) -> Any:
        """The store of the run: served by rank 0 on the socket that already listens."""
        from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]

        job = self._job
        if not job.master_port:
            return HashStore()
        return TCPStore(
            job.master_host,
            job.master_port,
            job.world_size,
            is_master=self._listen is not None,
            timeout=STORE_TIMEOUT,
            wait_for_workers=False,
            master_listen_fd=self._listen,
        )

    def _execute(self, work: Callable[[], None], parallel: Any) -> _Outcome:
        from jupyter_train.runtime.parallel import PeerLost

        try:
            with self._interrupts.allowed():
                if self._stop.requested:
                    raise StopRun
                try:
                    work()
                except SystemExit as error:
                    if error.code not in (None, 0):
                        raise
                parallel.finish()
        except BaseException as error:  # whatever a cell raises is its error
            if isinstance(over := parallel.reconsidered(error), StartOver):
                parallel.fail(over)
                whole = [asdict(one) for one in over.whole]
                return _Outcome(Cause(kind="again", text=str(over), whole=whole))
            if isinstance(error, StopRun):
                return _Outcome(Cause(kind="stopped"))
            secondary = isinstance(error, PeerLost) or comes_from_peer(error)
            file = None if self._job.rank == 0 else self._error_file()
            outcome = _tell(self._recorder, error, secondary=secondary, file=file)
            try:
                parallel.fail(error)
            except Exception:  # the peers are told by the controller as well
                pass
            return outcome
        return _Outcome(Cause(kind="done"))

    def _error_file(self) -> str:
        return f"error-{self._job.attempt}-{self._job.rank}.bin"

    def _bring_back(self, loaded: Loaded, namespace: dict[str, Any], error: BaseException | None) -> None:
        """Rank 0 writes what comes back to the notebook, another rank its error alone.

        A failure to do so costs the names, not the run.
        """
        from jupyter_train.transport.result import pack_result

        folder = self._job.folder
        if self._job.rank:
            if error is not None:
                try:
                    pack_result(loaded, namespace, folder / self._error_file(), keep=(), error=error)
                except Exception:  # pickling runs the user's own code; the event has type and text
                    pass
            return
        name = f"result-{self._job.attempt}.bin"
        try:
            summary = pack_result(loaded, namespace, folder / name, keep=self._spec.keep, error=error)
        except Exception as trouble:
            where = f" (in {folder})" if isinstance(trouble, OSError) and trouble.filename is None else ""
            self._recorder.remark(f"the names that the cell assigned cannot come back: {trouble}{where}")
            return
        known = {*namespace, *loaded.given}
        missing = [name for name in self._spec.keep or () if name not in known] if error is None else []
        if missing:
            those = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
            if self._spec.call is None:
                self._recorder.remark(f"--keep asks for {those}, which the cell did not bind")
            else:
                self._recorder.remark(f"keep asks for {those}, which the function did not bind")
        self._recorder.artifact(
            {
                "name": "result",
                "file": name,
                "size_bytes": summary.size_bytes,
                "prefix_bytes": summary.prefix_bytes,
                "names": list(summary.names),
                "changed": list(summary.changed),
                "deleted": list(summary.deleted),
                "large": list(summary.large),
                "remarks": list(summary.remarks),
                "worker": self._job.worker,
            }
        )

    def _part(self, store: Any) -> None:
        """Rank 0 serves the store: it stays until every rank is through, or the run is being ended."""
        others = self._job.world_size - 1
        try:
            if self._job.rank:
                store.add(PARTED, 1)
                return
            while store.add(PARTED, 0) < others and not self._stop.requested:
                time.sleep(PART_POLL_S)
        except RuntimeError:
            pass  # the store went with rank 0, which was told to end


def _tell(recorder: Recorder, error: BaseException, *, secondary: bool, file: str | None = None) -> _Outcome:
    """Record the error; ``file`` will hold it pickled, in the run's folder."""
    payload = describe(error, secondary=secondary)
    if file is not None:
        payload["file"] = file
    recorder.error(payload)
    return _Outcome(Cause(kind="error", code=1, text=f"{payload['type']}: {payload['message']}"), error)


def _run_exit_functions(recorder: Recorder) -> None:
    thread = threading.Thread(target=atexit._run_exitfuncs, name="jupyter-train-atexit", daemon=True)
    thread.start()
    thread.join(AT_EXIT_S)
    if thread.is_alive():
        recorder.remark(
            f"a function that the cell registered with atexit did not return within {AT_EXIT_S:g} s"
        )
