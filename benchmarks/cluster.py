"""The reference manifold on a Dask cluster: strong scaling, what Dask costs, a million rows, and a plan for ImageNet.

Measured here: a fit by blocks without Dask, on one and on two workers of one thread; the times of single tasks and the
peak memory of a process at 1,000,000 × 512; bytes that tasks read. Simulated: the same tasks given to more workers,
each to the one that is free first, with the measured task times and the time that Dask takes between two tasks.
What the simulation says of one and two workers is held against the measured runs.

Times are CPU seconds of the process that works, and of a run those of its busiest worker: other programs on the machine
then count little. Wall-clock seconds stand beside them.
"""

import functools
import heapq
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from advlib import chunks, figures, paths, tasks
from advlib.chunks import Block
from advlib.prdc import ReferenceManifold, blocked
from benchmarks.rows import row
from compendium import paths as places

K = 5
SMALL = {"n": 24_000, "d": 512, "rows": 2_000}
MILLION = {"n": 1_000_000, "d": 512, "rows": 25_000, "memory_gb": 3.5}
IMAGENET = {"n": 1_281_167, "d": 2_048}
CHUNKS = (2_500, 5_000, 10_000, 20_000)
"""Rows of a chunk that the plan chooses from, for each number of workers."""

WORKERS = (1, 2, 8, 64, 512)
STORE = {"worker": 1e9, "all": 2e10}
"""Bytes a second that a worker, and all together, are assumed to read from the common store."""


def gaussian(number: int, rows: int, d: int) -> np.ndarray:
    """Return one block of rows, (rows, d) float32, from a seed of its own."""
    sequence = np.random.SeedSequence(0, spawn_key=(number,))
    return np.random.default_rng(sequence).standard_normal((rows, d), dtype=np.float32)


