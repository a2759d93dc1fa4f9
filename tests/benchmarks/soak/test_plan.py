"""Faults come when the seed says, of every kind equally often."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from benchmarks.__main__ import arguments
from benchmarks.soak import cells, census, page, plan
from benchmarks.soak.campaigns import CAMPAIGNS, Size


def test_interrupts_come_at_any_time_in_every_place_once_and_twice() -> None:
    drawn = list(plan.interrupts(60, length_s=20.0, seed=1))
    assert drawn == list(plan.interrupts(60, length_s=20.0, seed=1))
    assert set(Counter((one.place, one.again_after_s is None) for one in drawn).values()) == {6}
    times = sorted(one.at_s for one in drawn)
    assert 0 <= times[0] < 2
    assert 18 < times[-1] <= 20


def test_cycles_and_kills_are_of_every_kind_equally_often() -> None:
    assert Counter(plan.cycles(200, seed=3)) == dict.fromkeys(plan.CYCLE_KINDS, 50)
    drawn = list(plan.kills(45, ("rank", "zygote", "worker"), length_s=30.0, seed=2))
    assert Counter(one.victim for one in drawn) == {"rank": 15, "zygote": 15, "worker": 15}
    assert all(0 <= one.at_s <= 30 and 0 <= one.choice < 1 for one in drawn)


def test_the_cells_are_python() -> None:
    texts = [cells.endless(place, name="x", folder="/f", length_s=1) for place in cells.PLACES]
    texts += [cells.cycle(kind, name="x") for kind in plan.CYCLE_KINDS]
    texts += [
        cells.counted(name="x", folder="/f", epochs=1, pause_s=0.1),
        cells.telling(name="x", pause_s=0.1),
    ]
    for text in (*texts, cells.NEXT.format(name="x")):
        first, _, code = text.partition("\n")
        assert first.startswith("%%train -n 2 --name x")
        ast.parse(code)
    ast.parse(cells.SETUP)


def test_a_process_is_told_by_its_name_its_command_and_its_marks() -> None:
    mark = b"A=1\0JUPYTER_TRAIN_RUN=20260101-000000-aaaaaa"
    assert census.role_of("python -c x", "python", mark) == "rank"
    assert census.role_of("python -c x", "python", mark + b"\0JUPYTER_TRAIN_SHADOW=1") == "shadow"
    assert census.role_of("python", "jt-scheduler", b"") == "scheduler"
    assert census.role_of("python", "jt-w3", b"") == "worker"
    assert census.role_of("python -c from jupyter_train.runtime.zygote import run", "python", b"") == "zygote"
    assert census.role_of("python -m ipykernel_launcher", "python", b"") == "kernel"
    assert census.works_for(b"X=1\0JUPYTER_TRAIN_HOME=/h\0", Path("/h"))
    assert not census.works_for(b"JUPYTER_TRAIN_HOME=/h2\0", Path("/h"))


def test_every_campaign_has_a_count_a_judge_and_a_section() -> None:
    assert set(CAMPAIGNS) == set(Size().counts()) == set(page._JUDGES) == set(page._SECTIONS)
    asked = arguments(["soak", "--interrupts", "6", "--only", "interrupts"])
    assert (asked.measure, asked.interrupts, asked.kills, asked.only) == ("soak", 6, None, "interrupts")


def test_the_page_in_the_docs_is_made_of_the_records_beside_it() -> None:
    assert (page.DOCS / "soak.md").read_text() == page.text(page.read())
