"""How long both engines take, beside their peers and the bare matrix product, on the machine at hand (VS22 App. D).

The peers are test dependencies (`prdc`, `densratio`), imported when they are timed. Contenders run in turns in one
process, so that a busy machine slows all of them; medians count. `benchmarks/` times more cases and takes the engines'
ideas away one by one.
"""

import contextlib
import io
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from advlib.figures import CORRECTED, LIMIT, PUBLISHED, REAL, subplots
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from advlib.ulsif import GridEdgeWarning, fit_batch
from compendium.claims import published

K = 5
"""Neighbours in every timing, as in VS22."""


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
    sizes: Sequence[int], dimension: int, peer_limit: int, repeats: int, rng: np.random.Generator
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

    Returns
    -------
    list of dict
        n, density, coverage; in seconds fit_s, score_s (ours), product_s (two bare float32 matrix products), prdc_s,
        None above `peer_limit`; agree: whether both gave the same density and coverage (to 1e-12), None likewise.
    """
    times = []
    for n in track(sizes, "density and coverage, n", len(sizes)):
        reference, queries = rng.standard_normal((2, n, dimension), dtype=np.float32)
        fitted = ReferenceManifold(K).fit(reference)
        a, b, out = torch.from_numpy(reference), torch.from_numpy(queries), torch.empty(n, n)

        def product(a: torch.Tensor = a, b: torch.Tensor = b, out: torch.Tensor = out) -> None:
            torch.mm(a, a.T, out=out)
            torch.mm(b, a.T, out=out)

        contenders: dict[str, Callable[[], object]] = {
            "fit_s": lambda reference=reference: ReferenceManifold(K).fit(reference),
            "score_s": lambda fitted=fitted, queries=queries: fitted.density_coverage(queries),
            "product_s": product,
        }
        peers = n <= peer_limit
        if peers:
            contenders["prdc_s"] = lambda reference=reference, queries=queries: _prdc(reference, queries)
        ours = fitted.density_coverage(queries)
        row: dict[str, Any] = {
            "n": n,
            "density": ours.density,
            "coverage": ours.coverage,
            "prdc_s": None,
            "agree": None,
        }
        row |= in_turns(repeats, **contenders)
        if peers:
            theirs = _prdc(reference, queries)
            row["agree"] = all(abs(theirs[name] - getattr(ours, name)) <= 1e-12 for name in ("density", "coverage"))
        times.append(row)
    return times


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


def published_speedups() -> dict[str, dict[int, float]]:
    """VS22's own speed-ups β = T_prdc / T_n2gem, from its stored seconds: "n2gem CPU", "n2gem GPU" → n → β."""
    seconds: dict[str, dict[int, float]] = {}
    for entry in published.load("vs22", "Figure 13"):
        seconds.setdefault(entry.row, {})[int(entry.column.removeprefix("seconds n="))] = entry.value
    peer = seconds.pop("prdc")
    return {name: {n: peer[n] / value for n, value in values.items()} for name, values in seconds.items()}


