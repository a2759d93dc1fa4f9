"""Plain Python that runs cells one after the other, each in a namespace of its own, without this package.

A script: ``python plain.py``. Reads pickled lists of (source, names to keep)
from its standard input and writes a pickled answer for each, until the input
ends.
"""

import gc
import linecache
import os
import pickle
import sys
import traceback
from typing import Any, BinaryIO


def answer(source: str, keep: tuple[str, ...]) -> tuple[Any, ...]:
    """Weights, buffers, ``out``, what is to be kept, and the error, "" where there is none."""
    main = type(sys)("__main__")
    sys.modules["__main__"] = main
    names = main.__dict__
    linecache.cache["<cell>"] = (len(source), None, source.splitlines(True), "<cell>")
    error = ""
    try:
        exec(compile(source, "<cell>", "exec"), names)
    except Exception:
        error = traceback.format_exc()
    model = names.get("model")
    weights = [] if model is None else [p.detach().numpy().copy() for p in model.parameters()]
    buffers = [] if model is None else [b.detach().numpy().copy() for b in model.buffers()]
    kept = {name: names.get(name) for name in keep}
    out = names.get("out")
    names.clear()  # loaders end their workers
    gc.collect()
    return weights, buffers, out, kept, error


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the requests end."""
    while True:
        try:
            cells = pickle.load(requests)
        except EOFError:
            return
        for source, keep in cells:
            pickle.dump(answer(source, keep), answers)
            answers.flush()


if __name__ == "__main__":
    sys.modules["jupyter_train"] = None  # type: ignore[assignment]  # whoever imports it fails
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # collections need not go through all of torch
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what cells print
    serve(sys.stdin.buffer, answers)
