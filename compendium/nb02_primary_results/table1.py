"""G17's Table 1, rerun: mean density ratios under FGSM, their plateaus, and what the paper says of them.

A table is a frame with one line for each row of the paper's table, ε and mode; its columns are

- row, epsilon, mode: as in the paper, and which rerun this is ("published" for the paper's own);
- r1, r1_low, r1_high, r2, r2_low, r2_high: mean ratio with 95 % interval, real against adversarial and real against
  real;
- auroc, tpr_at_5_fpr: what a decision about one batch gets, which the paper does not say;
- clean_accuracy, adversarial_accuracy, zero_gradient_share: of the attacked network, see `advlib.attacks`;
- p_value: two-sided, of Welch's test that R1 and R2 have one mean, the draws taken as independent.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas
from scipy import stats

from advlib import attacks, models
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID, GridEdgeWarning, fit_batch_indices
from compendium.claims import published, verdicts
from compendium.common import g17, protocol
from compendium.common.g17 import AS_PUBLISHED, MODES, TABLE1, TOLERANCE, agrees

_DECISION = ["auroc", "tpr_at_5_fpr"]
_NETWORK = ["clean_accuracy", "adversarial_accuracy", "zero_gradient_share"]


def _interval(side: str, of: Any) -> dict[str, float]:
    """Name mean and interval of R1 or R2, from a `Summary`."""
    return {side: of.mean, f"{side}_low": of.low, f"{side}_high": of.high}


def printed_table1() -> pandas.DataFrame:
    """Table 1 as printed."""
    rows: dict[tuple[str, float], dict[str, Any]] = {}
    for entry in published.load("g17", "Table 1"):
        side, _, epsilon = entry.column.partition(" eps=")
        line = {"row": entry.row, "epsilon": float(epsilon), "mode": "published"}
        interval = _interval(side.lower(), protocol.Summary(entry.value, entry.low, entry.high))
        rows.setdefault((entry.row, float(epsilon)), line).update(interval)
    return _ordered(pandas.DataFrame(rows.values()))


def _ordered(table: pandas.DataFrame) -> pandas.DataFrame:
    """Sort by the paper's order of rows, then by ε."""
    place = list(TABLE1).index
    return table.sort_values(
        ["row", "epsilon"], key=lambda values: values.map(place) if values.name == "row" else values, ignore_index=True
    )


def rerun_table1(
    mode: g17.Mode, epsilons: Sequence[float], *, images: int, draws: int, batch_size: int, rng: np.random.Generator
) -> pandas.DataFrame:
    """Attack, draw and fit everything behind Table 1 in one mode.

    Parameters
    ----------
    mode : Mode
        `AS_PUBLISHED` or `CORRECTED`.
    epsilons : sequence of float
        L∞ sizes of FGSM; the direction is computed once for all of them.
    images : int
        Test images that are attacked, 0 for all; numerators are drawn from all.
    draws, batch_size : int
        t and m of Algorithm 1.
    rng : numpy.random.Generator
        Source of the draws.
    """
    rows = []
    for image_set, network in mode.networks.items():
        everything, real, labels = g17.all_and_attacked(image_set, images)
        sweep = attacks.fgsm_sweep(models.load_trained(network), real, labels, epsilons, clip=mode.clip)
        for epsilon, batch in zip(epsilons, track(sweep, f"{mode.name}: {image_set}", len(epsilons)), strict=True):
            found = protocol.density_ratio_comparison(
                real, batch.images, numerators=everything, draws=draws, batch_size=batch_size, rng=rng,
                kernel=mode.kernel,
            )  # fmt: skip
            attacked = {key: getattr(batch, key) for key in _NETWORK}
            rows += [
                {"row": name, "epsilon": epsilon, "mode": mode.name, **_statistics(found[part]), **attacked}
                for name, (needed, part) in TABLE1.items()
                if needed == image_set
            ]
    return _ordered(pandas.DataFrame(rows))


def _statistics(found: protocol.RatioComparison) -> dict[str, float]:
    welch = stats.ttest_ind(found.r1, found.r2, equal_var=False)
    decision = {key: getattr(found, key) for key in _DECISION}
    return _interval("r1", found.r1_summary) | _interval("r2", found.r2_summary) | decision | {"p_value": welch.pvalue}


