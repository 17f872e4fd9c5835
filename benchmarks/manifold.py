"""`ReferenceManifold` against prdc, a bare faiss flat search and the bare float32 matrix product.

All contenders of a case run in turns in one process, so that a busy machine slows all of them; medians count.
Ours is timed from the raw arrays to both numbers, density and coverage, with fit and score also apart. prdc computes
precision and recall besides, and cannot be asked for less. faiss only searches: k + 1 neighbours of each reference
point (the radii) and k of each query; no balls are counted. The product is the two matrix products that any method
without a filter needs, reference × reference and queries × reference, and nothing else: `ratio` ≥ 0.8 there means
that we run at 80 % of that rate or more, counting every pair.

Rows whose peer starts with "ours" take away one idea each: what the idea gives is that row's ratio.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from importlib.metadata import version
from unittest import mock

import faiss
import numpy as np
import torch
from prdc import compute_prdc

from advlib.prdc import ReferenceManifold, rounded
from advlib.prdc.radii import fine_radii
from benchmarks.rows import mnist_rows, row
from compendium.nb11_runtime import in_turns

K = 5
D = 512  # features of VS22 Fig. 13


def case(peer: str, what: str, reference: np.ndarray, queries: np.ndarray, *seconds: float, **more: float) -> dict:
    size = *map(len, (reference, queries)), reference.shape[1], 1
    return row("advlib.prdc.ReferenceManifold", peer, what, size, *seconds, **more)


def fit_and_score(reference: np.ndarray, queries: np.ndarray) -> object:
    return ReferenceManifold(K).fit(reference).density_coverage(queries)


def run_prdc(reference: np.ndarray, queries: np.ndarray) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):
        return compute_prdc(reference, queries, K)


def run_faiss(reference: np.ndarray, queries: np.ndarray) -> None:
    index = faiss.IndexFlatL2(reference.shape[1])
    index.add(reference)
    index.search(reference, K + 1)
    index.search(queries, K)


def products(reference: np.ndarray, queries: np.ndarray) -> Callable[[], object]:
    a, b = torch.from_numpy(reference), torch.from_numpy(queries)
    to_reference, to_queries = torch.empty(len(a), len(a)), torch.empty(len(b), len(a))

    def run() -> None:
        torch.mm(a, a.T, out=to_reference)
        torch.mm(b, a.T, out=to_queries)

    return run


def against_peers(
    what: str, reference: np.ndarray, queries: np.ndarray, rounds: int, peer_rounds: int
) -> Iterator[dict]:
    """Yield one row for each peer, on the same arrays."""
    fitted = ReferenceManifold(K).fit(reference)
    fast = in_turns(
        rounds,
        fit=lambda: ReferenceManifold(K).fit(reference),
        score=lambda: fitted.density_coverage(queries),
        faiss=lambda: run_faiss(reference, queries),
        product=products(reference, queries),
    )
    # The peer takes seconds; ours runs beside it again, so that both see the same minute of the machine.
    slow = in_turns(
        peer_rounds, ours=lambda: fit_and_score(reference, queries), prdc=lambda: run_prdc(reference, queries)
    )
    apart = {"fit_s": fast["fit"], "score_s": fast["score"]}
    both = fast["fit"] + fast["score"]
    pairs = len(reference) * (len(reference) + len(queries))
    rate = 2e-9 * pairs * reference.shape[1]
    yield case(f"prdc {version('prdc')}", what, reference, queries, slow["ours"], slow["prdc"], **apart)
    yield case(f"faiss {version('faiss-cpu')} flat", what, reference, queries, both, fast["faiss"], **apart)
    yield case(
        "float32 product",
        what,
        reference,
        queries,
        both,
        fast["product"],
        **apart,
        ours_gflops=rate / both,
        peer_gflops=rate / fast["product"],
    )


def small_batch(what: str, reference: np.ndarray, queries: np.ndarray, rounds: int) -> dict:
    """Score 100 queries against a manifold fitted before."""
    fitted = ReferenceManifold(K).fit(reference)
    a, b, out = torch.from_numpy(reference), torch.from_numpy(queries), torch.empty(len(queries), len(reference))
    times = in_turns(rounds, ours=lambda: fitted.density_coverage(queries), product=lambda: torch.mm(b, a.T, out=out))
    return case("float32 product", f"{what}, score only", reference, queries, times["ours"], times["product"])


def without_bfloat16(what: str, reference: np.ndarray, queries: np.ndarray, rounds: int) -> dict:
    """Store and multiply the coarse product in float32: the same numbers, as on processors without bfloat16."""

    def float32() -> None:
        with mock.patch.object(rounded, "product_type", lambda device: torch.float32):
            fit_and_score(reference, queries)

    times = in_turns(rounds, ours=lambda: fit_and_score(reference, queries), off=float32)
    return case("ours, coarse product in float32", what, reference, queries, times["ours"], times["off"])


def without_sample(what: str, reference: np.ndarray, queries: np.ndarray, rounds: int) -> dict:
    """Do without any coarse product: radii from whole rows of float64 squares."""

    def whole_rows() -> None:
        points = rounded.RoundedPoints(torch.from_numpy(reference), memory_gb=1.0)
        radii = np.empty(len(reference))

        def task(lo: int, hi: int) -> None:
            radii[lo:hi] = fine_radii(points, lo, hi, K)

        points.workers.each_panel(task, len(reference), points.workers.panel_rows())

    times = in_turns(rounds, ours=lambda: ReferenceManifold(K).fit(reference), off=whole_rows)
    return case("ours, every pair in float64", f"{what}, fit only", reference, queries, times["ours"], times["off"])


def without_float64_tiles(what: str, reference: np.ndarray, queries: np.ndarray, rounds: int) -> dict:
    """Decide what the coarse product leaves open one pair at a time, however many pairs that are."""

    def one_by_one() -> None:
        with mock.patch.object(rounded, "worth_a_tile", lambda pairs: pairs):
            fit_and_score(reference, queries)

    times = in_turns(rounds, ours=lambda: fit_and_score(reference, queries), off=one_by_one)
    return case("ours, no float64 tiles", what, reference, queries, times["ours"], times["off"])


def measure(quick: bool = True) -> list[dict]:
    """Return one row for each case and peer; `ours_s` and `peer_s` are seconds for the whole case."""
    rng = np.random.default_rng(0)
    rounds, peer_rounds = (5, 1) if quick else (9, 3)
    rows = []
    for n in (1_000, 2_000, 5_000, 10_000):
        reference, queries = rng.standard_normal((2, n, D), dtype=np.float32)
        rows += against_peers(f"Gaussian {n:,} × {n:,}", reference, queries, rounds, peer_rounds if n > 2_000 else 3)
    rows.append(without_bfloat16("Gaussian 10,000 × 10,000", reference, queries, rounds))

    train, name = mnist_rows("train", 60_000, rng)
    test, _ = mnist_rows("test", 10_000, rng)
    what = f"{name} 10,000 × 10,000"
    rows += against_peers(what, train[:10_000], test, rounds, peer_rounds)
    rows.append(without_bfloat16(what, train[:10_000], test, rounds))
    rows.append(without_sample(what, train[:10_000], test, 1 if quick else rounds))
    rows.append(small_batch(f"{name} 60,000 × 100", train, test[:100], 3 * rounds))

    centres = 100 * rng.integers(0, 3, (4_000, 1))
    clusters = (centres + 0.1 * rng.standard_normal((4_000, D))).astype(np.float32)
    rows.append(without_float64_tiles("3 tight clusters, 2,000 × 2,000", clusters[:2_000], clusters[2_000:], 3))
    return rows


if __name__ == "__main__":
    for result in measure():
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in result.items()})
