"""From a cell or a function call to a run that can be handed in: cluster, capture, specification. Kernel's main thread."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_train import home
from jupyter_train.boot import boot_id
from jupyter_train.errors import CaptureError, NotEnoughWorkers, StoreError
from jupyter_train.notebook import environment
from jupyter_train.notebook.environment import allowed_patterns, travelling
from jupyter_train.notebook.git import GitLook
from jupyter_train.notebook.housekeeping import needed_keys, tidy
from jupyter_train.notebook.known import Program, known_whole, program
from jupyter_train.notebook.provenance import notebook_folder, provenance
from jupyter_train.notebook.proving import key_of, wants_check
from jupyter_train.notebook.wait import in_background
from jupyter_train.record import Call, ResumePoint, RunSpec, new_run_id

if TYPE_CHECKING:
    from jupyter_train.cluster import Connection
    from jupyter_train.notebook.options import TrainOptions
    from jupyter_train.notebook.session import Session
    from jupyter_train.transport.capture import Capture


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a run is to do: the source of a cell, or a call."""

    source: str  #: of a call: the text of its function, for people
    first_line: int
    namespace: dict[str, Any]  #: what it reads, and what comes back
    name: str  #: of the run, where the user gives none
    call: Call | None = None
    given: Mapping[str, Any] = field(default_factory=dict)  #: what ``call`` names, by label


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A run that only needs to be handed in, and what the kernel needs to bring its names back."""

    spec: RunSpec
    capture: Capture
    namespace: dict[str, Any]
    connection: Connection
    remarks: tuple[str, ...]
    program: Program | None  #: None where nothing is split
    sent_bytes: int  #: of captured data and specification: what was not on the cluster yet


def prepare(work: Work, options: TrainOptions, session: Session) -> Prepared:
    """Everything that a run of ``work`` needs, on the cluster or on the way there.

    Raises:
        ClusterError: no cluster, no workers, another environment.
        CaptureError: a name cannot travel.
        StoreError: there is no folder to keep anything in.
        RunError: there is no checkpoint to resume from.
        TrainError: a setting of Dask's configuration has a value that it cannot have.
    """
    from jupyter_train import cluster
    from jupyter_train.transport.capture import capture
    from jupyter_train.transport.content import ContentStore
    from jupyter_train.transport.quota import capture_limit
    from jupyter_train.transport.settings import current_settings, with_future_flags

    check_home()
    git = GitLook(notebook_folder(session.notebook, os.getcwd()))
    retries = environment.retries() if options.retries is None else options.retries
    every_s = options.checkpoint_every_s or environment.checkpoint_every_s()
    resume, resume_remarks = _resumed(options, session)
    # As many as wrote the checkpoint: each has its own random state.
    wanted = options.ranks or (len(resume.files) if resume is not None else None)
    connection = cluster.open_cluster(options.cluster, ranks=wanted)
    hello = connection.control.hello()
    ranks = wanted or len(hello["workers"])
    if not ranks:
        raise NotEnoughWorkers(
            f"cluster {connection.name!r} has no workers yet. Say how many ranks the run has with  -n N,  "
            "and it waits for them."
        )
    # Workers that somebody else started may keep their files anywhere, wherever their scheduler is.
    is_here = connection.record is not None and shares_disk(hello)
    if resume is not None:
        from jupyter_train.notebook.resuming import check_files, other_ranks

        resume_remarks += other_ranks(resume, ranks)
        if is_here:
            check_files(resume)
    content = ContentStore(home.content_folder(), needed=needed_keys)
    try:
        captured = capture(
            work.source if work.call is None else "",
            work.namespace,
            content=content,
            random_state=options.seed is None,
            settings=with_future_flags(current_settings(), session.compiler_flags),
            given=work.given,
            limit_bytes=capture_limit(),
            shared_disk=is_here,
        )
    except OSError as error:
        raise CaptureError(
            f"what the cell reads could not be written to {home.content_folder()}: {error.strerror or error}. Free some "
            "space there, or set JUPYTER_TRAIN_HOME to a folder on another disk before the kernel starts."
        ) from error
    proves = key_of(work.source, ranks)
    check = wants_check(options.check, proves, session)
    run_id = new_run_id()
    if check is not False:
        session.checks[proves] = run_id
    splits = ranks > 1 and options.strategy == "auto" and options.batch == "global"
    runs = program(work, ranks, captured.names) if splits else None
    spec = RunSpec(
        run_id=run_id,
        name=options.name or work.name,
        source=work.source,
        first_line=work.first_line,
        ranks=ranks,
        call=work.call,
        capture=captured.refs,
        captured_names=tuple(captured.names),
        strategy=options.strategy,
        batch=options.batch,
        whole=known_whole(runs, session.runs.values()) if runs is not None else (),
        sync_batchnorm=options.sync_bn,
        check=check,
        parting_timeout_s=environment.parting_timeout_s(),
        seed=options.seed,
        params=options.params,
        tags=options.tags,
        keep=options.keep,
        timeout_s=options.timeout_s,
        retries=retries,
        checkpoint_every_s=every_s,
        hang_timeout_s=environment.hang_timeout_s(),
        keep_last=environment.keep_last(),
        resume=resume,
        cwd=os.getcwd(),
        sys_path=tuple(path for path in sys.path if isinstance(path, str)),
        environment=travelling(os.environ, allowed_patterns()),
        session=session.id,
        notebook=session.notebook,
        cluster=connection.name,
        provenance=provenance(git, captured),
        submitted=time.time(),
    )
    sent_bytes = captured.written_bytes
    if not is_here:
        files = {ref.key: content.path(ref.key) for ref in captured.refs}
        sent_bytes = connection.control.send(files, folder=content.folder_id())
    remarks = (*connection.remarks, *resume_remarks, *captured.remarks)
    return Prepared(
        spec=spec,
        capture=captured,
        namespace=work.namespace,
        connection=connection,
        remarks=remarks,
        program=runs,
        sent_bytes=sent_bytes + len(json.dumps(spec.to_dict())),
    )


def _resumed(options: TrainOptions, session: Session) -> tuple[ResumePoint | None, tuple[str, ...]]:
    """Where the run begins, and what there is to say about that."""
    if options.resume is None:
        return None, ()
    from jupyter_train.notebook.resuming import resume_from

    return resume_from(options.resume, session)


def check_home() -> None:
    """Have the folder in which everything is kept.

    Raises:
        StoreError: it cannot be made, or not be written.
    """
    root = home.home()
    try:
        home.private_folder(root)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise StoreError(
            f"nothing can be kept in {root}: {error.strerror or error}. Set JUPYTER_TRAIN_HOME to a folder that can be "
            "written, before the kernel starts."
        ) from None


def hand_in(prepared: Prepared) -> None:
    """Submits the run.

    Raises:
        NotEnoughWorkers: the cluster is too small for it.
        ClusterUnreachable: nothing answers.
    """
    prepared.connection.control.submit(prepared.spec)
    tidy(home.content_folder())


def abandon(prepared: Prepared) -> None:
    """After an interrupt in :func:`hand_in`: whether it arrived is not known, and nobody waits for it."""
    in_background(
        lambda: prepared.connection.control.stop(
            prepared.spec.run_id, force=True, reason="interrupted in the notebook"
        ),
        failed=lambda error: None,
    )


def shares_disk(hello: Mapping[str, Any]) -> bool:
    """Whether the controller answering ``hello`` keeps its files where we do: then no bytes need to be sent.

    Containers share a boot id and may have the same paths; the controller's
    journal is a file that only it has made.
    """
    return (
        hello.get("boot_id") == boot_id()
        and hello.get("home") == str(home.home())
        and Path(str(hello.get("journal"))).exists()
    )
