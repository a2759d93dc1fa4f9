"""The kernel's own nets around a shadow: Landlock against writing elsewhere, seccomp against programs and networks.

Both hold for this process and all that it starts, and cannot be taken back.
Where the kernel or the machine has neither, nothing happens: Python's audit
hook stands before them. Landlock: https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446
_RULE_PATH_BENEATH = 1
_ABI_QUERY = 1
#: Rights over files by version of Landlock, without reading (bits 2 and 3) and executing (0, seccomp's part): writing,
#: removing, making; from version 2 on also linking elsewhere, from 3 cutting off.
_WRITING = 0b0001_1111_1111_0010
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11  #: binding and connecting, from version 4 on

#: Numbers of system calls: execve, execveat, socket.
_CALLS = {"x86_64": (0xC000003E, 59, 322, 41), "aarch64": (0xC00000B7, 221, 281, 198)}
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06


def fence(writable: Iterable[str]) -> bool:
    """Let this process write below ``writable`` only, start no program and open no internet socket.

    Returns:
        Whether Landlock holds.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    held = _landlock(libc, writable)
    _seccomp(libc)
    return held


def _landlock(libc: ctypes.CDLL, writable: Iterable[str]) -> bool:
    version = libc.syscall(_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), _ABI_QUERY)
    if version < 1:
        return False
    rights = _WRITING | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    attributes = struct.pack("=QQ", rights, _TCP) if version >= 4 else struct.pack("=Q", rights)
    ruleset = libc.syscall(
        _LANDLOCK_CREATE_RULESET, ctypes.c_char_p(attributes), ctypes.c_size_t(len(attributes)), 0
    )
    if ruleset < 0:
        return False
    try:
        for path in writable:
            try:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError:
                continue
            allowed = rights if os.path.isdir(path) else rights & (0b10 | _TRUNCATE)
            rule = struct.pack("=Qi", allowed, fd)
            libc.syscall(_LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.c_char_p(rule), 0)
            os.close(fd)
        return int(libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _seccomp(libc: ctypes.CDLL) -> bool:
    known = _CALLS.get(platform.machine())
    if known is None:
        return False
    machine, execve, execveat, socket = known
    # (code, jump if true, jump if false, operand); the data's parts: number at 0, machine at 4, first argument at 16.
    program = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 0, 8, machine),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 7, 0, execve),
        (_EQUAL, 6, 0, execveat),
        (_EQUAL, 0, 4, socket),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 3, 0, 2),  # AF_INET
        (_EQUAL, 2, 0, 10),  # AF_INET6
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    raw = b"".join(struct.pack("=HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    described = struct.pack(
        "HxxxxxxP" if struct.calcsize("P") == 8 else "HxxP", len(program), ctypes.addressof(buffer)
    )
    return int(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(described), 0, 0)) == 0
