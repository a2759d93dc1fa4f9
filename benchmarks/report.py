"""One line per figure: as JSON for programs, as a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.stats import Summary, summarise

OURS = "jupyter_train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of one subject."""

    measure: str  #: start, log, throughput, capture, import
    subject: str  #: jupyter_train or the peer
    metric: str
    unit: str
    summary: Summary

    def as_json(self) -> str:
        """The line as it is promised to programs."""
        head = {name: getattr(self, name) for name in ("measure", "subject", "metric", "unit")}
        return json.dumps({**head, **asdict(self.summary)})

    def as_text(self) -> str:
        """The line for people."""
        s = self.summary
        return (
            f"{self.measure:<11}{self.subject:<14}{self.metric:<16}{s.median:>10.4g} {self.unit:<9}"
            f"p95 {s.p95:<9.4g} p99 {s.p99:<9.4g} 95 % [{s.ci95[0]:.4g}, {s.ci95[1]:.4g}]  n={s.n}"
        )


def row(measure: str, subject: str, metric: str, unit: str, values: Sequence[float]) -> Row:
    """The row that sums up ``values``."""
    return Row(measure=measure, subject=subject, metric=metric, unit=unit, summary=summarise(values))


def progress(text: str) -> None:
    """Says on stderr what is going on; stdout carries rows only."""
    print(text, file=sys.stderr, flush=True)