def readers(n: int, d: int, rows: int) -> list[Callable[[], np.ndarray]]:
    return [functools.partial(gaussian, number, rows, d) for number in range(n // rows)]


def fit(n: int, d: int, rows: int) -> ReferenceManifold:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return ReferenceManifold(K).fit(chunks.rows_of(readers(n, d, rows), "reference"))


@contextmanager
def workers(count: int) -> Iterator[Any]:
    """Start a local cluster of so many workers of one thread."""
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "dashboard_address": None, "memory_limit": 0, "silence_logs": 50}
    with LocalCluster(n_workers=count, **options) as cluster, Client(cluster) as client:
        client.wait_for_workers(count)
        tasks.verified(client, "local")
        # Everybody has imported and timed what is done once a process.
        client.run(fit, 600, 64, 300)
        yield client


def nothing(item: int) -> int:
    return item


def run_on(count: int) -> dict[str, float]:
    """Fit the small case on so many workers; give wall seconds, and CPU seconds of the busiest worker."""
    with workers(count) as client:
        before = client.run(time.process_time)
        start = time.perf_counter()
        fit(**SMALL)
        wall = time.perf_counter() - start
        busy = [after - before[worker] for worker, after in client.run(time.process_time).items()]
        start = time.perf_counter()
        list(tasks.map_tasks(nothing, range(300), "nothing"))
        return {"wall_s": wall, "cpu_s": max(busy), "all_cpu_s": sum(busy),
                "task_s": (time.perf_counter() - start) / 300}  # fmt: skip


def run_alone() -> dict[str, float]:
    fit(600, 64, 300)
    start, cpu = time.perf_counter(), time.process_time()
    fit(**SMALL)
    return {"wall_s": time.perf_counter() - start, "cpu_s": time.process_time() - cpu}


def task_times(d: int, rows: int, strip: int, memory_gb: float = 1.0) -> dict[str, float]:
    """CPU seconds of reading a block, of its own radii, and of one other block of a strip."""
    blocks = tuple(
        Block(i, i * rows, rows, each, "float32") for i, each in enumerate(readers(rows * (strip + 1), d, rows))
    )
    setting = blocked.Setting(K, blocked.working_memory(blocks, d, "float32", memory_gb), 6.0, None)
    own = blocked._own((blocks[0],), setting)  # the first time is that of waking up
    strip_ = blocked.Strip(blocks[0], blocks[1:])
    read = _median_s(lambda: [block.values() for block in blocks]) / len(blocks)
    own_s = _median_s(lambda: blocked._own((blocks[0],), setting))
    beyond = _median_s(lambda: blocked._beyond((strip_, own[:, -1]), setting))
    return {"read_s": read, "own_s": own_s - read, "pair_s": (beyond - read) / strip - read, "rows": rows, "d": d}


def _median_s(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def simulate(n: int, rows: int, count: int, costs: dict[str, float], read_s: float) -> dict[str, float]:
    """Give a fit's tasks to `count` workers, each to the one that is free first.

    Parameters
    ----------
    n, rows : int
        Rows of the reference and of a block.
    count : int
        Workers.
    costs : dict
        own_s and pair_s (CPU seconds for blocks of `rows`), task_s (between two tasks that are sent).
    read_s : float
        Seconds to read a block.

    Returns
    -------
    dict
        seconds, tasks, reads (blocks read by the busiest worker).
    """
    blocks = max(1, round(n / rows))
    lengths = [len(strip) for at in range(0, blocks - 1, blocked.STRIP)
               for strip in [range(at, min(at + blocked.STRIP, blocks - 1))]]  # fmt: skip
    phases = [
        [(read_s, 1)] * blocks,
        [(read_s + costs["own_s"], 1)] * blocks,
        [((1 + length) * read_s + length * costs["pair_s"], 1 + length) for length in lengths for _ in range(blocks)],
    ]
    now, sent, read = 0.0, 0, dict.fromkeys(range(count), 0)
    for phase in phases:  # the next begins when all of this is there
        free = [(now, worker) for worker in range(count)]
        end = now
        for number, (seconds, reads) in enumerate(phase):
            at, worker = heapq.heappop(free)
            at = max(at, now + (number + 1) * costs["task_s"]) + seconds
            read[worker] += reads
            heapq.heappush(free, (at, worker))
            end = max(end, at)
        now, sent = end, sent + len(phase)
    return {"seconds": now, "tasks": sent, "reads": max(read.values())}


def plan(costs: dict[str, float], task_s: float) -> list[dict[str, float]]:
    """Return for each number of workers the best chunk size for ImageNet's features and what it takes."""
    found = []
    for count in WORKERS:
        options = []
        for rows in CHUNKS:
            scale = (rows / costs["rows"]) ** 2
            here = {"own_s": costs["own_s"] * scale, "pair_s": costs["pair_s"] * scale, "task_s": task_s}
            size = rows * IMAGENET["d"] * 4
            read_s = size / min(STORE["worker"], STORE["all"] / count)
            result = simulate(IMAGENET["n"], rows, count, here, read_s)
            options.append(result | {"workers": count, "rows": rows, "gb": result["reads"] * size / 1e9})
        found.append(min(options, key=lambda option: option["seconds"]))
    return found


def peak_gb() -> float:
    """Return the peak memory of this process in GiB (NaN off Linux), without that of its parent, as `ru_maxrss` has."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM:")), float("nan"))


def million() -> dict[str, float]:
    """Measure tasks at a million rows in a process of its own, and its peak memory."""
    code = (
        "import json, time; from benchmarks import cluster as c; from advlib import chunks, tasks\n"
        "tasks.settle()\n"
        "m = dict(c.MILLION); gb = m.pop('memory_gb'); base = c.peak_gb()\n"
        "t = time.process_time(); rows = chunks.rows_of(c.readers(**m), 'reference')\n"
        "check = time.process_time() - t\n"
        "times = c.task_times(m['d'], m['rows'], 2, gb)\n"
        "print(json.dumps(times | {'n': len(rows), 'check_s': check, 'base_gb': base,\n"
        "    'peak_gb': c.peak_gb(), 'memory_gb': gb}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    times = json.loads(found.stdout.splitlines()[-1])
    whole = simulate(MILLION["n"], MILLION["rows"], 1, times | {"task_s": 0.0}, times["read_s"])
    return times | {"whole_cpu_s": whole["seconds"], "tasks": whole["tasks"]}


def whole(partial: Path) -> dict[str, Any]:
    """Fit a million rows on one thread, ask 2,000 queries, and hold 20 radii and counts against all pairs in float64.

    Hours: `python -m benchmarks.cluster --whole FOLDER` runs it and stores what it measured, which `make bench` then
    carries on. What the tasks found stays in the folder: a run that was cut off goes on there, and says so.
    """
    size = dict(MILLION)
    memory_gb, reads = size.pop("memory_gb"), readers(**size)
    resumed = partial.is_dir() and any(partial.rglob("*"))
    queries = gaussian(len(reads), 2_000, size["d"])
    tasks.settle()
    rows = chunks.rows_of(reads, "reference")
    start, cpu = time.perf_counter(), time.process_time()
    manifold = ReferenceManifold(K, memory_gb=memory_gb, partial=partial).fit(rows)
    found = {"fit_wall_s": time.perf_counter() - start, "fit_cpu_s": time.process_time() - cpu, "resumed": resumed}
    cpu = time.process_time()
    density, coverage = manifold.density_coverage(queries)
    found |= {"score_cpu_s": time.process_time() - cpu, "density": density, "coverage": coverage}
    found |= {"peak_gb": peak_gb(), **_brute_force(manifold, reads, queries[:20])}
    return found | {"n": len(rows), "memory_gb": memory_gb}


def _brute_force(manifold: ReferenceManifold, reads: list[Callable[[], np.ndarray]], queries: np.ndarray) -> dict:
    """Compare the first rows' radii, and the queries' counts, with distances taken one by one."""
    first, nearest, counts, at = reads[0]()[: len(queries)].astype(np.float64), [], 0, 0
    for read in reads:
        rows = read().astype(np.float64)
        own, asked = (
            np.stack([np.sqrt(((rows - point) ** 2).sum(1)) for point in points])
            for points in (first, queries.astype(np.float64))
        )
        nearest.append(np.sort(own)[:, : K + 1])
        counts = counts + (asked < manifold.radii_[at : at + len(rows)]).sum(1)
        at += len(rows)
    radii = np.sort(np.concatenate(nearest, axis=1))[:, K]  # the first is the distance to itself
    error = float(np.abs(manifold.radii_[: len(radii)] / radii - 1).max())
    return {"radii_error": error, "counts_equal": bool((manifold.ball_counts(queries) == counts).all())}


def measure(quick: bool = True) -> list[dict]:
    """Return one row a comparison, the details under "cluster" of the first."""
    del quick
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    threads = torch.get_num_threads()
    tasks.settle()  # one thread and memory kept, as on a worker
    small = task_times(SMALL["d"], SMALL["rows"], blocked.STRIP)
    alone, one, two = run_alone(), run_on(1), run_on(2)
    held = [
        {"workers": count, "simulated_s": simulate(SMALL["n"], SMALL["rows"], count,
                                                   small | {"task_s": one["task_s"] / 10}, small["read_s"])["seconds"],
         "measured_s": found["cpu_s"], "wall_s": found["wall_s"]}
        for count, found in ((1, one), (2, two))
    ]  # fmt: skip
    wide = task_times(IMAGENET["d"], 2_000, 2)
    torch.set_num_threads(threads)
    details = {
        "alone": alone, "one": one, "two": two, "small": small, "wide": wide, "held": held,
        "plan": plan(wide, one["task_s"]), "million": million(), "gpu": _gpu(), "load": load,
        "whole": _stored().get("whole"),
    }  # fmt: skip
    what = f"fit by blocks, {SMALL['n']:,} Gaussian rows"
    size = SMALL["n"], 0, SMALL["d"], 1
    rows = [
        row("advlib.prdc on Dask", "the same blocks without Dask", f"{what}, 1 worker", size, one["cpu_s"],
            alone["cpu_s"], cluster=details),
        row("advlib.prdc on Dask", "1 worker", f"{what}, 2 workers", size, two["cpu_s"], one["cpu_s"]),
    ]  # fmt: skip
    gpu = details["gpu"]
    if gpu:
        seconds = gpu["n"] / gpu["chunk_rows"] * (small["own_s"] + (gpu["n"] / gpu["chunk_rows"] - 1) * small["pair_s"])
        seconds *= (gpu["chunk_rows"] / small["rows"]) ** 2
        size = gpu["n"], 0, gpu["d"], 1
        rows.append(row("advlib.prdc on Dask", "1 worker here, by its task times",
                        f"fit by blocks, {gpu['n']:,} Gaussian rows, worker on {gpu['gpu']}", size, gpu["fit_s"],
                        seconds))  # fmt: skip
    return rows


def _stored() -> dict[str, Any]:
    """Return what an earlier run measured, {} where none did."""
    stored = places.REFERENCE / "cluster.json"
    return json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}


def _gpu() -> dict[str, Any] | None:
    """Return the row that `benchmarks.gpu_worker` measured elsewhere, where it was stored."""
    stored = places.REFERENCE / "gpu_worker.json"
    return json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else None


def words(details: dict[str, Any]) -> str:
    """Write what was measured and planned as Markdown."""
    alone, one, two = (details[key] for key in ("alone", "one", "two"))
    lines = [
        "# The reference manifold on a cluster",
        "",
        "Generated by `make bench`; CPU seconds of one thread unless said otherwise (`benchmarks/cluster.py`).",
        "",
        f"Fit of {SMALL['n']:,} × {SMALL['d']} in {SMALL['n'] // SMALL['rows']} chunks: {alone['cpu_s']:.1f} s without "
        f"Dask, {one['cpu_s']:.1f} s on one worker ({one['cpu_s'] / alone['cpu_s'] - 1:+.0%}), {two['cpu_s']:.1f} s of "
        f"the busier of two workers (speed-up {one['cpu_s'] / two['cpu_s']:.2f}). Wall clock on the machine as it was: "
        f"{alone['wall_s']:.1f}, {one['wall_s']:.1f} and {two['wall_s']:.1f} s. A task that does nothing takes "
        f"{1e3 * one['task_s']:.1f} ms.",
        "",
        "| workers | simulated, s | measured, s | difference |",
        "|--:|--:|--:|--:|",
    ]
    if (details["load"] or 0) > 1:
        lines[-2:-2] = [
            f"**The load average was {details['load']:.1f} before this run**, which took many times as long by the "
            "clock. CPU seconds hold what Dask's own threads did all that time: what it costs, and how far simulation "
            "and measurement part, are upper bounds, to be measured anew on a quiet machine.",
            "",
        ]
    lines += [
        f"| {each['workers']} | {each['simulated_s']:.2f} | {each['measured_s']:.2f} "
        f"| {each['simulated_s'] / each['measured_s'] - 1:+.1%} |"
        for each in details["held"]
    ]
    tried = _million_words(details["million"], details.get("whole"))
    return "\n".join([*lines, "", *tried, *_plan_words(details)]) + "\n"


def _million_words(found: dict[str, float], done: dict[str, Any] | None) -> list[str]:
    lines = [
        f"A million rows of {MILLION['d']} in chunks of {MILLION['rows']:,}: checking all of them "
        f"{found['check_s']:.0f} s; radii within a chunk {found['own_s']:.1f} s, of a chunk against another "
        f"{found['pair_s']:.1f} s; peak memory {found['peak_gb']:.2f} GiB, of which {found['base_gb']:.2f} are the "
        f"interpreter and its libraries, for `memory_gb` = {found['memory_gb']:g}. By these times the "
        f"{found['tasks']:,} tasks of a fit are {found['whole_cpu_s'] / 3600:.2f} hours of one thread.",
        "",
    ]
    if done is None:
        return [*lines, "The whole fit was not run (`python -m benchmarks.cluster --whole FOLDER`).", ""]
    held = f"{found['whole_cpu_s'] / done['fit_cpu_s'] - 1:+.1%}"
    if done["resumed"]:
        held = "not compared, for the run went on where an earlier one was cut off"
    radii = "equal" if done["radii_error"] == 0 else f"lie within {done['radii_error']:.0e} (relative) of"
    counts = "equal" if done["counts_equal"] else "differ from"
    return [
        *lines,
        f"The whole fit was run (`python -m benchmarks.cluster --whole FOLDER`): {done['n']:,} rows in "
        f"{done['fit_cpu_s'] / 3600:.2f} hours of one thread (the sum of tasks, held against it: {held}), 2,000 "
        f"queries in {done['score_cpu_s']:.0f} s, peak memory of all {done['peak_gb']:.2f} GiB. Twenty radii {radii} "
        f"those by all pairs in float64, and the ball counts of twenty queries {counts} theirs. Density of all queries "
        f"{done['density']:.3f}, coverage {done['coverage']:.4f}.",
        "",
    ]


def _plan_words(details: dict[str, Any]) -> list[str]:
    first, gpu = details["plan"][0]["seconds"], details["gpu"]
    lines = [
        f"ImageNet's features, {IMAGENET['n']:,} × {IMAGENET['d']:,}, simulated from task times at "
        f"{details['wide']['rows']:,} rows; a worker is assumed to read {STORE['worker'] / 1e9:g} GB/s, all together "
        f"{STORE['all'] / 1e9:g} GB/s:",
        "",
        "| workers | rows a chunk | tasks | hours | speed-up | GB read by a worker |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {each['workers']} | {each['rows']:,} | {each['tasks']:,} | {each['seconds'] / 3600:.3g} "
        f"| {first / each['seconds']:.3g} | {each['gb']:,.0f} |"
        for each in details["plan"]
    ]
    if gpu:
        lines += [
            "",
            f"On {gpu['gpu']}: a worker fits {gpu['n']:,} × {gpu['d']} in {gpu['fit_s']:.1f} s (wall clock) and asks "
            f"2,000 queries in {gpu['score_s']:.2f} s; radii of a part equal the CPU's: {gpu['radii_equal_cpu']}.",
        ]
    return lines


def figure(details: dict[str, Any]) -> Figure:
    """Time and bytes read over the number of workers, both logarithmic."""
    drawing = Figure(figsize=(9, 3.6), layout="constrained")
    time_axis, bytes_axis = drawing.subplots(1, 2)
    counts = [each["workers"] for each in details["plan"]]
    hours = [each["seconds"] / 3600 for each in details["plan"]]
    time_axis.plot(counts, hours, "o-", color="#0072B2", label="simulated")
    time_axis.plot(counts, [hours[0] / count for count in counts], ":", color="#555555", label="perfect scaling")
    time_axis.set_ylabel("time of the fit (hours)")
    bytes_axis.plot(counts, [each["gb"] for each in details["plan"]], "o-", color="#D55E00", label="simulated")
    bytes_axis.set_ylabel("read by the busiest worker (GB)")
    for axis in (time_axis, bytes_axis):
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(counts, [str(count) for count in counts])
        axis.set_xlabel("workers of one thread")
        axis.grid(alpha=0.25)
    drawing.legend(*time_axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    drawing.suptitle(f"ImageNet's features, {IMAGENET['n']:,} × {IMAGENET['d']:,}, k = {K}", fontsize=10)
    return drawing


def write(details: dict[str, Any], folder: Path) -> None:
    """Write cluster.json, .md and .png."""
    paths.write_atomically(folder / "cluster.json", json.dumps(details, indent=1, ensure_ascii=False) + "\n")
    paths.write_atomically(folder / "cluster.md", words(details))
    figures.save_figure(figure(details), folder / "cluster.png")


def main() -> None:
    """Write the stored measurements again, with what came since: a GPU worker's row, or the whole fit, run now."""
    stored = _stored()
    if sys.argv[1:2] == ["--whole"]:
        stored["whole"] = whole(Path(sys.argv[2]))
    write(stored | {"gpu": _gpu()}, places.REFERENCE)


if __name__ == "__main__":
    main()
