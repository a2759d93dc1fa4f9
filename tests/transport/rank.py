"""A stand-in for rank 0: loads a capture, runs the cell, packs the result.

As a program: ``python -m tests.transport.rank`` reads one request (JSON, a
line) and answers with one, in a process of its own for each, forked from this
one so that torch is imported once. ``--once`` does it in this very process.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any


def run(request: dict[str, Any]) -> dict[str, Any]:
    from jupyter_train.record import ContentRef
    from jupyter_train.transport.content import ContentStore
    from jupyter_train.transport.load import load_capture
    from jupyter_train.transport.randomness import restore_random_state
    from jupyter_train.transport.result import pack_result

    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    sys.modules["__main__"] = main
    namespace = main.__dict__
    sys.path[:0] = request["sys_path"]
    started, started_cpu = time.perf_counter(), time.process_time()
    loaded = load_capture(
        [ContentRef(**ref) for ref in request["refs"]], ContentStore(Path(request["content"])), namespace
    )
    load_s = time.perf_counter() - started
    load_cpu_s = time.process_time() - started_cpu
    error = None
    restore_random_state(loaded.random_state or {})
    try:
        code = compile(request["source"], "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaitable = eval(code, namespace)
        if awaitable is not None:
            asyncio.run(awaitable)
    except BaseException as raised:
        error = raised
    started, started_cpu = time.perf_counter(), time.process_time()
    summary = pack_result(
        loaded,
        namespace,
        Path(request["result"]),
        keep=request["keep"],
        error=error,
        **{name: request[name] for name in ("large_bytes", "changed_bytes") if request.get(name)},
    )
    return {
        "load_s": load_s,
        "load_cpu_s": load_cpu_s,
        "pack_s": time.perf_counter() - started,
        "pack_cpu_s": time.process_time() - started_cpu,
        "random_state": loaded.random_state is not None,
        "size_bytes": summary.size_bytes,
        "prefix_bytes": summary.prefix_bytes,
        "error": "".join(traceback.format_exception(error)) if error else "",
    }


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return run(request)
    except BaseException:
        return {"failed": traceback.format_exc()}


def serve() -> None:
    import numpy
    import torch

    import jupyter_train.transport.load
    import jupyter_train.transport.result  # noqa: F401

    torch.set_num_threads(1)
    del numpy
    out = os.dup(1)
    os.dup2(2, 1)  # what the cell prints is not an answer
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os.write(out, json.dumps(_answer(request)).encode() + b"\n")
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    if "--once" in sys.argv:
        answer = _answer(json.loads(sys.stdin.readline()))
        print(json.dumps(answer))
    else:
        serve()
