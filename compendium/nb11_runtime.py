"""How long both engines take, beside their peers and the bare matrix product, on the machine at hand (VS22 App. D).

The peers are test dependencies (`prdc`, `densratio`), imported when they are timed. Contenders run in turns in one
process, so that a busy machine slows all of them; medians count. `benchmarks/` times more cases and takes the engines'
ideas away one by one.
"""

import contextlib
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from matplotlib.figure import Figure

from advlib.environment import environment
from advlib.figures import AS_PUBLISHED, CORRECTED, LIMIT, PUBLISHED, REAL
from advlib.paths import write_atomically
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from advlib.ulsif import GridEdgeWarning, fit_batch
from compendium import paths as places
from compendium.claims import published, record, verdicts
from compendium.common import panels

K = 5
"""Neighbours in every timing, as in VS22."""

FIGURE_SIZES = (1_000, 5_000, 10_000, 25_000, 50_000)
"""References, and as many queries, in VS22's Fig. 13."""


def in_turns(rounds: int, **contenders: Callable[[], object]) -> dict[str, float]:
    """Time each contender `rounds` times, A B A B …, after one warm-up each where there is more than one round.

    Returns
    -------
    dict
        Name → median seconds.
    """
    if rounds > 1:
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _prdc(reference: np.ndarray, queries: np.ndarray) -> object:
    from prdc import compute_prdc

    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(reference, queries, K)


