"""``python -m benchmarks start|log|throughput|capture|check|import|placement|attach|checkpoint|recovery [--json] [--repeat N]``, or ``soak``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from benchmarks import (
    attach,
    capture,
    check,
    checkpoint,
    load_ext,
    log,
    placement,
    recovery,
    start,
    throughput,
)
from benchmarks.models import MODELS
from benchmarks.report import Row
from benchmarks.soak import command as soak

MEASURES: dict[str, Callable[..., Iterator[Row]]] = {
    "start": start.measure,
    "log": log.measure,
    "throughput": throughput.measure,
    "capture": capture.measure,
    "check": check.measure,
    "import": load_ext.measure,
    "placement": placement.measure,
    "attach": attach.measure,
    "checkpoint": checkpoint.measure,
    "recovery": recovery.measure,
}
_HELP = {
    "attach": f"%%train attach of a run of {attach.STEPS:,} steps -> its history is drawn ({attach.ROUNDS} kernels)",
    "start": f"press run -> first optimizer step on 2 ranks, against torchrun ({start.RUNS} runs)",
    "log": f"cost of train.log(loss=x), against tensorboard ({log.ROUNDS} rounds of {log.CALLS} calls)",
    "throughput": f"steps/s and CPU per step of a CNN, an MLP or a transformer, against DDP ({throughput.PAIRS} pairs)",
    "capture": f"a cell over {capture.MEGABYTES} MB: bytes sent, time to start, memory ({capture.ROUNDS} rounds)",
    "check": f"first step with --check and with --no-check ({check.PAIRS} pairs)",
    "import": f"what %%load_ext adds to plain IPython ({load_ext.PAIRS} pairs)",
    "placement": f"a decision about {placement.WAITING} runs that wait for {placement.WORKERS} workers ({placement.DECISIONS})",
    "checkpoint": f"what a checkpoint of 100 MB adds to {checkpoint.STEPS} steps, in turns with none ({checkpoint.PAIRS} pairs)",
    "recovery": f"kill -9 of a rank, zygote or worker -> detected -> trains again, against torchrun ({recovery.KILLS} of each)",
}


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__
    )
    which = parser.add_subparsers(dest="measure", required=True)
    for name, text in _HELP.items():
        one = which.add_parser(name, help=text, description=text)
        one.add_argument("--json", action="store_true", help="one JSON object per line")
        one.add_argument("--repeat", type=int, metavar="N", help="repetitions, instead of the usual number")
        if name == "throughput":
            one.add_argument("--model", choices=MODELS, default="cnn", help="what is trained (default: cnn)")
            one.add_argument(
                "--workers", type=int, default=0, metavar="N", help="of each rank's loader (default: 0)"
            )
    soak.add_to(which)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    asked = arguments(given)
    if asked.measure == "soak":
        return soak.run(asked)
    if asked.repeat is not None and asked.repeat < 1:
        print("--repeat takes a number from 1", file=sys.stderr)
        return 2
    options = {"model": asked.model, "workers": asked.workers} if asked.measure == "throughput" else {}
    for one in MEASURES[asked.measure](asked.repeat, **options):
        print(one.as_json() if asked.json else one.as_text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
