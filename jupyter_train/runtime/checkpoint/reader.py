"""Reads what an attempt begins from: the state that all ranks share, and what was this rank's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_train.errors import CheckpointUnreadable
from jupyter_train.home import run_folder
from jupyter_train.record.checkpoint import ResumePoint
from jupyter_train.runtime.checkpoint.loading import load_all, load_into, plain_value
from jupyter_train.runtime.checkpoint.sharded import FOLDER
from jupyter_train.runtime.checkpoint.writer import FORMAT, VERSION

OWN_LABELS = "jupyter_train/"  #: how labels begin of what is no value of the cell

__all__ = [
    "Saved",
    "contents",
    "load_all",
    "load_into",
    "plain_value",
    "read_file",
    "read_metric",
    "read_point",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint as one rank loads it. States are as they were frozen: `load_all` puts them into objects."""

    number: int
    step: int
    epoch: int | None
    batch: int
    world_size: int  #: how many ranks wrote it
    position: dict[str, Any]  #: where this rank's loops stood
    shared: dict[str, Any] = field(repr=False)  #: label → state
    own: dict[str, Any] = field(repr=False)  #: label → state; empty where no such rank wrote any
    names: tuple[str, ...] = ()
    metric: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)  #: label → why it could not be kept


def read_point(point: ResumePoint, rank: int, home: Path) -> Saved:
    """The checkpoint that ``point`` names, for ``rank``. Nothing in it is executed.

    Raises:
        CheckpointUnreadable: a file is missing, damaged, or of a newer version; says which and where.
    """
    folder = run_folder(point.run_id, home)
    told = f"checkpoint {point.number} of run {point.run_id}"
    first = read_file(folder / point.files[0], told)
    mine = first
    if rank and rank < len(point.files):
        mine = read_file(folder / point.files[rank], told)
    is_one_of_them = rank < len(point.files)
    return Saved(
        number=first["number"],
        step=first["step"],
        epoch=first["epoch"],
        batch=first["batch"],
        world_size=first["world_size"],
        position=plain_value(mine["position"]),
        shared=first["shared"],
        own=mine["own"] if is_one_of_them else {},
        names=tuple(first["names"]),
        metric=first["metric"],
        left_out={**first["left_out"], **mine["left_out"]},
    )


def contents(path: Path) -> dict[str, Any]:
    """What the cell kept in a file of rank 0, by its own names: states as state dicts, the rest as it was.

    Raises:
        CheckpointUnreadable: it is missing, damaged, or of a newer version.
    """
    content = read_file(path)
    found: dict[str, Any] = {}
    for label, state in content["shared"].items():
        if label.startswith(OWN_LABELS):
            continue
        name = label if label in content["names"] else ".".join(label.split("/")[1:]) or label
        found[label if name in found else name] = state
    return dict(plain_value(found))


def read_metric(path: Path) -> dict[str, float]:
    """The values that a checkpoint is ranked by; its tensors are not read.

    Raises:
        CheckpointUnreadable: it is missing or damaged.
    """
    return dict(read_file(path, lazily=True)["metric"])


def read_file(path: Path, told: str = "", *, lazily: bool = False) -> dict[str, Any]:
    """What one file of a checkpoint holds, by `torch.load` with ``weights_only``.

    ``lazily``: tensors are mapped from the file.

    Raises:
        CheckpointUnreadable: it is missing, damaged, or of a newer version.
    """
    import torch

    told = told or f"the checkpoint {path.name}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except FileNotFoundError:
        raise CheckpointUnreadable(
            f"{told} cannot be read: {path} is missing on this host. It lies where the rank ran that wrote it: "
            "a JUPYTER_TRAIN_HOME that all hosts share makes it visible everywhere"
        ) from None
    except PermissionError as error:
        raise CheckpointUnreadable(f"{told} cannot be read: {error}") from None
    except Exception as error:  # damaged files raise what zip, pickle and torch happen to meet
        first_line = str(error).partition("\n")[0]
        raise CheckpointUnreadable(
            f"{told} is damaged: {path}: {type(error).__name__}: {first_line:.200}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointUnreadable(f"{told}: {path} is no checkpoint of jupyter_train")
    if content["version"] > VERSION:
        raise CheckpointUnreadable(
            f"{told} was written by a newer jupyter_train (format {content['version']}, this one reads {VERSION}): "
            "upgrade, or load it with torch.load"
        )
    sharded = content.get("sharded")
    if sharded:
        for marker in sharded["markers"]:
            marker[FOLDER] = str(path.parent / sharded["folder"])
    return content
