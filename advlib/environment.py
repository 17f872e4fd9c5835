"""Versions and hardware that a run's numbers and duration depend on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from advlib import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchvision", "cleverhans", "foolbox", "faiss-cpu")


def environment() -> dict[str, Any]:
    """Versions and hardware that a run's numbers and duration depend on."""
    import torch  # seconds, which whoever only wants to know where this module is need not wait

    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    return {
        "advlib": __version__,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }
