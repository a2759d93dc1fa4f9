"""How earlier cells set up logging: levels, and the handlers that can be made anew elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any


def logging_settings() -> dict[str, Any]:
    """Levels of all loggers; handlers of the root logger and of loggers that belong to no imported module.

    What a library hangs on its own loggers is its own affair: it does so on the rank as well.
    """
    known = logging.root.manager.loggerDict
    loggers = {name: logger for name, logger in known.items() if isinstance(logger, logging.Logger)}
    users = {name: logger for name, logger in loggers.items() if _is_users(name)}
    root = logging.root
    return {
        "disabled": root.manager.disable,
        "capture": logging._warnings_showwarning is not None,  # type: ignore[attr-defined]
        "levels": {
            "": root.level,
            **{name: logger.level for name, logger in loggers.items() if logger.level},
        },
        "quiet": [name for name, logger in users.items() if not logger.propagate],
        "handlers": {
            name: [told for handler in logger.handlers if (told := _told(handler)) is not None]
            for name, logger in {"": root, **users}.items()
            if logger.handlers
        },
    }


def restore_logging(found: Mapping[str, Any], *, rank: int) -> list[str]:
    """Set up logging as :func:`logging_settings` found it. A file is written by rank 0 alone.

    Returns:
        A sentence for each file that cannot be written here.
    """
    remarks: list[str] = []
    logging.disable(found["disabled"])
    for name, level in found["levels"].items():
        logging.getLogger(name or None).setLevel(level)
    for name in found["quiet"]:
        logging.getLogger(name).propagate = False
    for name, handlers in found["handlers"].items():
        logger = logging.getLogger(name or None)
        for told in handlers:
            if told["kind"] == "file" and rank:
                continue
            if told["kind"] == "file" and not os.access(os.path.dirname(told["file"]), os.W_OK):
                remarks.append(f"the log file {told['file']} cannot be written here")
                continue
            logger.addHandler(_made(told))
    if found["capture"]:
        logging.captureWarnings(True)
    return remarks


def _is_users(name: str) -> bool:
    parts = name.split(".")
    return name == "__main__" or not any(
        ".".join(parts[:end]) in sys.modules for end in range(1, len(parts) + 1)
    )


def _told(handler: logging.Handler) -> dict[str, Any] | None:
    """A handler as values; None where it is of a kind that cannot be made anew."""
    told: dict[str, Any] = {
        "level": handler.level,
        "formatter": handler.formatter,
        "filters": handler.filters,
    }
    if type(handler) is logging.FileHandler:
        return {**told, "kind": "file", "file": handler.baseFilename, "encoding": handler.encoding}
    if type(handler) is logging.NullHandler:
        return {**told, "kind": "null"}
    if type(handler) is logging.StreamHandler:
        for kind, streams in (
            ("stdout", (sys.stdout, sys.__stdout__)),
            ("stderr", (sys.stderr, sys.__stderr__)),
        ):
            if any(handler.stream is one for one in streams):
                return {**told, "kind": kind}
    return None


def _made(told: Mapping[str, Any]) -> logging.Handler:
    made: logging.Handler
    match told["kind"]:
        case "file":
            made = logging.FileHandler(told["file"], "a", encoding=told["encoding"], delay=True)
        case "null":
            made = logging.NullHandler()
        case kind:
            made = logging.StreamHandler(sys.stdout if kind == "stdout" else sys.stderr)
    made.setLevel(told["level"])
    made.setFormatter(told["formatter"])
    for one in told["filters"]:
        made.addFilter(one)
    return made
