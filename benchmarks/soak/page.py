"""``docs/soak.md``: what the campaigns found, from the records beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.soak import cells, claims
from benchmarks.soak.claims import Claim, percentile
from benchmarks.soak.cycles import Cycle, Look
from benchmarks.soak.ends import Left
from benchmarks.soak.interrupts import Interrupted
from benchmarks.soak.kills import Killed

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
Record = Mapping[str, Any]  #: of one campaign: options, machine, took_s, trials

_HEAD = """# Long campaigns of faults

`make soak` does to runs what happens to them in a life: interrupts and kills at random times, dead kernels, servers and
schedulers, and hundreds of short runs one after the other. A real kernel, a real local cluster, two ranks. This page is written
by it (`python -m benchmarks soak`); every trial is in `docs/soak/*.json`. `make test` and CI do a short one.
"""


def save(campaign: str, record: Record, docs: Path = DOCS) -> None:
    """Keeps the record of a campaign in the place of the last one, and writes the page anew."""
    folder = docs / "soak"
    folder.mkdir(exist_ok=True)
    (folder / f"{campaign}.json").write_text(json.dumps(record, indent=1) + "\n")
    (docs / "soak.md").write_text(text(read(docs)))


def read(docs: Path = DOCS) -> dict[str, Record]:
    """The newest record of every campaign."""
    return {file.stem: json.loads(file.read_text()) for file in sorted((docs / "soak").glob("*.json"))}


def judge(campaign: str, trials: Sequence[Record]) -> list[Claim]:
    """What must hold of these trials."""
    return _JUDGES[campaign](trials)


def text(records: Mapping[str, Record]) -> str:
    """The page."""
    parts = [_HEAD]
    for campaign, (title, told) in _SECTIONS.items():
        if campaign in records:
            record = records[campaign]
            parts.append(f"## {title}\n\n{_circumstances(record)}\n")
            parts.append(table(judge(campaign, record["trials"])))
            parts.append(told(record["trials"]))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def table(judged: Iterable[Claim]) -> str:
    """Claims as a table."""
    rows = [(one.text, one.found.replace("|", "\\|"), "yes" if one.holds else "**no**") for one in judged]
    return _grid(("what must hold", "found", "holds"), rows)


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _circumstances(record: Record) -> str:
    on, options = record["machine"], record["options"]
    asked = ", ".join(f"{value} {name}" for name, value in options.items())
    return (
        f"{asked}; {record['took_s'] / 60:.0f} minutes on {on['date']}, {on['cpu']}, {on['cores']} cores, "
        f"{on['memory_bytes'] / 2**30:.0f} GiB, Linux {on['system']}, Python {on['python']}, torch {on['torch']}, "
        f"distributed {on['distributed']}; load {on['load']} when it began."
    )


def _interrupts(trials: Sequence[Record]) -> str:
    rows = []
    known = [Interrupted(**{**t, "steps": tuple(t["steps"])}) for t in trials]
    for place in dict.fromkeys(t.place for t in known):
        mine = [t for t in known if t.place == place and not t.was_over]
        graceful = [t.graceful_s for t in mine if t.graceful_s is not None]
        forced = [t.forced_s for t in mine if t.forced_s is not None]
        rows.append((place, str(len(mine)), _spread(graceful), _spread(forced)))
    over = sum(t.was_over for t in known)
    note = _load([t.load for t in known])
    note += f"\n{over} came after the run had ended by itself.\n" if over else ""
    head = (
        "where the ranks mostly are",
        "runs",
        "one interrupt: median, longest",
        "a second one: median, longest",
    )
    return _grid(head, rows) + note


def _spread(values: Sequence[float]) -> str:
    return f"{percentile(values, 50):.2f} s, {max(values):.2f} s ({len(values)})" if values else "–"


def _load(loads: Sequence[float]) -> str:
    known = [load for load in loads if load]
    if not known:
        return ""
    return f"\nLoad of the machine at the faults: median {percentile(known, 50):.1f}, highest {max(known):.1f}.\n"


def _cycles(trials: Sequence[Record]) -> str:
    looks = _looks(trials)
    roles = sorted({role for look in looks for role in look.private_bytes})
    head = (
        "cycles",
        "processes",
        "sockets",
        "descriptors",
        "temporary files",
        *(f"{role}, MB" for role in roles),
    )
    rows = [
        (
            str(look.cycles),
            str(sum(look.roles.values())),
            str(sum(look.sockets.values())),
            str(sum(look.descriptors.values())),
            str(len(look.files)),
            *(f"{look.private_bytes.get(role, 0) / 1e6:.1f}" for role in roles),
        )
        for look in looks
    ]
    return (
        "Private memory of all processes of a kind. The kernel remembers its newest 64 runs, the scheduler what each was asked to do.\n\n"
        + _grid(head, rows)
    )


def _looks(trials: Sequence[Record]) -> list[Look]:
    return [Look(**{**t, "files": tuple(t["files"])}) for t in trials if "roles" in t]


def _kills(trials: Sequence[Record]) -> str:
    rows = []
    known = [Killed(**t) for t in trials]
    for victim in dict.fromkeys(t.victim for t in known):
        mine = [t for t in known if t.victim == victim and not t.was_over]
        rows.append(
            (
                victim,
                str(len(mine)),
                _spread([t.detected_s for t in mine if t.detected_s is not None]),
                _spread([t.again_s for t in mine if t.again_s is not None]),
                f"{max((t.repeated for t in mine), default=0)}",
            )
        )
    head = (
        "killed",
        "runs",
        "on record: median, longest",
        "all ranks step again: median, longest",
        "most steps repeated",
    )
    note = _load([t.load for t in known])
    over = sum(t.was_over for t in known)
    note += f"\n{over} came after the run had ended, or hit nothing that it needed.\n" if over else ""
    return _KILLS + _grid(head, rows) + note


_KILLS = f"""Adam, dropout, a learning rate schedule, shuffled batches; `train.checkpoint()` every {cells.CHECKPOINT_EVERY} steps of {cells.STEPS_AN_EPOCH} an epoch, so
that most lie in the middle of one. A zygote is the process that ranks are forked from. Workers of a local cluster have no nanny but the supervisor;
nannies are killed on a plain Dask cluster of three workers (`dask scheduler`, `dask worker`). `python -m benchmarks recovery` measures
the same beside torchrun.

