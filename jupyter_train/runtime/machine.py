"""What a rank runs on: put on record once by each of them."""

from __future__ import annotations

import os
import platform
import socket
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from jupyter_train._version import __version__

if TYPE_CHECKING:
    import torch

_HEAD_BYTES = 4096  #: of /proc/cpuinfo: the kernel writes a page for each core that is read


def machine(device: torch.device, *, cores: int) -> dict[str, Any]:
    """The payload of a rank's ``machine`` event; under a millisecond.

    Args:
        device: of this rank.
        cores: that this host lets us use.
    """
    import torch

    return {
        "stream": "machine",
        "hostname": socket.gethostname(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_model(),
        "cores": cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "devices": torch.cuda.device_count() if device.type == "cuda" else 0,
        "versions": {
            "python": platform.python_version(),
            "jupyter_train": __version__,
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            **(
                {"distributed": str(sys.modules["distributed"].__version__)}
                if "distributed" in sys.modules
                else {}
            ),
            **({"cuda": str(torch.version.cuda)} if torch.version.cuda else {}),
        },
    }


def cpu_model() -> str:
    """The processor's name, where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return platform.processor()
    found = next((line for line in head.splitlines() if line.startswith(("model name", "Model"))), "")
    return found.partition(":")[2].strip() or platform.processor()
