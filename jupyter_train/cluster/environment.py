"""Whether kernel and cluster have the same Python, torch and jupyter_train.

What travels between them is pickled, and pickles of another Python's code or
another torch's tensors fail late and strangely. So it is asked first, with
Dask's own ``versions`` call, which needs none of our code on the other side.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import TYPE_CHECKING, Any

from jupyter_train._version import __version__
from jupyter_train.cluster.fingerprint import version
from jupyter_train.errors import ClusterUnreachable, EnvironmentMismatch

if TYPE_CHECKING:
    from distributed import Client

Versions = Mapping[str, str]  #: package → version, empty where it is missing

PACKAGES = ("python", "torch", "jupyter_train")
NOT_NEEDED_BY_SCHEDULER = ("torch",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One package that some place has otherwise than the kernel."""

    package: str
    kernel: str
    there: Mapping[str, str]  #: place (a worker's address, or ``scheduler``) → version, those that differ


def check(client: Client, *, name: str) -> None:
    """Compare this kernel with every worker and the scheduler.

    Raises:
        EnvironmentMismatch: they differ, with what and where.
        ClusterUnreachable: the cluster does not answer.
    """
    found = differences(here(), survey(client))
    if found:
        raise EnvironmentMismatch(sentence(found, name=name) + "\n\n" + table(found))


def here() -> dict[str, str]:
    """The versions of this process."""
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "torch": comparable("torch", version("torch")),
        "jupyter_train": __version__,
    }


def survey(client: Client) -> dict[str, dict[str, str]]:
    """The versions of every place of a cluster, by its address; ``scheduler`` for the scheduler.

    Raises:
        ClusterUnreachable: the cluster does not answer.
    """
    try:
        raw = client.get_versions(check=False, packages=["torch"])
    except (OSError, TimeoutError) as error:
        raise ClusterUnreachable(f"the cluster does not tell its versions: {error}") from error
    places = {"scheduler": raw["scheduler"], **raw["workers"]}
    out = {
        place: {
            "python": comparable("python", _package(answer, "python")),
            "torch": comparable("torch", _package(answer, "torch")),
        }
        for place, answer in places.items()
    }
    ours = here()["python"]
    # Code of another Python must not run there, and theirs is a mismatch already.
    alike = [place for place, versions in out.items() if versions["python"] == ours]
    for place, text in _ask_jupyter_train(client, alike).items():
        out[place]["jupyter_train"] = text
    return out


def differences(ours: Versions, theirs: Mapping[str, Versions]) -> list[Difference]:
    """What differs, package by package; a package that nobody could be asked for does not."""
    out = []
    for package in PACKAGES:
        there = {
            place: versions[package]
            for place, versions in theirs.items()
            if package in versions
            and versions[package] != ours[package]
            and not (place == "scheduler" and package in NOT_NEEDED_BY_SCHEDULER)
        }
        if there:
            out.append(Difference(package=package, kernel=ours[package], there=there))
    return out


def comparable(package: str, text: str) -> str:
    """The part of a version that has to agree.

    Of Python and torch major and minor: ``2.13.0+cpu`` on a laptop and
    ``2.13.1+cu130`` on a GPU read each other's pickles.
    """
    return ".".join(text.split("+", maxsplit=1)[0].split(".")[:2]) if package in ("python", "torch") else text


def sentence(found: list[Difference], *, name: str) -> str:
    """What differs, and what to do about it."""
    first = found[0]
    workers = [place for place in first.there if place != "scheduler"]
    who = "the workers" if workers else "the scheduler"
    theirs = sorted(set(first.there.values()))
    if theirs == [""]:
        what = (
            f"{who} of {name} have no {first.package}"
            if workers
            else f"{who} of {name} has no {first.package}"
        )
        return f"{what}, and this kernel has {first.kernel}. Install it there and start the cluster again."
    has = "have" if workers else "has"
    versions = " and ".join(text or "none" for text in theirs)
    return (
        f"{who} of {name} {has} {first.package} {versions}, and this kernel has {first.kernel or 'none'}. "
        f"Use the same {first.package} in both, and start the cluster or the kernel again."
    )


def table(found: list[Difference]) -> str:
    """The differences as a small table, places that agree with each other in one row."""
    rows = [("", "kernel", "there", "where")]
    for one in found:
        for text in sorted(set(one.there.values())):
            places = [place for place, theirs in one.there.items() if theirs == text]
            where = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
            rows.append((one.package, one.kernel or "missing", text or "missing", where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _package(answer: Any, package: str) -> str:
    """A version out of one answer to Dask's ``versions``, which is None or an error where it failed."""
    packages = answer.get("packages") if isinstance(answer, Mapping) else None
    return str(packages.get(package) or "") if isinstance(packages, Mapping) else ""


def _ask_jupyter_train(client: Client, places: list[str]) -> dict[str, str]:
    """The jupyter_train that is imported in each place; empty where there is none."""
    ask = _travelling(_installed)
    workers = [place for place in places if place != "scheduler"]
    try:
        out = dict(client.run(ask, workers=workers)) if workers else {}
        if "scheduler" in places:
            out["scheduler"] = client.run_on_scheduler(ask)
    except (OSError, TimeoutError) as error:
        raise ClusterUnreachable(f"the cluster does not tell its versions: {error}") from error
    return {place: str(text) for place, text in out.items()}


def _installed() -> str:
    try:
        from jupyter_train._version import __version__ as there
    except ImportError:
        return ""
    return there


def _travelling(function: Callable[[], str]) -> Callable[[], str]:
    """The function as one that is pickled by its code, since the other side may not have this module."""
    assert isinstance(function, FunctionType)
    out = FunctionType(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    out.__module__ = "__main__"
    return out
