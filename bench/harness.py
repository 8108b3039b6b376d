"""What every bench shares: medians with their spread, the machine's description, and the output's shape."""

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from p2pos.errors import UserError


@dataclass
class Figures:
    """The figures of one run, in the order they were set."""

    values: dict[str, Any] = field(default_factory=dict)

    def exact(self, **named: Any) -> None:
        """Figures that are counts or single facts."""
        self.values.update(named)

    def median(self, name: str, samples: Sequence[float]) -> float:
        """A figure that is a median; prints its least and greatest beside it. Returns the median."""
        middle = statistics.median(samples)
        self.values.update({name: middle, f"{name}_min": min(samples), f"{name}_max": max(samples)})
        return middle

    def missing(self, name: str, why: str) -> None:
        """A figure that could not be measured, and the reason."""
        self.values.update({name: None, f"why_{name}": why})


def progress(text: str) -> None:
    """Tell whoever watches; standard output is the answer's alone."""
    print(text, file=sys.stderr, flush=True)


def check_device(device: str) -> None:
    """Raise UserError where there is no such device, before anything is made for it."""
    if device == "cpu":
        return
    import torch  # noqa: PLC0415 - seconds to import, and not every bench needs it

    if not torch.cuda.is_available():
        raise UserError(f"there is no device {device} here", hint="use --device cpu")


def machine() -> dict[str, Any]:
    """Cores, processor, memory in GiB and the load before the run."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else [])
        if line.startswith("model name")
    ]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
    }
