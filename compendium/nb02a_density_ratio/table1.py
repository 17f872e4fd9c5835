"""G17's Table 1, rerun: mean density ratios under FGSM, their plateaus, and what the paper says of them.

A table is a frame with one line for each row of the paper's table, ε and mode; its columns are

- row, epsilon, mode: as in the paper, and which rerun this is ("printed" for the paper's own);
- r1, r1_low, r1_high, r2, r2_low, r2_high: mean ratio with 95 % interval, real against adversarial and real against
  real;
- auroc, tpr_at_5_fpr: what a decision about one batch gets, which the paper does not say;
- clean_accuracy, adversarial_accuracy, zero_gradient_share: of the attacked network, see `advlib.attacks`;
- p_value: two-sided, of Welch's test that R1 and R2 have one mean, the draws taken as independent.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas
from scipy import stats

from advlib import attacks, models
from advlib.progress import track
from advlib.ulsif import DEFAULT_GRID
from compendium.claims import published, verdicts
from compendium.common import g17, protocol, tables
from compendium.common.g17 import AS_PUBLISHED, MODES, TABLE1

_DECISION = ["auroc", "tpr_at_5_fpr"]
_NETWORK = ["clean_accuracy", "adversarial_accuracy", "zero_gradient_share"]


def _interval(side: str, of: Any) -> dict[str, float]:
    """Name mean and interval of R1 or R2, from a `Summary`."""
    return {side: of.mean, f"{side}_low": of.low, f"{side}_high": of.high}


def printed_table1() -> pandas.DataFrame:
    """Table 1 as printed."""
    printed = g17.printed_ratios("Table 1").rename(columns=lambda name: name.lower().replace(" ", "_"))
    epsilon = printed.pop("what").str.removeprefix("eps=").astype(float)
    return _ordered(printed.assign(epsilon=epsilon, mode="printed"))


def _ordered(table: pandas.DataFrame) -> pandas.DataFrame:
    """Sort by the paper's order of rows, then by ε."""
    place = list(TABLE1).index
    return table.sort_values(
        ["row", "epsilon"], key=lambda values: values.map(place) if values.name == "row" else values, ignore_index=True
    )


