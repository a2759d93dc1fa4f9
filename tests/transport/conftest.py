from __future__ import annotations

import itertools
import json
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from jupyter_train.transport.capture import Capture, capture
from jupyter_train.transport.content import ContentStore
from jupyter_train.transport.overlap import NOBODY, Others
from jupyter_train.transport.result import Applied, apply_result, load_result


class Ranks:
    """Runs cells in fresh processes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.transport.rank"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the rank died"
        return json.loads(line)

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Notebook:
    """A notebook's namespace, with cells that run in it and cells that run on a rank."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder = folder
        self.content = ContentStore(folder / "content")
        self.module = types.ModuleType("__main__")
        self.names = self.module.__dict__
        self.ranks = ranks
        self.told: dict[str, Any] = {}
        self.captured: Capture | None = None
        self.result = folder / "none"
        self._numbers = itertools.count(1)

    def __getitem__(self, name: str) -> Any:
        return self.names[name]

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def cell(self, source: str) -> None:
        exec(compile(source, "<notebook>", "exec"), self.names)

    def capture(self, source: str) -> Capture:
        return capture(source, self.names, content=self.content)

    def train(
        self,
        source: str,
        *,
        keep: list[str] | None = None,
        large_bytes: int = 0,
        changed_bytes: int = 0,
        meanwhile: str = "",
        others: Others = NOBODY,
        fails: bool = False,
    ) -> Applied:
        """Run ``source`` on a rank and bring its result in."""
        self.captured = captured = self.capture(source)
        self.result = self.folder / "runs" / f"result-{next(self._numbers)}.bin"
        self.told = self.ranks.run(
            {
                "source": source,
                "refs": [asdict(ref) for ref in captured.refs],
                "content": str(self.content.folder),
                "result": str(self.result),
                "keep": keep,
                "large_bytes": large_bytes,
                "changed_bytes": changed_bytes,
                "sys_path": [str(self.folder)],
            }
        )
        assert "failed" not in self.told, self.told["failed"]
        assert fails or not self.told["error"], self.told["error"]
        if meanwhile:
            self.cell(meanwhile)
        return apply_result(self.result, captured, self.names, waited=not meanwhile, others=others)

    def elsewhere(self) -> dict[str, Any]:
        """What another kernel gets of the last run."""
        assert self.captured is not None
        return load_result(self.result, self.captured.refs, self.content)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    process = Ranks()
    yield process
    process.close()


@pytest.fixture
def notebook(tmp_path: Path, ranks: Ranks, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    opened = Notebook(tmp_path, ranks)
    # As in a kernel: __main__ is the notebook's namespace.
    monkeypatch.setitem(sys.modules, "__main__", opened.module)
    return opened
