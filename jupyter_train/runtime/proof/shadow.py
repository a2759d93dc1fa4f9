"""A shadow: a process that runs the cell as its only rank, up to the steps that rank 0 has recorded, and compares.

Forked from the zygote like a rank. Nothing it does is seen outside (`held`), it
runs when nobody else wants to, and it ends by itself with its first word.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jupyter_train.home import content_folder
from jupyter_train.record import RunSpec
from jupyter_train.record.proof import Proof, unchecked
from jupyter_train.runtime import call, cell, environment, keyboard, output, processes
from jupyter_train.runtime.channel import Cause, FrameKind, frame
from jupyter_train.runtime.device import pick_device
from jupyter_train.runtime.display import Showing
from jupyter_train.runtime.interrupts import Interrupts
from jupyter_train.runtime.job import Job, Shadowing
from jupyter_train.runtime.observe import Observer
from jupyter_train.runtime.proof.fence import fence
from jupyter_train.runtime.proof.held import HeldBack
from jupyter_train.runtime.proof.recording import Recording, read
from jupyter_train.runtime.recorder import Recorder
from jupyter_train.runtime.stopping import StopFlag
from jupyter_train.runtime.train import Place, train

FIRST_TO_GO = 1000  #: score for the OOM killer
POLL_S = 0.02
FULL = "there is no room for what the cell writes"


class _Nowhere:
    """A sink that forgets."""

    def events(self, packed: list[bytes], *, urgent: bool) -> None:
        """See `Sink`."""

    def word(self, kind: FrameKind, told: Cause | bytes | None = None) -> None:
        """See `Sink`."""

    def close(self) -> None:
        """See `Sink`."""


def main(job: Job, shadowing: Shadowing, channel: socket.socket) -> NoReturn:
    """Be a shadow. Called in a fresh fork of the zygote; never returns."""
    processes.invite_oom_killer(FIRST_TO_GO)
    processes.stand_back()
    recorder = Recorder(_Nowhere(), run_id=job.spec["run_id"], attempt=job.attempt, rank=0)
    recorder.start()
    output.redirect(recorder)
    keyboard.unplug()
    stop = StopFlag()
    Interrupts(stop).install(channel)
    shadow = _Shadow(job, shadowing, channel, recorder, stop)
    try:
        shadow.run()
    except OSError as error:
        shadow.tell(unchecked(FULL if error.errno in (28, 122) else shadow.words(error)))
    except BaseException as error:  # whatever the cell raises, and its exits
        shadow.tell(unchecked(shadow.words(error)))
    os._exit(0)


class _Shadow:
    """The steps of one shadow, in order."""

    def __init__(
        self, job: Job, shadowing: Shadowing, channel: socket.socket, recorder: Recorder, stop: StopFlag
    ) -> None:
        self._job = job
        self._shadowing = shadowing
        self._spec: RunSpec = job.run_spec
        self._channel = channel
        self._recorder = recorder
        self._pid = os.getpid()
        spec = self._spec
        self._file = cell.cell_file(spec.name) if spec.call is None else spec.call.file
        self._observer = Observer(recorder, stop, cell_file=self._file)

    def run(self) -> None:
        """Prepare, hold back, execute, compare."""
        import torch

        from jupyter_train.runtime.parallel import install
        from jupyter_train.runtime.proof.attach import watch_alone
        from jupyter_train.transport.settings import inline_options

        job, spec, recorder, observer = self._job, self._spec, self._recorder, self._observer
        environment.settle(job, spec, _ignored)
        observer.sites.here()  # what names a line is made before anything is held back
        self._hold_back()
        device = pick_device(job.device_index)
        namespace = cell.new_main()
        loaded = self._load(namespace, str(device))
        work = self._work(namespace, loaded)
        environment.seed_everything(spec, loaded.random_state)
        parallel = install(
            rank=0,
            world_size=1,
            local_world_size=1,
            store=None,
            device=device,
            strategy="none",
            recorder=recorder,
            stop=StopFlag(),
            observer=observer,
            cell_file=self._file,
        )
        train.enter(
            Place(
                rank=0,
                world_size=1,
                local_rank=0,
                device=device,
                params=spec.params,
                recorder=recorder,
                observer=observer,
                collectives=parallel,
            )
        )
        namespace.setdefault("train", train)
        Showing(recorder, leads=False).open(sys.modules["__main__"], inline_options(loaded.settings))
        solo = watch_alone(observer, first=self._shadowing.first, full=self._compare)
        environment.restore_settings(job, spec, loaded.settings, device=str(device), remark=_ignored)
        torch.set_num_threads(1)
        try:
            work()
        except SystemExit as error:
            if error.code not in (None, 0):
                raise
        self._compare(solo.recording)

    def _hold_back(self) -> None:
        scratch = Path(self._shadowing.scratch)
        scratch.mkdir(mode=0o700)
        root = Path(self._job.home)
        ours = (content_folder(root), root / "sources")
        fence([str(scratch), *map(str, ours), "/dev", "/proc/self"])
        HeldBack(scratch, (*ours, self._job.folder), self._give_up, began=self._shadowing.began).install()

    def _load(self, namespace: dict[str, Any], device: str) -> Any:
        from jupyter_train.transport.content import ContentStore
        from jupyter_train.transport.load import load_capture

        content = ContentStore(content_folder(Path(self._job.home)))
        return load_capture(self._spec.capture, content, namespace, device=device)

    def _work(self, namespace: dict[str, Any], loaded: Any) -> Callable[[], None]:
        from jupyter_train.transport.settings import future_flags

        spec = self._spec
        if spec.call is not None:
            return partial(call.execute, spec.call, loaded.given, namespace)
        codes = cell.compile_cell(
            spec.source, file=self._file, first_line=spec.first_line, future=future_flags(loaded.settings)
        )
        return partial(cell.execute, codes, namespace)

    def _compare(self, alone: Recording) -> NoReturn:
        """Wait for what rank 0 recorded; the agent ends a wait that is too long."""
        from jupyter_train.runtime.proof.judge import judge

        while True:
            try:
                ours = read(Path(self._shadowing.recording))
                break
            except FileNotFoundError:
                time.sleep(POLL_S)
        self.tell(judge(ours, alone, ranks=self._shadowing.ranks))

    def _give_up(self, what: str) -> NoReturn:
        """The cell is about to do something that others could notice. In any thread, also in a fork."""
        if os.getpid() != self._pid:
            os._exit(1)
        self.tell(unchecked(f"{self._here()} {what}"))

    def _here(self) -> str:
        sites = self._observer.sites
        user = sites.frame(2)
        if user is None or user.f_code.co_filename.startswith((os.path.dirname(os.__file__), "<string>")):
            return "something that the cell reads"
        return str(sites.of(user))

    def words(self, error: BaseException) -> str:
        """What the cell raised here, in a few words."""
        text = str(error).strip().splitlines()
        said = f": {text[0][:120]}" if text else ""
        return f"the cell raised {type(error).__name__} in the process that runs it alone{said}"

    def tell(self, proof: Proof) -> NoReturn:
        """The last word."""
        try:
            self._channel.sendall(frame(FrameKind.PROOF, json.dumps(proof.to_payload()).encode()))
        finally:
            os._exit(0)


def _ignored(text: str) -> None:
    del text