def rerun_table1(
    mode: g17.Mode,
    epsilons: Sequence[float],
    *,
    images: int,
    draws: int,
    batch_size: int,
    rng: np.random.Generator,
    accuracies: bool = True,
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
    accuracies : bool
        Whether to ask the network about the attacked images. Without it FGSM's directions are kept from call to call,
        and the columns of the network are left out.
    """
    rows = []
    for image_set, network in mode.networks.items():
        everything, real, labels = g17.all_and_attacked(image_set, images)
        if accuracies:
            batches = attacks.fgsm_sweep(models.load_trained(network), real, labels, epsilons, clip=mode.clip)
            sweep = ((batch.images, {key: getattr(batch, key) for key in _NETWORK}) for batch in batches)
        else:
            signs = _directions(network, models.card(network)["sha256"], image_set, images)
            clip = mode.clip or (-np.inf, np.inf)
            sweep = (((real + np.float32(epsilon) * signs).clip(*clip), {}) for epsilon in epsilons)
        sweep = track(sweep, f"{mode.name}: {image_set}", len(epsilons))
        for epsilon, (moved, of_network) in zip(epsilons, sweep, strict=True):
            found = protocol.density_ratio_comparison(
                real, moved, numerators=everything, draws=draws, batch_size=batch_size, rng=rng, kernel=mode.kernel
            )
            rows += [
                {"row": name, "epsilon": epsilon, "mode": mode.name, **_statistics(found[part]), **of_network}
                for name, (needed, part) in TABLE1.items()
                if needed == image_set
            ]
    return _ordered(pandas.DataFrame(rows))


@lru_cache(maxsize=8)
def _directions(network: str, weights: str, image_set: str, images: int) -> np.ndarray:
    """FGSM's direction, (n, c, h, w) int8; `weights`, the digest of the network's, tells networks apart."""
    _, real, labels = g17.all_and_attacked(image_set, images)
    return attacks.gradient_signs(models.load_trained(network), real, labels)


def _statistics(found: protocol.RatioComparison) -> dict[str, float]:
    welch = stats.ttest_ind(found.r1, found.r2, equal_var=False)
    decision = {key: getattr(found, key) for key in _DECISION}
    return _interval("r1", found.r1_summary) | _interval("r2", found.r2_summary) | decision | {"p_value": welch.pvalue}


def names(table: pandas.DataFrame) -> list[str]:
    """Name each line of a table by row and ε."""
    return [f"{line.row} at ε = {line.epsilon:g}" for line in table.itertuples()]


# ---------------------------------------------------------------- plateaus


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
        parts = {f"channel {channel}": height for channel, height in enumerate(heights)}
        parts["combined"] = heights.mean(axis=0)
        found |= {name: parts[part] for name, (needed, part) in TABLE1.items() if needed == image_set}
    return pandas.DataFrame([found[name] for name in TABLE1], index=list(TABLE1), columns=["coin_flips", "formula"])


def _plateau(clean: np.ndarray, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """Mean R1 under coin flips of ±1, and by formula at the kernel width that these fits chose in the median."""
    moved = clean + rng.choice([-1.0, 1.0], clean.shape)
    fit = protocol.fit_indices(clean, moved, a, b, AS_PUBLISHED.kernel)  # on a plateau of the smallest λ: shown so
    sigma = float(np.median(fit.sigma_))
    limits = [protocol.disjoint_mean_ratio(clean[i], sigma, min(DEFAULT_GRID), AS_PUBLISHED.kernel) for i in a]
    return np.mean(fit.mean_ratio_), np.mean(limits)


def plateau_frame(run: Any, found: pandas.DataFrame) -> pandas.DataFrame:
    """Show the printed R1 at ε = 1 beside the plateaus, whole ratios, a line a row of Table 1.

    Parameters
    ----------
    run : record.Run
        Whose stored run at paper scale is shown too; left blank where there is none.
    found : pandas.DataFrame
        From `plateaus`.
    """
    stored = tables.at_paper_scale(run)
    columns = {
        "printed R1 at ε = 1": [g17.printed_r1(name, 1.0) for name in found.index],
        "formula, at paper scale": [stored.get(f"plateau.{name}.formula", np.nan) for name in found.index],
        "formula, this run": found.formula,
        "coin flips, this run": found.coin_flips,
    }
    return pandas.DataFrame(columns, index=found.index).round().astype("Int64")


# ---------------------------------------------------------------- beside the print

_COMBINED, _SINGLE = "CIFAR-10 (combined)", [f"CIFAR-10 ({colour})" for colour in ("red", "green", "blue")]


def record_table1(run: Any, rerun: pandas.DataFrame) -> None:
    """Put every mean, decision and accuracy of both modes into a run's record as metrics."""
    for line in rerun.to_dict("records"):
        for key in (*_DECISION, *_NETWORK, "r1", "r2"):
            run.metric(f"table1.{line['mode']}.{line['row']}.eps={line['epsilon']:g}.{key}", line[key])


def compare_numbers(run: Any, rerun: pandas.DataFrame) -> None:
    """Put every printed number of Table 1 that was rerun into a run's record.

    Parameters
    ----------
    run : record.Run
    rerun : pandas.DataFrame
        Both modes.
    """
    known = {entry.key for entry in published.load("g17", "Table 1")}
    for (name, epsilon), lines in rerun.groupby(["row", "epsilon"], sort=False):
        for side in ("r1", "r2"):
            key = ("g17", "Table 1", name, f"{side.upper()} eps={epsilon:g}")
            if key in known:
                verdicts.number(run, key, dict(zip(lines["mode"], lines[side].tolist(), strict=True)))


def compare_sentences(run: Any, rerun: pandas.DataFrame) -> None:
    """Put the sentences of §4.2 and §3.2 about Table 1 into a run's record; arguments as for `compare_numbers`."""
    found = {mode.name: sentences(rerun[rerun["mode"] == mode.name]) for mode in MODES}
    for row in found[AS_PUBLISHED.name]:
        verdicts.sentence(run, "g17", row, {mode: of[row] for mode, of in found.items()})


def sentences(table: pandas.DataFrame) -> dict[str, dict[str, float]]:
    """Measure what decides the sentences on the rerun table of one mode: sentence → statistic → number."""
    far = {side: protocol.departure(table[side]) for side in ("r1", "r2")}
    lines = [mine.sort_values("epsilon").r1.to_numpy() for _, mine in table.groupby("row", sort=False)]
    significant = table.p_value * len(table) < 0.05  # Bonferroni: one level for all rows together
    by_row = table.set_index(["epsilon", "row"])[_DECISION].unstack("row")
    behind = {what: by_row[what][_COMBINED] - by_row[what][_SINGLE].max(axis=1) for what in _DECISION}
    return {
        "real-real-near-one": {"least |log R1| − |log R2| of a row": float((far["r1"] - far["r2"]).min())},
        "ratio-deteriorates-with-eps": {
            "least factor of R1 from one ε to the next": float(min((line[1:] / line[:-1]).min() for line in lines)),
            "least factor of R1 from the smallest ε to the largest": float(min(line[-1] / line[0] for line in lines)),
        },
        "all-comparisons-significant": {
            "share of rows whose means differ at 5 % for all rows together": float(significant.mean()),
            "share of rows with R2 nearer to 1": float((far["r2"] < far["r1"]).mean()),
        },
        "combined-single-statistic": {
            "least AUROC of the combined estimate, less the best channel's": float(behind["auroc"].min()),
            "least power of the combined estimate, less the best channel's": float(behind["tpr_at_5_fpr"].min()),
        },
    }
