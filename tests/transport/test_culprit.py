from __future__ import annotations

import functools
import io
import socket
import sqlite3
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from jupyter_train.errors import CaptureError
from jupyter_train.transport.capture import capture
from jupyter_train.transport.content import ContentStore


@pytest.fixture
def names() -> dict[str, Any]:
    return types.ModuleType("__main__").__dict__


def refused(cell: str, names: dict[str, Any], tmp_path: Path) -> str:
    with pytest.raises(CaptureError) as caught:
        capture(cell, names, content=ContentStore(tmp_path))
    return str(caught.value)


def test_an_open_file_deep_in_a_loader_is_named_with_the_way_to_it(
    names: dict[str, Any], tmp_path: Path
) -> None:
    exec(
        "class Files:\n"
        "    def __init__(self, file): self.files = {'a': [file]}\n"
        "    def __len__(self): return 1\n"
        "    def __getitem__(self, index): return 0\n",
        names,
    )
    with open(__file__) as file:
        names["loader"] = DataLoader(names["Files"](file))

        message = refused("for x in loader: pass", names, tmp_path)

    assert message == (
        "loader.dataset.files['a'][0] (_io.TextIOWrapper) cannot travel to the ranks: "
        "an open file; open it inside the cell"
    )


def test_a_file_opened_for_reading_does_not_become_its_contents(
    names: dict[str, Any], tmp_path: Path
) -> None:
    with open(__file__) as file:
        names["file"] = file

        assert "an open file" in refused("file.read()", names, tmp_path)


def test_a_submodule_is_named_as_the_user_writes_it(names: dict[str, Any], tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(1, 1))
    model.head = torch.nn.Module()
    model.head.lock = threading.Lock()
    names["model"] = model

    assert refused("model(1)", names, tmp_path).startswith("model.head.lock (_thread.lock) cannot travel")


def test_what_a_closure_holds_is_named(names: dict[str, Any], tmp_path: Path) -> None:
    exec(
        "def make(connection):\n    def query(): return connection\n    return query",
        names,
    )
    connection = sqlite3.connect(":memory:")
    names["query"] = names["make"](connection)

    message = refused("query()", names, tmp_path)
    connection.close()

    assert message.startswith("connection in the closure of query (sqlite3.Connection) cannot travel")
    assert "connect inside the cell" in message


def test_a_default_argument_is_named(names: dict[str, Any], tmp_path: Path) -> None:
    exec("def work(x, lock=None): pass", names)
    names["work"].__defaults__ = (threading.Lock(),)

    assert refused("work(1)", names, tmp_path).startswith("default lock of work (_thread.lock)")


def test_a_global_of_a_function_is_refused_under_its_own_name(names: dict[str, Any], tmp_path: Path) -> None:
    exec("def work(): return generator", names)
    names["generator"] = (i for i in range(3))

    assert refused("work()", names, tmp_path).startswith(
        "generator (generator) cannot travel to the ranks: a running"
    )


REFUSED = {
    "a lock": threading.RLock(),
    "an event": threading.Event(),
    "data of one thread": threading.local(),
    "a weak reference": weakref.ref(Path),
    "an iterator over a DataLoader": iter(DataLoader(TensorDataset(torch.ones(2)))),
    "an open file": io.BufferedReader(io.BytesIO()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_belongs_to_one_process_is_refused_with_the_reason(
    reason: str, names: dict[str, Any], tmp_path: Path
) -> None:
    names["thing"] = REFUSED[reason]

    assert reason in refused("thing", names, tmp_path)


def test_a_socket_is_refused(names: dict[str, Any], tmp_path: Path) -> None:
    with socket.socket() as opened:
        names["opened"] = opened

        assert "a socket; connect inside the cell" in refused("opened.recv(1)", names, tmp_path)


def test_a_method_is_followed_to_its_object(names: dict[str, Any], tmp_path: Path) -> None:
    exec("class Worker:\n    def run(self): pass\nworker = Worker()", names)
    names["worker"].lock = threading.Lock()
    names["run"] = functools.partial(names["worker"].run, 1)

    assert ".lock (_thread.lock) cannot travel" in refused("run()", names, tmp_path)


def test_an_object_whose_own_pickling_fails_says_what_it_said(names: dict[str, Any], tmp_path: Path) -> None:
    exec(
        "class Stubborn:\n    def __reduce__(self): raise RuntimeError('I stay here')\nthing = [Stubborn()]",
        names,
    )

    assert refused("thing", names, tmp_path) == "thing[0] (Stubborn) cannot travel to the ranks: I stay here"


def test_a_structure_too_deep_for_pickle_is_refused_not_a_crash(
    names: dict[str, Any], tmp_path: Path
) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    names["deep"] = deep

    message = refused("deep", names, tmp_path)
    while deep:  # freed link by link, not in one recursion
        deep = deep.pop()

    assert message.startswith("deep")
    assert "recursion" in message
