"""Stand-ins for transport and data parallel: the engine's own tests need neither.

A zygote started through `DoubledAgent` has them in place of the real modules.
"""

from __future__ import annotations

import pickle
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_train.runtime import launcher
from jupyter_train.runtime.agent import Agent


@dataclass
class Loaded:
    random_state: Any = None


@dataclass
class Summary:
    names: tuple[str, ...]
    remarks: tuple[str, ...]
    size_bytes: int


class PeerLost(RuntimeError):
    pass


class Parallel:
    """Collectives over gloo, made when they are first asked for."""

    def __init__(self, rank: int, world_size: int, store: Any) -> None:
        self._about = rank, world_size, store
        self._group: Any = None

    def sum(self, value: float) -> float:
        return sum(self.gather(value))

    def mean(self, value: float) -> float:
        return self.sum(value) / self._about[1]

    def gather(self, value: Any) -> list[Any]:
        import torch
        import torch.distributed as dist

        rank, world_size, store = self._about
        if self._group is None:
            self._group = dist.ProcessGroupGloo(dist.PrefixStore("doubles", store), rank, world_size)
        mine = torch.tensor([float(value)])
        out = [torch.empty(1) for _ in range(world_size)]
        self._group.allgather([out], [mine]).wait()
        return [float(each) for each in out]

    def finish(self) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def close(self) -> None: ...


def install(*, rank: int, world_size: int, store: Any, **_: Any) -> Parallel:
    return Parallel(rank, world_size, store)


def load_capture(refs: Any, content: Any, namespace: dict[str, Any]) -> Loaded:
    return Loaded()


def pack_result(
    loaded: Loaded, namespace: dict[str, Any], path: Path, *, keep: Any, error: BaseException | None = None
) -> Summary:
    names = {name: value for name, value in namespace.items() if isinstance(value, (int, float, str, list))}
    names = {name: value for name, value in names.items() if not name.startswith("__")}
    path.write_bytes(pickle.dumps({"names": names, "error": error}))
    return Summary(tuple(names), (), path.stat().st_size)


def put_in_place() -> None:
    """Called in a zygote before it imports anything of ours."""
    from jupyter_train.runtime import parallel

    for name, members in {
        "jupyter_train.transport.load": {"load_capture": load_capture},
        "jupyter_train.transport.result": {"pack_result": pack_result},
    }.items():
        module = types.ModuleType(name)
        module.__dict__.update(members)
        sys.modules[name] = module
    parallel.install = install
    parallel.PeerLost = PeerLost


class DoubledAgent(Agent):
    """An agent whose ranks have the stand-ins."""

    def setup(self, worker: Any) -> None:
        plain = launcher.zygote_command

        def command(fd: int, path: list[str]) -> list[str]:
            python, flag, program, *rest = plain(fd, path)
            first, after = program.split(";", 1)
            doubled = f"{first};import tests.runtime.doubles as d; d.put_in_place();{after}"
            return [python, flag, doubled, *rest]

        launcher.zygote_command = command  # type: ignore[assignment]
        super().setup(worker)