def judge_runtime(times: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set VS22's "nearly 100x" (App. D) and the seconds of Fig. 13 beside this run; rows for `Run.compare`."""
    printed = published_speedups()
    largest = max((row for row in times if row["prdc_s"]), key=lambda row: row["n"])
    beta = largest["prdc_s"] / (largest["fit_s"] + largest["score_s"])
    device = "on a GPU" if torch.cuda.is_available() else f"on {torch.get_num_threads()} CPU threads"
    at = max(printed["n2gem GPU"])
    cause = (
        f"one point: a GPU at n = {at:,} ({printed['n2gem GPU'][at]:.0f} by the authors' stored seconds); their CPU "
        f"seconds give {printed['n2gem CPU'][at]:.0f} there; ours gives {beta:.0f} at n = {largest['n']:,} {device}"
    )
    common = {
        "paper": "vs22",
        "as_published": f"{printed['n2gem CPU'][at]:.0f} (CPU), {printed['n2gem GPU'][at]:.0f} (GPU), stored seconds",
        "corrected": round(beta, 1),
        "verdict": "reproduced as published only",
        "cause": cause,
    }
    rows = [
        {**common, "item": "Appendix D", "row": "all", "column": "speed-up over prdc"},
        {**common, "item": "claim", "row": "runtime-100x", "column": ""},
    ]
    for row in times:
        here = {"prdc": row["prdc_s"], "n2gem CPU": row["fit_s"] + row["score_s"]}
        for name, value in here.items():
            if value and row["n"] in printed["n2gem CPU"]:
                whose = "prdc" if name == "prdc" else "ours, fit and score"
                rows.append({
                    "paper": "vs22",
                    "item": "Figure 13",
                    "row": name,
                    "column": f"seconds n={row['n']}",
                    "verdict": "not run here",
                    "cause": f"seconds belong to the authors' machine; {device} here, {whose}: {value:.3g} s",
                })  # fmt: skip
    return rows


def speedups(manifold: Sequence[Mapping[str, Any]], printed: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw VS22 Fig. 13 again: speed-up over prdc and our own seconds, against the sample size.

    Parameters
    ----------
    manifold : sequence of dict
        From `runtime.manifold_times`.
    printed : dict
        From `runtime.published_speedups`.
    """
    figure, (ratio, seconds) = subplots(1, 2, figsize=(10.5, 4))
    for (name, line), marker in zip(printed.items(), "sD", strict=False):
        ratio.plot(
            list(line), list(line.values()), f"{marker}:", color=PUBLISHED, mfc="white", label=f"{name}, published"
        )
    n = np.array([row["n"] for row in manifold])
    fit, score, product = (np.array([row[key] for row in manifold]) for key in ("fit_s", "score_s", "product_s"))
    peers = [row for row in manifold if row["prdc_s"] is not None]
    peer_n, peer_s = np.array([row["n"] for row in peers]), np.array([row["prdc_s"] for row in peers])
    ratio.plot(peer_n, peer_s / (fit + score)[: len(peers)], "o-", color=CORRECTED, label="ours: fit and score")
    ratio.plot(peer_n, peer_s / score[: len(peers)], "^-", color=REAL, label="ours: score alone, fitted before")
    ratio.plot(peer_n, peer_s / product[: len(peers)], "--", color=LIMIT, label="bare float32 matrix products")
    ratio.set(title="speed-up β over prdc", ylabel="T(prdc) / T", yscale="log")
    seconds.plot(peer_n, peer_s, "s-", color=PUBLISHED, label="prdc (with precision and recall)")
    seconds.plot(n, fit + score, "o-", color=CORRECTED, label="ours: fit and score")
    seconds.plot(n, score, "^-", color=REAL, label="ours: score")
    seconds.plot(n, product, "--", color=LIMIT, label="bare float32 matrix products")
    seconds.set(title="the same in seconds", ylabel="seconds", yscale="log")
    for axis in (ratio, seconds):
        axis.set(xscale="log", xlabel="reference images n = queries m (512 features)")
        axis.legend(fontsize=8)
    return figure


def ulsif_speedups(times: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw seconds for a uLSIF fit, ours and densratio's, with the ratio written beside.

    Parameters
    ----------
    times : sequence of dict
        From `runtime.ulsif_times`.
    """
    figure, axis = subplots(figsize=(6.5, 3.4))
    n = [row["n"] for row in times]
    axis.plot(n, [row["densratio_s"] for row in times], "s-", color=PUBLISHED, label="densratio")
    axis.plot(n, [row["ours_s"] for row in times], "o-", color=CORRECTED, label="ours, in a batch")
    for row in times:
        middle = (row["densratio_s"] * row["ours_s"]) ** 0.5
        axis.annotate(f"× {row['densratio_s'] / row['ours_s']:.0f}", (row["n"], middle), ha="center")
    axis.set(xlabel="samples in numerator and in denominator", ylabel="seconds a fit", yscale="log")
    axis.set_xticks(n, [str(value) for value in n])
    axis.legend()
    return figure
