"""A shadow changes nobody's file, sends nothing and starts nothing."""

from __future__ import annotations

import json
import math
import os
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from jupyter_train.runtime.proof import fence
from jupyter_train.runtime.proof.held import HeldBack


def _held(code: str, scratch: Path, how: str, answer: int) -> None:
    """In a fork: run ``code`` held back and write what it leaves in ``out``."""

    def tell(value: object) -> NoReturn:
        os.write(answer, json.dumps(value).encode())
        os._exit(0)

    if how == "fence":
        fence.fence([str(scratch), "/dev", "/proc/self"])
    else:
        began = time.time() - 3600 if how == "later" else math.inf
        HeldBack(scratch, (), lambda what: tell({"gave up": what}), began=began).install()
    names: dict[str, object] = {"os": os, "Path": Path, "scratch": str(scratch), "out": None}
    exec(textwrap.dedent(code), names)
    tell(names["out"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    folder = tmp_path / "notebook"
    folder.mkdir()
    (folder / "data.txt").write_text("mine")
    return folder


@pytest.fixture
def run(place: Path) -> Callable[..., object]:
    """What a piece of code ended with, where it was held back."""

    def run(code: str, how: str = "hold") -> object:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pytest-timeout has a thread
            pid = os.fork()
        if pid == 0:
            try:
                os.chdir(place)
                _held(code, place.parent / "scratch", how, write)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        assert {path.name: path.read_text() for path in place.iterdir()} == {"data.txt": "mine"}
        return json.loads(said)

    return run


def test_files_that_it_writes_are_its_own_and_look_as_if_they_were_there(run: Callable[..., object]) -> None:
    code = """
        os.makedirs("ckpt/a", exist_ok=True)
        os.makedirs("ckpt/a", exist_ok=True)
        Path("ckpt").mkdir(exist_ok=True)
        with open("ckpt/a/log", "w") as file:
            file.write("one")
        with open("ckpt/a/log", "a") as file:
            file.write(" two")
        Path("data.txt").write_text("theirs")
        os.replace("ckpt/a/log", "ckpt/a/last")
        open("gone", "w").close()
        os.remove("gone")
        out = [open("ckpt/a/last").read(), Path("data.txt").read_text(), os.listdir("ckpt/a"),
               os.path.exists("gone"), Path("ckpt").is_dir()]
    """
    assert run(code) == ["one two", "theirs", ["last"], False, True]


def test_what_cannot_be_written_is_refused_as_ever(run: Callable[..., object]) -> None:
    code = """
        out = []
        for bad in (lambda: open("nowhere/x", "w"), lambda: open("data.txt", "x"), lambda: os.mkdir("data.txt"),
                    lambda: open("missing"), lambda: os.listdir("missing")):
            try: bad()
            except OSError as error: out.append(type(error).__name__)
    """
    assert run(code) == [
        "FileNotFoundError",
        "FileExistsError",
        "FileExistsError",
        *["FileNotFoundError"] * 2,
    ]


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("os.remove('data.txt')", "removes a file"),
        ("os.rename('data.txt', 'b')", "renames a file"),
        ("Path('data.txt').unlink()", "removes a file"),
        ("open('data.txt', 'r+')", "changes a file"),
        ("os.symlink('data.txt', 'b')", "links a file"),
        ("os.truncate('data.txt', 0)", "cuts off a file"),
        ("os.chmod('data.txt', 0)", "changes a file's rights"),
        ("import shutil; shutil.rmtree('.')", "removes a file"),
        ("import subprocess; subprocess.run(['touch', 'b'])", "starts a process"),
        ("os.system('touch b')", "starts a process"),
        ("os.execv('/bin/true', ['true'])", "starts a process"),
        ("os.posix_spawn('/bin/true', ['true'], {})", "starts a process"),
        ("os.kill(os.getppid(), 0)", "sends a signal"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "uses the network"),
        ("import socket; socket.socket().connect(('127.0.0.1', 9))", "uses the network"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "uses the network"),
        ("import sqlite3; sqlite3.connect('b.db')", "opens a database"),
        ("import _io; _io.open('b', 'w')", "writes a file"),
        ("import posix; posix.open('b', os.O_CREAT | os.O_WRONLY)", "writes a file"),
        ("import posix; posix.mkdir('b')", "makes a folder"),
    ],
)
def test_anything_else_that_would_be_noticed_ends_it(
    run: Callable[..., object], code: str, what: str
) -> None:
    assert run(code) == {"gave up": what}


def test_what_the_ranks_may_have_written_meanwhile_is_not_read(run: Callable[..., object]) -> None:
    gave_up = {"gave up": "reads data.txt, which has changed since the run began"}
    assert run("out = open('data.txt').read()", "later") == gave_up
    assert run("open('own', 'w').write('x'); out = open('own').read()", "later") == "x"


def test_temporary_folders_and_processes_of_its_own_are_free(run: Callable[..., object]) -> None:
    code = """
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            open(folder + "/x", "w").close()
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("x")
        pid = os.fork()
        if not pid:
            os._exit(3)
        out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    """
    assert run(code) == 3


def test_nothing_is_saved_by_torch(run: Callable[..., object]) -> None:
    assert run("import torch; out = torch.save({}, 'm.pt')") is None


def test_the_kernel_refuses_what_python_does_not_see(run: Callable[..., object]) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(fence._LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), fence._ABI_QUERY) < 1:
        pytest.skip("this kernel has no Landlock")
    code = """
        import ctypes, socket
        libc = ctypes.CDLL(None, use_errno=True)
        out = [libc.unlink(b"data.txt"), libc.open(b"b", os.O_CREAT | os.O_WRONLY, 0o600), libc.mkdir(b"c", 0o700),
               libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0), libc.socket(socket.AF_INET6, socket.SOCK_DGRAM, 0),
               libc.execv(b"/bin/true", (ctypes.c_char_p * 2)(b"true", None))]
        libc.creat((scratch + "/inside").encode(), 0o600)
        out += [os.path.exists(scratch + "/inside"), Path("data.txt").read_text()]
    """
    assert run(code, "fence") == [-1, -1, -1, -1, -1, -1, True, "mine"]
    assert os.path.exists("/bin/true")
