"""Holds back what a shadow would do to the world: files go into a scratch folder, anything else ends it.

Three nets. Functions of Python that write files are led into the scratch folder.
An audit hook (PEP 578) sees what gets past them, and everything else that
others could notice: it ends the shadow before it happens. Where the kernel has
Landlock and seccomp, C code cannot write elsewhere, connect or start programs
either (`jupyter_train.runtime.proof.fence`).
"""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

from jupyter_train.runtime import processes

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.remove": "removes a file",
    "os.rename": "renames a file",
    "os.rmdir": "removes a folder",
    "os.link": "links a file",
    "os.symlink": "links a file",
    "os.truncate": "cuts off a file",
    "os.chmod": "changes a file's rights",
    "os.chown": "changes a file's owner",
    "os.lchown": "changes a file's owner",
    "os.utime": "changes a file's times",
    "os.setxattr": "changes a file's attributes",
    "os.removexattr": "changes a file's attributes",
    "os.mkdir": "makes a folder",
}
_ENDS = {
    "subprocess.Popen": "starts a process",
    "os.system": "starts a process",
    "os.exec": "starts a process",
    "os.posix_spawn": "starts a process",
    "os.spawn": "starts a process",
    "os.forkpty": "starts a process",
    "pty.spawn": "starts a process",
    "os.killpg": "sends a signal",
    "signal.pthread_kill": "sends a signal",
    "socket.getaddrinfo": "uses the network",
    "socket.gethostbyname": "uses the network",
    "socket.gethostbyaddr": "uses the network",
    "socket.sendto": "uses the network",
    "sqlite3.connect": "opens a database",
    "syslog.syslog": "writes to the system's log",
}
_CONNECTS = frozenset({"socket.connect", "socket.bind", "socket.sendmsg"})
_DIVERTED = ("open", "mkdir")
_LOOKS = ("stat", "lstat", "listdir", "scandir")
_OWN = ("remove", "unlink", "rmdir", "rename", "replace", "utime", "chmod")
_BESIDE = ("dir_fd", "src_dir_fd", "dst_dir_fd")
_FREE = ("/dev/null", "/dev/shm/")  # loaders hand batches over in shared memory

Real = dict[str, Callable[..., Any]]