def manifold_times(
    sizes: Sequence[int],
    dimension: int,
    peer_limit: int,
    repeats: int,
    rng: np.random.Generator,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Time density and coverage of n Gaussian queries against n references, as VS22 Fig. 13.

    Parameters
    ----------
    sizes : sequence of int
        n, rising.
    dimension : int
        Features; the paper has 512.
    peer_limit : int
        Largest n at which `prdc` runs: it holds three n × n float64 matrices.
    repeats : int
        Rounds of which the median is kept.
    rng : numpy.random.Generator
        Source of the data.
    device : str, optional
        Where our engine works, from arrays in main memory, and where the bare products are taken, from arrays there;
        prdc works on the CPU.

    Returns
    -------
    list of dict
        n, density, coverage; in seconds fit_s, score_s (ours), product_s (two bare float32 matrix products), prdc_s,
        None above `peer_limit`; agree: whether both gave the same density and coverage (to 1e-12), None likewise.
    """
    times = []
    for n in track(sizes, "density and coverage, n", len(sizes)):
        reference, queries = rng.standard_normal((2, n, dimension), dtype=np.float32)
        fitted = ReferenceManifold(K, device=device).fit(reference)
        a, b = (torch.from_numpy(values).to(device=device) for values in (reference, queries))
        out = torch.empty(n, n, device=device)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> float:
            torch.mm(a, a.T, out=out)
            return float(torch.mm(b, a.T, out=out)[0, 0])  # reading a number waits for a GPU

        contenders: dict[str, Callable[[], object]] = {
            "fit_s": lambda reference=reference: ReferenceManifold(K, device=device).fit(reference),
            "score_s": lambda fitted=fitted, queries=queries: fitted.density_coverage(queries),
            "product_s": product,
        }
        density, coverage = fitted.density_coverage(queries)
        row = {"n": n, "density": density, "coverage": coverage, "prdc_s": None, "agree": None}
        if n <= peer_limit:
            contenders["prdc_s"] = lambda reference=reference, queries=queries: _prdc(reference, queries)
            theirs = _prdc(reference, queries)
            row["agree"] = all(abs(theirs[name] - row[name]) <= 1e-12 for name in ("density", "coverage"))
        times.append(row | in_turns(repeats, **contenders))
    return times


GPU_RECORD = places.REFERENCE / "gpu_runtime.json"
"""What `python -m compendium.nb11_runtime` stored on a machine with a GPU."""


def gpu_stored() -> dict[str, Any]:
    """Read the stored run on a GPU: "times" from `manifold_times` with gpu_s, "environment" with the GPU's name."""
    return json.loads(GPU_RECORD.read_text(encoding="utf-8"))


def store_gpu_times(path: Path = GPU_RECORD) -> None:
    """Time and store VS22's sizes of Fig. 13 on this machine's GPU."""
    times = manifold_times(FIGURE_SIZES, 512, 10_000, 3, np.random.default_rng(0), "cuda")
    content = {
        "generated_by": "python -m compendium.nb11_runtime",
        "settings": {"dimension": 512, "k": K, "repeats": 3, "prdc": "on this machine's CPU, all threads"},
        "times": [row | {"gpu_s": row["fit_s"] + row["score_s"]} for row in times],
        "environment": environment(),
    }
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def ulsif_times(
    sizes: Sequence[int], dimension: int, draws: int, peer_fits: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Time a uLSIF fit over the default 9 × 9 grid with leave-one-out, ours in a batch of `draws`.

    Parameters
    ----------
    sizes : sequence of int
        Samples in numerator and in denominator.
    dimension : int
        Features; images of MNIST have 784. The data are uniform on [0, 1], as pixels are.
    draws : int
        Fits in one of our batches.
    peer_fits : int
        Fits of `densratio`, one after each of our batches.

    Returns
    -------
    list of dict
        n, ours_s and densratio_s in seconds a fit.
    """
    from densratio import densratio

    times = []
    for n in track(sizes, "uLSIF, n", len(sizes)):
        numerators, denominators = rng.random((2, draws, n, dimension))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", GridEdgeWarning)
            found = in_turns(
                peer_fits,
                ours_s=lambda x=numerators, y=denominators: fit_batch(x, y),
                densratio_s=lambda x=numerators[0], y=denominators[0]: densratio(x, y, verbose=False),
            )
        times.append({"n": n, "ours_s": found["ours_s"] / draws, "densratio_s": found["densratio_s"]})
    return times


def stored_rows(profile: str = "paper") -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Read what the stored run of a profile timed: rows of `manifold_times` and `ulsif_times`, none without a run."""
    path = record.reference_path("11_runtime", profile)
    metrics = record.read(path)["metrics"] if path.is_file() else {}
    return tuple(
        [row for name, row in metrics.items() if name.startswith(start)] for start in ("time.n=", "time.ulsif.n=")
    )


def in_words(row: Mapping[str, Any]) -> str:
    """Say what one row of `manifold_times` or of `ulsif_times` found, by two digits."""

    def two(value: float) -> str:
        return f"{float(f'{value:.2g}'):g}"

    if "densratio_s" in row:
        ours, theirs = two(1e3 * row["ours_s"]), two(1e3 * row["densratio_s"])
        return f"n = {row['n']:4d}: ours {ours} ms a fit, densratio {theirs} ms"
    prdc = row["prdc_s"]
    beta = f"prdc {two(prdc)} s, β = {two(prdc / (row['fit_s'] + row['score_s']))}" if prdc else "prdc not run"
    fit, score, products = (two(row[name]) for name in ("fit_s", "score_s", "product_s"))
    return f"n = {row['n']:6d}: fit {fit} s, score {score} s, bare products {products} s; {beta}"


def published_seconds() -> dict[str, dict[int, float]]:
    """VS22's stored seconds: "prdc", "n2gem CPU", "n2gem GPU" → n → seconds."""
    seconds: dict[str, dict[int, float]] = {}
    for entry in published.load("vs22", "Figure 13"):
        seconds.setdefault(entry.row, {})[int(entry.column.removeprefix("seconds n="))] = entry.value
    return seconds


def published_speedups() -> dict[str, dict[int, float]]:
    """VS22's own speed-ups β = T_prdc / T_n2gem, from its stored seconds: "n2gem CPU", "n2gem GPU" → n → β."""
    seconds = published_seconds()
    peer = seconds.pop("prdc")
    return {name: {n: peer[n] / value for n, value in values.items()} for name, values in seconds.items()}


def growth(seconds: Mapping[int, float]) -> float:
    """Exponent b of seconds ∝ nᵇ between the smallest and the largest n."""
    (first, low), (last, high) = min(seconds.items()), max(seconds.items())
    return float(np.log(high / low) / np.log(last / first))


def judge_runtime(run: Any, times: Sequence[dict[str, Any]]) -> None:
    """Record VS22's "nearly 100x" (App. D), what prdc takes here beside Fig. 13, and how all times grow.

    The authors' own code is not run. As published is the speed-up by their stored seconds on the better device,
    corrected that of our engine, each at the largest size that prdc was timed at.

    Parameters
    ----------
    run : record.Run
    times : sequence of dict
        From `manifold_times`.
    """
    here = {row["n"]: row["prdc_s"] for row in times if row["prdc_s"]}
    ours = {row["n"]: row["fit_s"] + row["score_s"] for row in times}
    at, stored = max(here), published_speedups()
    largest = {name: line[max(line)] for name, line in stored.items()}
    speedup = {verdicts.AS_PUBLISHED: max(largest.values()), verdicts.CORRECTED: here[at] / ours[at]}
    device = "on a GPU" if torch.cuda.is_available() else f"on {torch.get_num_threads()} CPU threads"
    note = f"our engine {device} at n = {at:,}; the authors' code is not run, its stored seconds give "
    note += ", ".join(f"{value:.3g} ({name})" for name, value in largest.items())
    key = ("vs22", "Appendix D", "all", "speed-up over prdc")
    verdicts.number(run, key, {verdicts.CORRECTED: speedup[verdicts.CORRECTED]}, note)
    statistics = {mode: {"speed-up over prdc at the largest size": value} for mode, value in speedup.items()}
    verdicts.sentence(run, "vs22", "runtime-100x", statistics, note=note)
    for n, value in here.items():
        if n in published_seconds()["prdc"]:
            key = ("vs22", "Figure 13", "prdc", f"seconds n={n}")
            verdicts.number(run, key, {verdicts.CORRECTED: value}, f"prdc {device}")
    exponents = {name: growth(line) for name, line in published_seconds().items()}
    run.metric("growth exponent, stored seconds", exponents)
    run.metric("growth exponent, here", {"prdc": growth(here), "ours": growth(ours)} if len(here) > 1 else {})
    run.metric(
        "speed-up by stored seconds", {name: {str(n): b for n, b in line.items()} for name, line in stored.items()}
    )


PRDC, PRODUCTS = "prdc (with precision and recall)", "bare float32 matrix products"
OURS, SCORE, ON_GPU = "ours: fit and score", "ours: score alone, fitted before", "ours on a GPU: fit and score"
STYLES = {
    OURS: (CORRECTED, "^", ""),
    SCORE: (REAL, "v", ""),
    ON_GPU: (CORRECTED, "D", (3, 1.5)),
    PRODUCTS: (LIMIT, "X", (1, 1)),
    PRDC: (AS_PUBLISHED, "o", ""),
    "n2gem CPU, stored by its authors": (PUBLISHED, "s", ""),
    "n2gem GPU, stored by its authors": (PUBLISHED, "D", (3, 1.5)),
}
"""Name → colour, marker and dashes: green and blue are ours, black is stored by VS22, long dashes are a GPU."""


def speedups(
    manifold: Sequence[Mapping[str, Any]],
    printed: Mapping[str, Mapping[int, float]],
    gpu: Sequence[Mapping[str, Any]] = (),
) -> Figure:
    """Draw VS22 Fig. 13 again: speed-up over prdc and our own seconds, against the sample size.

    Parameters
    ----------
    manifold : sequence of dict
        From `manifold_times`.
    printed : dict
        From `published_speedups`.
    gpu : sequence of dict
        From `gpu_stored`, of another machine.
    """
    x, beta, seconds = "reference images n = queries m (512 features)", "speed-up β over prdc", "the same in seconds"
    timed = [(row, {PRDC: row["prdc_s"], OURS: row["fit_s"] + row["score_s"], SCORE: row["score_s"],
                    PRODUCTS: row["product_s"]}) for row in manifold]  # fmt: skip
    timed += [(row, {ON_GPU: row["gpu_s"]}) for row in gpu]
    rows = []
    for row, found in timed:
        for name, taken in found.items():
            ratio = row["prdc_s"] / taken if row["prdc_s"] and name != PRDC else None
            rows.append({x: row["n"], "name": name, seconds: taken, beta: ratio})
    stored = published_seconds()
    for name, line in printed.items():
        rows += [
            {x: n, "name": f"{name}, stored by its authors", beta: value, seconds: stored[name][n]}
            for n, value in line.items()
        ]
    frame = pandas.DataFrame(rows)
    names = [name for name in STYLES if name in set(frame["name"])]
    colours, markers, dashes = ({name: STYLES[name][part] for name in names} for part in range(3))
    figure = panels.lines(
        frame.melt([x, "name"], [beta, seconds], "panel").dropna(), x=x, y="value", col="panel", hue="name",
        style="name", hue_order=names, style_order=names, palette=colours, markers=markers, dashes=dashes,
        size=(5.2, 4.0), share=False, axis={"xscale": "log", "yscale": "log"},
    )  # fmt: skip
    sizes = sorted(set(frame[x]))
    for axis, words in zip(figure.axes, ("β = T(prdc) / T", "seconds T"), strict=True):
        axis.set_ylabel(words)
        panels.log_ticks(axis, [n for n in FIGURE_SIZES if n in sizes] or sizes, "x")
    return figure


def ulsif_speedups(times: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw seconds for a uLSIF fit, ours and densratio's, and how many times faster ours is.

    Parameters
    ----------
    times : sequence of dict
        From `ulsif_times`.
    """
    x, ratio, seconds = "samples in numerator and in denominator", "T(densratio) / T(ours)", "seconds a fit"
    palette = {"densratio": AS_PUBLISHED, "ours, in a batch": CORRECTED}
    rows = []
    for row in times:
        for name, taken in zip(palette, (row["densratio_s"], row["ours_s"]), strict=True):
            rows.append({x: row["n"], "name": name, "panel": seconds, "value": taken})
        rows.append({x: row["n"], "name": name, "panel": ratio, "value": row["densratio_s"] / row["ours_s"]})
    figure = panels.lines(
        pandas.DataFrame(rows), x=x, y="value", col="panel", hue="name", style="name", palette=palette,
        markers={"densratio": "o", "ours, in a batch": "^"}, dashes=False, size=(4.4, 3.2), share=False,
        axis={"yscale": "log", "xticks": sorted({row[x] for row in rows}), "ylabel": "seconds"},
    )  # fmt: skip
    figure.axes[1].set(yscale="linear", ylim=(0, None), ylabel="times as fast")
    return figure


if __name__ == "__main__":
    store_gpu_times(*map(Path, sys.argv[1:2]))
