"""Runs the first notebook without a browser and shows what came out: ``make demo``.

Works in a home of its own, so that a demonstration neither shows up among
somebody's runs nor touches their cluster, and leaves nothing running. What it
keeps is in ``demo-output/``.
"""

# ruff: noqa: T201 (a command: what it prints is its interface)
from __future__ import annotations

import base64
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "01-first-run.ipynb"
OUTPUT = ROOT / "demo-output"
LEAST_ACCURACY = 97.0  #: percent of the held-out digits
CELL_LIMIT_S = 240


def execute(file: Path, kept: Path) -> Any:
    """The notebook with its outputs; written to ``kept`` also when a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT_S,
        kernel_name="python3",
        resources={"metadata": {"path": file.parent}},
        # ipykernel warns that it listens on loopback without encryption; a demonstration is no place for it.
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    finally:
        nbformat.write(notebook, kept)
    return notebook


def write_html(notebook: Any, kept: Path) -> None:
    """The executed notebook as a page that needs no kernel."""
    from nbconvert import HTMLExporter

    exporter = HTMLExporter()  # type: ignore[no-untyped-call]
    page, _ = exporter.from_notebook_node(notebook)
    kept.write_text(page, encoding="utf-8")


def training_cell(notebook: Any) -> Any:
    """The one cell that trains."""
    return next(cell for cell in notebook.cells if cell.source.startswith("%%train"))


def curve_of(notebook: Any) -> bytes:
    """The last picture under the training cell, as PNG.

    Raises:
        SystemExit: there is none.
    """
    pictures = [
        o.data["image/png"] for o in training_cell(notebook).outputs if "image/png" in o.get("data", {})
    ]
    if not pictures:
        sys.exit("make demo: the training cell shows no curve")
    return base64.b64decode(pictures[-1])


def accuracy_of(notebook: Any) -> float:
    """Percent of the held-out digits that the trained model reads right, as the notebook prints it.

    Raises:
        SystemExit: the notebook prints no accuracy.
    """
    said = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    found = re.search(r"held-out accuracy: ([0-9.]+)%", said)
    if found is None:
        sys.exit("make demo: the notebook printed no accuracy")
    return float(found.group(1))


def summary() -> str:
    """What the store knows of the run, read back as any later reader would."""
    import jupyter_train as jt

    run = jt.run("last")
    view = run.view
    loss = view.curves["loss"][0]
    seconds = (view.ended or time.time()) - (view.running_since or view.started or time.time())
    steps = len(loss.steps)
    workers = sorted({str(place["worker"]) for place in view.placement})
    lines = {
        "run": f"{run.name} ({run.id})",
        "state": str(run.state),
        "ranks": f"{len(view.placement)} on {len(workers)} workers",
        "steps": f"{steps}, {steps / seconds:.0f} steps/s over {seconds:.1f} s of the whole cell",
        "loss": f"{loss.values[:10].mean():.3f} at first -> {loss.values[-50:].mean():.4f} at last",
        "curves": ", ".join(sorted(view.curves)),
    }
    if view.proof is not None:
        lines["proof"] = view.proof.text
    if view.remarks:
        lines["remarks"] = "; ".join(view.remarks)
    return "\n".join(f"  {name:<8} {value}" for name, value in lines.items())


def stop_clusters() -> None:
    """Ends what the notebook started; returns when its processes and files are gone."""
    from jupyter_train import cluster

    for record in cluster.clusters():
        cluster.stop(record.name)


def main() -> int:
    """Runs the demonstration; returns the exit status."""
    started = time.monotonic()
    OUTPUT.mkdir(exist_ok=True)
    kept = OUTPUT / NOTEBOOK.name
    home = Path(tempfile.mkdtemp(prefix="jt-demo-"))
    os.environ["JUPYTER_TRAIN_HOME"] = str(home)
    print(f"Running {NOTEBOOK.relative_to(ROOT)} ...", flush=True)
    try:
        notebook = execute(NOTEBOOK, kept)
        told = summary()
    finally:
        stop_clusters()
        shutil.rmtree(home, ignore_errors=True)
    (OUTPUT / "curve.png").write_bytes(curve_of(notebook))
    write_html(notebook, kept.with_suffix(".html"))
    accuracy = accuracy_of(notebook)
    print(f"\nheld-out accuracy: {accuracy:.2f} %\n{told}\n")
    for name in (kept.name, kept.with_suffix(".html").name, "curve.png"):
        print(f"  {(OUTPUT / name).relative_to(ROOT)}")
    print(f"\n{time.monotonic() - started:.0f} s")
    if accuracy < LEAST_ACCURACY:
        print(f"make demo: {accuracy:.2f} % is less than {LEAST_ACCURACY:.0f} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