def apart(table: pandas.DataFrame) -> pandas.Series:
    """Whether the 95 % intervals of R1 and R2 do not touch, for each line of a table."""
    return (table.r1_low > table.r2_high) | (table.r1_high < table.r2_low)


def names(table: pandas.DataFrame) -> list[str]:
    """Name each line of a table by row and ε."""
    return [f"{line.row} at ε = {line.epsilon:g}" for line in table.itertuples()]


# ---------------------------------------------------------------- plateaus and unmoved pixels


def _channels_of(part: str) -> slice | list[int]:
    """Which channels a row of the table shows."""
    return slice(None) if part == "combined" else [int(part.removeprefix("channel "))]


def plateaus(*, batch_size: int, draws: int, images: int, rng: np.random.Generator) -> pandas.DataFrame:
    """Predict, before any attack is run and without any network, where the as-published mean R1 stops growing.

    Parameters
    ----------
    batch_size, draws, images, rng
        As for `rerun_table1`.

    Returns
    -------
    pandas.DataFrame
        A line a row of Table 1; columns coin_flips (mean R1 with each clean pixel moved by +1 or −1 at random instead
        of by an attack) and formula (‖ĥ‖²/λ_min over the same numerators: clean images alone).
    """
    found = {}
    for image_set in AS_PUBLISHED.networks:
        real, _ = g17.test_images(image_set, images)
        a, b = (protocol.draw_indices(len(real), draws, batch_size, rng) for _ in range(2))
        pools = real.reshape(len(real), real.shape[1], -1)
        heights = np.array([_plateau(pools[:, channel], a, b, rng) for channel in range(pools.shape[1])])
        for name, (needed, part) in TABLE1.items():
            if needed == image_set:
                found[name] = heights[_channels_of(part)].mean(axis=0)
    return pandas.DataFrame([found[name] for name in TABLE1], index=list(TABLE1), columns=["coin_flips", "formula"])


