"""One measured row of a GPU worker: radii and counts of the reference manifold by blocks, on a Dask worker with a GPU.

    python -m benchmarks.gpu_worker result.json                  # cuda, 100,000 × 512
    python -m benchmarks.gpu_worker result.json --device cpu --rows 4000

A worker of one thread does on the device what `advlib.prdc.blocked` sends it. Radii of a part are held against those of
the CPU, which must be equal to the bit. Needs numpy, scipy, torch, scikit-learn, safetensors, rich, dask, distributed.
"""

import argparse
import functools
import json
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch

D, K, BLOCK = 512, 5, 12_500


def rows(number: int, count: int) -> np.ndarray:
    """Return a block of Gaussian rows, (count, D) float32, from a seed of its own."""
    sequence = np.random.SeedSequence(0, spawn_key=(number,))  # as `spawn` would number it
    return np.random.default_rng(sequence).standard_normal((count, D), dtype=np.float32)


def measure(n: int, device: str) -> dict[str, object]:
    """Fit n rows by blocks on one worker, ask 2,000 queries, and hold the counts against the CPU's on a part."""
    from distributed import Client, LocalCluster

    from advlib import chunks, tasks
    from advlib.prdc import ReferenceManifold

    block = min(BLOCK, n // 4)
    readers = [functools.partial(rows, number, block) for number in range(n // block)]
    queries = rows(10**4, 2_000)
    result: dict[str, object] = {"n": block * len(readers), "d": D, "k": K, "chunk_rows": block, "device": device}
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        tasks.verified(client, cluster.scheduler_address)
        warm = chunks.rows_of(readers[:1], "reference")
        ReferenceManifold(K, device=device).fit(warm)  # the device's start, and its kernels', are no part of it
        start = time.perf_counter()
        reference = chunks.rows_of(readers, "reference")
        result["check_s"] = time.perf_counter() - start
        start = time.perf_counter()
        manifold = ReferenceManifold(K, memory_gb=4.0, device=device).fit(reference)
        result["fit_s"] = time.perf_counter() - start
        start = time.perf_counter()
        density, coverage = manifold.density_coverage(queries)
        result["score_s"] = time.perf_counter() - start
        result |= {"density": density, "coverage": coverage, "pairs_per_s": result["n"] ** 2 / result["fit_s"]}
        # The same by the CPU on the first two blocks: the device must not decide anything.
        small = chunks.rows_of(readers[:2], "reference")
        on_device = ReferenceManifold(K, device=device).fit(small)
    on_cpu = ReferenceManifold(K).fit(np.concatenate([reader() for reader in readers[:2]]))
    result["radii_equal_cpu"] = bool(np.array_equal(on_device.radii_, on_cpu.radii_))
    return result | {
        "gpu": torch.cuda.get_device_name(0) if device == "cuda" else None,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cores": os.cpu_count(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    os.environ["ADVLIB_PROGRESS"] = os.devnull  # bars are of no use in a log
    warnings.simplefilter("ignore", UserWarning)
    result = measure(options.rows, options.device)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
