"""What a run's proof came to: is it what one process would have trained?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How the first steps of the ranks compare with those of one process."""

    SAME = "same"
    DIFFERS = "differs"
    RANDOM = "random"  #: the loop draws random numbers, so that only gross faults can be seen
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A verdict and what it rests on."""

    verdict: Verdict
    text: str  #: a sentence for people
    difference: float | None = (
        None  #: the largest of loss, gradients and buffers, relative; None: not compared
    )
    ratio: float | None = None  #: of the ranks' gradients to those of one process, where all have the same
    cause: str = ""  #: what probably made the difference
    steps: int = 0  #: backwards that were compared

    def to_payload(self) -> dict[str, Any]:
        """The payload of a ``log`` event that tells it."""
        return {
            "stream": "proof",
            "text": self.text,
            "verdict": str(self.verdict),
            "difference": self.difference,
            "ratio": self.ratio,
            "cause": self.cause,
            "steps": self.steps,
        }

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Proof:
        """The proof that ``payload`` tells.

        Raises:
            ValueError, KeyError, TypeError: it tells none.
        """
        return cls(
            verdict=Verdict(payload["verdict"]),
            text=str(payload["text"]),
            difference=_number(payload.get("difference")),
            ratio=_number(payload.get("ratio")),
            cause=str(payload.get("cause") or ""),
            steps=int(payload.get("steps") or 0),
        )


def unchecked(reason: str) -> Proof:
    """There is nothing to say about the run, because of ``reason``."""
    return Proof(verdict=Verdict.UNCHECKED, text=f"not checked against one process: {reason}", cause=reason)


def power(value: float) -> str:
    """A difference as people read it: ``2e-7``; ``0`` where not a bit differs."""
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(float(value)) else float(value)
