"""``python -m tests.e2e.table [WORD …]``: what differs, for the cells whose names hold one of the words.

For people who change something about cells. The test compares with what docs/cell.md lists.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.kit import new_notebook
from tests.e2e.table.cases import read_cases
from tests.e2e.table.columns import open_table
from tests.e2e.table.page import covers, read_page

ROOT = Path(__file__).resolve().parents[3]


def main(words: list[str]) -> None:
    """Run the table and print what differs; what the page lists is marked."""
    # The kernels find this package, and this test of it, whatever is installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    page = read_page()
    cases = [c for c in read_cases() if not c.lacking and (not words or any(w in c.name for w in words))]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jt-") as temporary:
        folder = Path(temporary)
        home = folder / "home"
        home.mkdir(mode=0o700)
        with open_table(home, folder) as table:
            for case in cases:
                for ranks in (1, 2):
                    listed = page.aspects(case.name, ranks)
                    try:
                        found = table.differences(case, ranks, page)
                    except AssertionError as error:  # it hangs, or ended its kernel
                        print(f"BROKEN   {case.name} on {ranks}: {error}", flush=True)
                        continue
                    for one in found:
                        known = page.allows(one.aspect) or any(
                            covers(aspect, one.aspect) for aspect in listed
                        )
                        print(
                            f"{'listed  ' if known else 'DIFFERS '} {case.name} on {ranks}: {one}", flush=True
                        )
        with new_notebook(home, folder) as last:
            last.run(
                "import jupyter_train as jt\nfor one in jt.cluster.clusters(): jt.cluster.stop(one.name)"
            )
    print(f"{len(cases)} cells in {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
