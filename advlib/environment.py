"""Versions and hardware that a run's numbers and duration depend on."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from advlib import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn", "torch", "torchvision", "cleverhans", "foolbox", "faiss-cpu")


def _version(package: str) -> str | None:
    """Return the version of an installed package; some are extras."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Versions and hardware that a run's numbers and duration depend on."""
    import torch  # seconds, which whoever only wants to know where this module is need not wait

    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:(.*)", cpuinfo.read_text(encoding="utf-8"), re.M) if cpuinfo.is_file() else None
    cpu = model[1].strip() if model else platform.processor() or platform.machine()
    return {
        "advlib": __version__,
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }
