"""Interpreters that have torch already: importing it takes seconds, a fork milliseconds."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from typing import BinaryIO


class Forks:
    """Runs programs in forks of one process that has imported torch and done nothing else."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.kit.forks"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, code: str, given: bytes = b"") -> str:
        """What ``code`` writes, as ``python -c`` runs it with ``given`` as its input; fails where it fails."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((code, given), self._process.stdin)
        self._process.stdin.flush()
        status, out, told = pickle.load(self._process.stdout)
        assert status == 0, told.decode()
        return str(out.decode())

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _run(code: str, files: tuple[BinaryIO, BinaryIO, BinaryIO]) -> None:
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, how) for n, how in enumerate("rww"))
    status = 0
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve() -> None:
    import torch  # noqa: F401

    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    while True:
        try:
            code, given = pickle.load(asked)
        except EOFError:
            return
        with (
            tempfile.TemporaryFile() as file,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as told,
        ):
            file.write(given)
            file.seek(0)
            child = os.fork()
            if not child:
                _run(code, (file, out, told))
            _, status = os.waitpid(child, 0)
            out.seek(0)
            told.seek(0)
            pickle.dump((status, out.read(), told.read()), answers)
            answers.flush()


if __name__ == "__main__":
    _serve()
