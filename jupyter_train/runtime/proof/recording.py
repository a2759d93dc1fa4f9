"""Samples of the first backwards of a cell, and the file that carries them from rank 0 to the shadow."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STEPS = 4  #: backwards that are compared
_HEAD = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Evenly strided entries of one tensor, and the norm of all of it."""

    values: NDArray[Any]  #: float64 of a float64 tensor, else float32; one dimension
    norm: float
    shape: tuple[int, ...]
    dtype: str  #: of the tensor, as torch writes it, without "torch."


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one backward left."""

    number: int  #: of the backward, from the start of the cell
    place: str  #: the line that called it, in words
    loss: float | None
    gradients: Mapping[str, Sample]  #: by the names that the cell has for the parameters
    buffers: Mapping[str, Sample]
    weights: Mapping[str, Sample] = field(default_factory=dict)  #: of the first step only, before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The first steps of one process."""

    steps: tuple[Step, ...]
    draws: tuple[str, ...] = ()  #: who draws random numbers within a step, in words; known of the shadow only
    coarse: str = ""  #: a type of less than 32 bits that autocast computes in; known of the shadow only
    nameless: int = 0  #: parameters that got gradients but no sample


def recording_file(folder: Path, attempt: int | str) -> Path:
    """The file in a run's folder in which rank 0 leaves what it recorded."""
    return folder / f"proof-{attempt}.bin"


def write(recording: Recording, path: Path) -> None:
    """Write ``recording`` to ``path``, whole or not at all.

    Raises:
        OSError: the disk is full, for instance.
    """
    arrays: list[bytes] = []
    at = 0

    def told(sample: Sample) -> list[Any]:
        nonlocal at
        raw = np.ascontiguousarray(sample.values).tobytes()
        arrays.append(raw)
        at += len(raw)
        return [str(sample.values.dtype), at - len(raw), len(raw), sample.norm, sample.shape, sample.dtype]

    def group(samples: Mapping[str, Sample]) -> dict[str, list[Any]]:
        return {name: told(sample) for name, sample in samples.items()}

    head = {
        "steps": [
            {
                "number": step.number,
                "place": step.place,
                "loss": step.loss,
                "gradients": group(step.gradients),
                "buffers": group(step.buffers),
                "weights": group(step.weights),
            }
            for step in recording.steps
        ],
        "draws": recording.draws,
        "coarse": recording.coarse,
        "nameless": recording.nameless,
    }
    text = json.dumps(head).encode()
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(b"".join([_HEAD.pack(len(text)), text, *arrays]))
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read(path: Path) -> Recording:
    """The recording in ``path``.

    Raises:
        OSError: there is none.
    """
    data = path.read_bytes()
    (length,) = _HEAD.unpack_from(data)
    head = json.loads(data[_HEAD.size : _HEAD.size + length])
    start = _HEAD.size + length

    def sample(told: list[Any]) -> Sample:
        dtype, at, size, norm, shape, kind = told
        values = np.frombuffer(data[start + at : start + at + size], np.dtype(dtype))
        return Sample(values=values, norm=float(norm), shape=tuple(shape), dtype=str(kind))

    def group(samples: Mapping[str, list[Any]]) -> dict[str, Sample]:
        return {name: sample(told) for name, told in samples.items()}

    return Recording(
        steps=tuple(
            Step(
                number=step["number"],
                place=step["place"],
                loss=step["loss"],
                gradients=group(step["gradients"]),
                buffers=group(step["buffers"]),
                weights=group(step["weights"]),
            )
            for step in head["steps"]
        ),
        draws=tuple(head["draws"]),
        coarse=head["coarse"],
        nameless=head["nameless"],
    )