"""


def _ends(trials: Sequence[Record]) -> str:
    known = [Left(**t) for t in trials]
    rows = []
    for way in dict.fromkeys(t.killed for t in known):
        mine = [t for t in known if t.killed == way]
        lost = [t.lost_s for t in mine if t.lost_s is not None]
        rows.append(
            (
                way,
                str(len(mine)),
                ", ".join(sorted({t.state for t in mine})),
                str(sum(t.values for t in mine)),
                str(sum(t.lines for t in mine)),
                f"{max(lost):.2f} s" if lost else "–",
            )
        )
    head = ("killed", "runs", "ended as", "values compared", "lines compared", "LOST after, longest")
    return _grid(head, rows)


def _judge_interrupts(trials: Sequence[Record]) -> list[Claim]:
    return claims.of_interrupts([Interrupted(**{**t, "steps": tuple(t["steps"])}) for t in trials])


def _judge_cycles(trials: Sequence[Record]) -> list[Claim]:
    return claims.of_cycles([Cycle(**t) for t in trials if "kind" in t], _looks(trials))


_JUDGES: dict[str, Callable[[Sequence[Record]], list[Claim]]] = {
    "interrupts": _judge_interrupts,
    "kills": lambda trials: claims.of_kills([Killed(**t) for t in trials]),
    "ends": lambda trials: claims.of_ends([Left(**t) for t in trials]),
    "cycles": _judge_cycles,
}
#: In the order of the page.
_SECTIONS: dict[str, tuple[str, Callable[[Sequence[Record]], str]]] = {
    "interrupts": ("Interrupts", _interrupts),
    "kills": ("Kills under `--retries`", _kills),
    "ends": ("Dead kernels, servers and schedulers", _ends),
    "cycles": ("Many short runs", _cycles),
}


def as_records(trials: Iterable[Any]) -> list[Record]:
    """Trials as JSON values."""
    return [json.loads(json.dumps(asdict(trial))) for trial in trials]
