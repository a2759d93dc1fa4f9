"""A rank's surroundings: environment variables, folder, module path, threads, random states."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from jupyter_train.record import RunSpec
from jupyter_train.runtime.job import Job

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def rank_environ(job: Job, spec: RunSpec) -> dict[str, str]:
    """What a rank's environment has beside its worker's: torch.distributed's names, our marks, the user's own."""
    environ = {
        **job.marks,
        "RANK": str(job.rank),
        "LOCAL_RANK": str(job.local_rank),
        "WORLD_SIZE": str(job.world_size),
        "LOCAL_WORLD_SIZE": str(job.local_world_size),
        "MASTER_ADDR": job.master_host,
        "MASTER_PORT": str(job.master_port),
    }
    if job.master_port:
        # A cell's own init_process_group then joins the store that rank 0 serves already.
        environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        environ["TORCHELASTIC_RESTART_COUNT"] = "0"
    if job.master_host == "127.0.0.1":
        environ["GLOO_SOCKET_IFNAME"] = "lo"
    return {**spec.environment, **environ}


def thread_count(job: Job, spec: RunSpec) -> int:
    """Threads of torch within one operation: the user's number, else the host's cores shared among its ranks."""
    given = spec.environment.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given):
        return int(given)
    return max(1, job.cores // job.local_world_size)


def settle(job: Job, spec: RunSpec, remark: Callable[[str], None]) -> None:
    """Make this process the place where the notebook's cell would have run."""
    for name in job.unset:
        os.environ.pop(name, None)
    os.environ.update(rank_environ(job, spec))
    time.tzset()
    _enter_folder(spec.cwd, remark)
    sys.path[:] = list(dict.fromkeys([*spec.sys_path, *sys.path]))
    sys.argv[:] = [""]
    import torch

    threads = thread_count(job, spec)
    torch.set_num_threads(threads)
    if job.world_size > 1:
        # As torchrun and `accelerate launch` do. Without them an Accelerator changes torch's threads, and on a CPU
        # each of its processes takes itself for the only one.
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        if not torch.cuda.is_available():
            os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def seed_everything(spec: RunSpec, state: Mapping[str, Any] | None) -> None:
    """Give torch, numpy and random the same state in every rank: the spec's seed, else the kernel's states.

    A generator that the kernel did not have is seeded from the run's id.
    """
    import numpy as np
    import torch

    from jupyter_train.transport.randomness import restore_random_state

    if spec.seed is not None:
        torch.manual_seed(spec.seed)
        np.random.seed(spec.seed % 2**32)
        random.seed(spec.seed)
        return
    own = int.from_bytes(hashlib.sha256(spec.run_id.encode()).digest()[:4])
    torch.manual_seed(own)
    np.random.seed(own)
    random.seed(own)
    if state is not None:
        restore_random_state(state)


def restore_settings(
    job: Job, spec: RunSpec, settings: Mapping[str, bytes], *, device: str, remark: Callable[[str], None]
) -> None:
    """Set what earlier cells of the notebook set for the whole process. In the thread that runs the cell.

    The remarks are rank 0's to make: the others would say the same.
    """
    from jupyter_train.transport.settings import Where
    from jupyter_train.transport.settings import restore_settings as restore

    where = Where(rank=job.rank, device=device, threads=thread_count(job, spec))
    for text in restore(settings, where):
        if job.rank == 0:
            remark(text)


def _enter_folder(cwd: str, remark: Callable[[str], None]) -> None:
    if not cwd:
        return
    try:
        os.chdir(cwd)
    except OSError as error:
        remark(
            f"the notebook's folder cannot be entered on the worker ({error}); the cell runs in {os.getcwd()}"
        )