def _plateau(clean: np.ndarray, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Mean R1 under coin flips of ±1, and by formula at the kernel width that these fits chose in the median."""
    moved = clean + rng.choice([-1.0, 1.0], clean.shape)
    with warnings.catch_warnings():
        # On a plateau the smallest λ is always chosen: that is what is shown.
        warnings.simplefilter("ignore", GridEdgeWarning)
        fit = fit_batch_indices(clean, moved, a, b, kernel=AS_PUBLISHED.kernel)
    sigma = float(np.median(fit.sigma_))
    limits = [protocol.disjoint_mean_ratio(clean[i], sigma, min(DEFAULT_GRID), AS_PUBLISHED.kernel) for i in a]
    return np.mean(fit.mean_ratio_), np.mean(limits)


def unmoved_pixel_curves(
    shares: Sequence[float],
    epsilons: Sequence[float],
    *,
    batch_size: int,
    draws: int,
    images: int,
    rng: np.random.Generator,
) -> pandas.DataFrame:
    """As-published R1 when a share of the pixels does not move and a coin flip of ±ε moves each of the others.

    sign(0) = 0: where a network's gradient is exactly zero, FGSM leaves the pixel alone. The paper's networks are
    unknown, but their share of such pixels can be read off these curves.

    Parameters
    ----------
    shares : sequence of float
        Shares of unmoved pixels, rising.
    epsilons : sequence of float
        L∞ sizes.
    batch_size, draws, images, rng
        As for `rerun_table1`.

    Returns
    -------
    pandas.DataFrame
        Columns row (of Table 1; channels apart, without the combined row), share, epsilon, r1 (mean over the draws).
    """
    lines = []
    for name, (image_set, part) in track(TABLE1.items(), "unmoved pixels", len(TABLE1)):
        if name == "CIFAR-10 (combined)":
            continue
        real, _ = g17.test_images(image_set, images)
        clean = real[:, _channels_of(part)].reshape(len(real), -1)
        a, b = (protocol.draw_indices(len(real), draws, batch_size, rng) for _ in range(2))
        flips, chance = rng.choice(np.float32([-1, 1]), clean.shape), rng.random(clean.shape)
        for share in shares:
            moves = np.where(chance >= share, flips, np.float32(0))
            for epsilon in epsilons:
                moved = clean + np.float32(epsilon) * moves
                r1 = protocol.mean_ratios(clean, moved, a, b, AS_PUBLISHED.kernel).mean()
                lines.append({"row": name, "share": share, "epsilon": epsilon, "r1": r1})
    return pandas.DataFrame(lines)


def unmoved_share(r1: Sequence[float], shares: Sequence[float], printed: float) -> float:
    """Read off the share of unmoved pixels at which a falling R1 curve (n_shares,) takes the printed value."""
    return float(np.interp(-printed, -np.minimum.accumulate(np.asarray(r1)), shares))


# ---------------------------------------------------------------- beside the printed numbers


def record_table1(run: Any, rerun: pandas.DataFrame, predicted: pandas.DataFrame, unmoved: Mapping[str, float]) -> None:
    """Put Table 1 into a run's record: every mean and decision as a metric, every printed number as a comparison.

    Parameters
    ----------
    run : record.Run
    rerun : pandas.DataFrame
        Both modes.
    predicted : pandas.DataFrame
        From `plateaus`; the cause of a printed number that is one.
    unmoved : dict
        Row → share of unmoved pixels at which the printed R1 at ε = 0.3 comes out, from `unmoved_share`.
    """
    by_mode = {mode: mine.set_index(["row", "epsilon"]) for mode, mine in rerun.groupby("mode")}
    for mode, mine in by_mode.items():
        for (name, epsilon), line in mine.iterrows():
            for key in (*_DECISION, *_NETWORK, "r1", "r2"):
                run.metric(f"table1.{mode}.{name}.eps={epsilon:g}.{key}", line[key])
    for printed in printed_table1().to_dict("records"):
        place = printed["row"], printed["epsilon"]
        if place not in by_mode[verdicts.CORRECTED].index:
            continue
        ours = {mode: mine.loc[place] for mode, mine in by_mode.items()}
        for side in ("r1", "r2"):
            key = ("g17", "Table 1", printed["row"], f"{side.upper()} eps={printed['epsilon']:g}")
            shown = {mode: round(line[side], 2) for mode, line in ours.items()}
            holds = {mode: agrees(line[side], printed[side]) for mode, line in ours.items()}
            height = predicted.formula[printed["row"]]
            run.compare(verdicts.compare(key, shown, holds, cause(side, printed, ours, height, unmoved)))


def cause(
    side: str,
    printed: Mapping[str, Any],
    ours: Mapping[str, Mapping[str, float]],
    plateau: float,
    unmoved: Mapping[str, float],
) -> str:
    """Say why a printed number of Table 1 is what it is, from what was measured; nothing where nothing needs it.

    Parameters
    ----------
    side : str
        "r1" or "r2".
    printed : mapping
        The printed line of the table.
    ours : dict
        "as published" and "corrected" → that line rerun.
    plateau : float
        Height of the plateau of this row by formula.
    unmoved : dict
        As for `record_table1`.
    """
    same = {mode: agrees(line[side], printed[side]) for mode, line in ours.items()}
    if side == "r2":
        by_kernel = "of two clean batches, the unsquared kernel's ratio lies above 1, the Gaussian's at 1"
        return "" if same[verdicts.CORRECTED] else by_kernel
    on_plateau = agrees(printed["r1"], plateau)
    if same[verdicts.CORRECTED]:
        return "by chance: the printed value is a plateau, the corrected one is on its way up" if on_plateau else ""
    if same[verdicts.AS_PUBLISHED]:
        if on_plateau and agrees(ours[verdicts.AS_PUBLISHED]["r1"], plateau):
            return f"plateau ‖ĥ‖²/λ_min = {plateau:.1f} of the unsquared kernel: clean images and smallest λ, no attack"
        return "unsquared kernel and unclipped FGSM, the software of May 2017"
    if printed["row"] in unmoved:
        return (
            f"unknown network: its gradient must be exactly zero in about {unmoved[printed['row']]:.0%} of the pixels, "
            "which FGSM does not move; in ours it is zero in "
            f"{ours[verdicts.AS_PUBLISHED]['zero_gradient_share']:.0%}"
        )
    return "mean of three channels, and the printed blue channel lies low: see that row"


def outside_tolerance(rerun: pandas.DataFrame, mode: str = AS_PUBLISHED.name) -> list[str]:
    """List the rows of Table 1 whose rerun R1 differs from the printed one by more than `TOLERANCE`."""
    mine = rerun[rerun["mode"] == mode]
    return names(mine[[not agrees(line.r1, g17.printed_r1(line.row, line.epsilon)) for line in mine.itertuples()]])


def table1_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons with Table 1 as a table: published, as published, corrected, band, verdict, cause."""
    frame = verdicts.rows(run, "Table 1").set_index(["row", "column"]).rename(columns={"as_published": "as published"})
    frame["published"] = [published.value("g17", "Table 1", *key) for key in frame.index]
    frame["band"] = [f"{value * (1 - TOLERANCE):.2f} to {value * (1 + TOLERANCE):.2f}" for value in frame.published]
    return frame[["published", "as published", "corrected", "band", "verdict", "cause"]]


# ---------------------------------------------------------------- the sentences about it


def judge_table1(run: Any, rerun: pandas.DataFrame) -> None:
    """Judge the sentences of §4.2 and §3.2 about Table 1; criteria in `data/published/sentences/`."""
    by_mode = {mode.name: rerun[rerun["mode"] == mode.name] for mode in MODES}
    below = rerun[rerun.r1 < rerun.r2]
    numbers = {
        "last_step": max(abs(line[-1] / line[-2:][0] - 1) for line in _lines(by_mode[AS_PUBLISHED.name])),
        "below": ", ".join(f"{n} ({m})" for n, m in zip(names(below), below["mode"], strict=True)) or "none",
        "flagged": ", ".join(f"{mine.tpr_at_5_fpr.min():.0%} ({mode})" for mode, mine in by_mode.items()),
    }
    predicates = (clean_ratio_near_one, ratio_grows, all_differences_significant, combined_as_good_as_channels)
    verdicts.judge_sentences(
        run,
        {
            judge.__name__: verdicts.Finding.of({mode: judge(mine) for mode, mine in by_mode.items()}, **numbers)
            for judge in predicates
        },
        paper="g17",
    )


def _lines(table: pandas.DataFrame) -> list[list[float]]:
    """Mean R1 over ε, a list for each row of the table."""
    return [mine.r1.tolist() for _, mine in table.groupby("row", sort=False)]


def clean_ratio_near_one(table: pandas.DataFrame) -> tuple[bool, str]:
    """Mean R2 lies nearer to 1 than mean R1 in every row, by |log R|."""
    nearer = protocol.departure(table.r2) < protocol.departure(table.r1)
    return bool(nearer.all()), (
        f"R2 nearer to 1 than R1 in {nearer.sum()} of {len(table)} rows; R2 {table.r2.min():.2f} to "
        f"{table.r2.max():.2f}, R1 {table.r1.min():.2f} to {table.r1.max():.3g}"
    )


def ratio_grows(table: pandas.DataFrame) -> tuple[bool, str]:
    """Mean R1 of every row rises from ε to ε, or stays within `TOLERANCE` (a plateau), and tenfold over all of them."""
    lines = _lines(table)
    rises = all(later > earlier or agrees(later, earlier) for line in lines for earlier, later in pairwise(line))
    factors = [line[-1] / line[0] for line in lines]
    return rises and min(factors) >= 10, (
        f"R1 grows {min(factors):.0f} to {max(factors):.0f} times from the smallest ε to the largest"
    )


def all_differences_significant(table: pandas.DataFrame) -> tuple[bool, str]:
    """Welch's test at 5 % parts R1 from R2 in every row."""
    p = table.p_value
    return bool((p < 0.05).all()), (
        f"{(p < 0.05).sum()} of {len(table)} by Welch's test at 5 %, largest p {p.max():.1g}"
    )


def combined_as_good_as_channels(table: pandas.DataFrame) -> tuple[bool, str]:
    """AUROC and power of the combined CIFAR-10 estimate lie at most 0.05 below the best channel's, at every ε."""
    as_good, words = [], []
    for epsilon, mine in table.groupby("epsilon"):
        here = mine.set_index("row")[_DECISION]
        combined = here.loc["CIFAR-10 (combined)"]
        channels = here.loc[["CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)"]]
        as_good.append((combined >= channels.max() - 0.05).all())
        low, high = channels.tpr_at_5_fpr.min(), channels.tpr_at_5_fpr.max()
        words.append(f"ε = {epsilon:g}: {combined.tpr_at_5_fpr:.2f}, channels {low:.2f} to {high:.2f}")
    return all(as_good), "power at 5 % false alarms, " + "; ".join(words)
