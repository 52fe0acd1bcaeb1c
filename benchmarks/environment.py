"""The machine and the versions that a benchmark ran with."""

from __future__ import annotations

import platform
import re
import resource
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from softcam import __version__
from softcam.cores import count_cores
from softcam.versions import installed_versions

PACKAGES = ("torch", "torchvision", "timm", "numpy", "grad-cam")


def describe_environment(packages: Sequence[str] = PACKAGES, *, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Return machine, versions, date and seeds as JSON-ready values.

    Args:
        packages: Distributions whose versions matter to the result; those not installed are None.
        seeds: Of all that is drawn at random; none where nothing is.
    """
    return {
        "machine": {
            "processor": _processor(),
            "cores": count_cores(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {
            "python": platform.python_version(),
            "softcam": __version__,
            **dict.fromkeys(packages),
            **installed_versions(packages),
        },
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
    }


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count the parent's memory too, which a child has until it becomes another program.
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    lines = table.read_text(encoding="utf-8").splitlines() if table.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