class HeldBack:
    """What the cell may do is inside ``scratch``; for the rest of this process's life.

    Args:
        scratch: an empty folder.
        ours: folders of our own, in which loading a capture marks files as used.
        give_up: ends this process, told what the cell was about to do.
        began: unix time since when a file that changes is another than the ranks have read.
    """

    def __init__(
        self,
        scratch: Path,
        ours: Iterable[Path],
        give_up: Callable[[str], NoReturn],
        *,
        began: float = math.inf,
    ) -> None:
        self._began = began
        self._scratch = str(scratch.resolve())
        self._free = (*_FREE, *(f"{path}{os.sep}" for path in ours))
        self._give_up = give_up
        self._real: Real = {name: getattr(os, name) for name in (*_DIVERTED, *_LOOKS, *_OWN)}
        self._open = builtins.open

    def install(self) -> None:
        """From now on; there is no way back."""
        import tempfile

        sys.dont_write_bytecode = True
        os.environ["TMPDIR"] = tempfile.tempdir = self._scratch
        builtins.open = io.open = self._open_file
        os.open, os.mkdir = self._open_descriptor, self._make_folder
        for name in _LOOKS:
            setattr(os, name, self._or_diverted(name))
        for name in _OWN:
            setattr(os, name, self._of_its_own(name))
        _keep_torch_from_saving()
        sys.addaudithook(self._audit)

    # -- files

    def _is_inside(self, path: str) -> bool:
        return path == self._scratch or path.startswith(self._scratch + os.sep)

    def _divert(self, path: Any) -> str:
        """Where in the scratch folder a file stands that the cell writes to ``path``."""
        absolute = os.path.abspath(os.fsdecode(path))
        if self._is_inside(absolute) or absolute.startswith(self._free):
            return absolute
        return f"{self._scratch}/files{absolute}"

    def _exists(self, path: str) -> bool:
        try:
            self._real["stat"](path)
        except OSError:
            return False
        return True

    def _target(self, path: Any, *, new: bool) -> str:
        """``path`` in the scratch folder, with the folder it stands in.

        Raises:
            FileNotFoundError: it would stand in a folder that there is not.
            FileExistsError: it is to be new, and is not.
        """
        target = self._divert(path)
        folder = os.path.dirname(target)
        if not self._exists(folder):
            if not self._exists(os.path.dirname(os.path.abspath(os.fsdecode(path)))):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
            self._make(folder)
        if new and (self._exists(os.fsdecode(path)) or self._exists(target)):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), os.fsdecode(path))
        return target

    def _make(self, folder: str) -> None:
        if not self._exists(folder):
            self._make(os.path.dirname(folder))
            self._real["mkdir"](folder)

    def _open_file(self, file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if not isinstance(file, int):
            if any(letter in mode for letter in "wax"):
                file = self._target(file, new="x" in mode)
            elif "+" in mode:
                file = self._changed(file)
            else:
                file = self._read_from(file)
        return self._open(file, mode, *args, **more)

    def _open_descriptor(self, path: Any, flags: int, *args: Any, **more: Any) -> Any:
        if not isinstance(path, int) and more.get("dir_fd") is None:
            if flags & os.O_CREAT:
                path = self._target(path, new=bool(flags & os.O_EXCL))
            elif flags & _WRITES:
                path = self._changed(path)
            else:
                path = self._read_from(path)
        return self._real["open"](path, flags, *args, **more)

    def _changed(self, path: Any) -> str:
        """A file that is changed in its place: only one that the cell itself made."""
        target = self._divert(path)
        if not self._exists(target):
            self._give_up("changes a file")
        return target

    def _read_from(self, path: Any) -> Any:
        if not _is_path(path):
            return path
        target = self._divert(path)
        return target if self._exists(target) else path

    def _make_folder(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            self._give_up("makes a folder")
        self._real["mkdir"](self._target(path, new=True), mode)

    def _or_diverted(self, name: str) -> Callable[..., Any]:
        """The function of that name in ``os``, looking into the scratch folder for what is not in its place."""
        real = self._real[name]

        def look(path: Any = ".", *args: Any, **more: Any) -> Any:
            try:
                return real(path, *args, **more)
            except FileNotFoundError:
                if not _is_path(path):
                    raise
                target = self._divert(path)
                if not self._exists(target):
                    raise
                return real(target, *args, **more)

        return look

    def _of_its_own(self, name: str) -> Callable[..., Any]:
        """The function of that name in ``os``, for what the cell itself made; for anything else the hook ends all."""
        real = self._real[name]

        def change(path: Any, *args: Any, **more: Any) -> Any:
            target = path if any(more.get(key) is not None for key in _BESIDE) else self._read_from(path)
            if target is not path:
                args = tuple(self._target(one, new=False) if _is_path(one) else one for one in args)
            return real(target, *args, **more)

        return change

    # -- everything else

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & _WRITES and not self._may_write(path):
                self._give_up("writes a file")
            elif isinstance(flags, int) and not flags & _WRITES and self._is_news(path):
                self._give_up(
                    f"reads {os.path.basename(os.fsdecode(path))}, which has changed since the run began"
                )
        elif event in _CHANGES:
            # Where a folder is given by a descriptor, it stands behind the path.
            folder = args[-1] if event in ("os.remove", "os.rmdir") and args[-1] != -1 else None
            if not all(self._may_write(path, folder) for path in args if _is_path(path)):
                self._give_up(_CHANGES[event])
        elif event in _CONNECTS:
            if not self._may_connect(args):
                self._give_up("uses the network")
        elif event == "os.kill":
            if args[0] not in processes.children(os.getpid()):
                self._give_up("sends a signal")
        elif event in _ENDS and not (event == "sqlite3.connect" and args[0] == ":memory:"):
            self._give_up(_ENDS[event])

    def _may_write(self, path: Any, folder: int | None = None) -> bool:
        if isinstance(path, int):
            return True  # it was opened before
        try:
            beside = os.readlink(f"/proc/self/fd/{folder}") if folder is not None else ""
            absolute = os.path.abspath(os.path.join(beside, os.fsdecode(path)))
        except (OSError, TypeError, ValueError):
            return False
        return self._is_inside(os.path.realpath(absolute)) or absolute.startswith(self._free)

    def _is_news(self, path: Any) -> bool:
        """The ranks, or somebody else, have written that file since the run began."""
        if not _is_path(path) or self._may_write(path):
            return False
        absolute = os.path.abspath(os.fsdecode(path))
        if absolute.endswith(".pyc") or absolute.startswith(("/proc/", "/sys/", "/dev/")):
            return False
        try:
            return bool(self._real["stat"](absolute).st_mtime > self._began)
        except OSError:
            return False

    def _may_connect(self, args: tuple[Any, ...]) -> bool:
        """Only sockets of its own in the scratch folder, by which loaders hand over files."""
        address = args[1] if len(args) > 1 else None
        return address is None or (isinstance(address, (str, bytes)) and self._may_write(address))


def _is_path(given: Any) -> bool:
    return isinstance(given, (str, bytes, os.PathLike))


def _keep_torch_from_saving() -> None:
    """Checkpoints are written by C++, and nobody reads those of a shadow."""
    import torch

    def save(*args: Any, **more: Any) -> None:
        del args, more

    torch.save = torch.serialization.save = torch.jit.save = save
