"""Verdicts of notebook 13_hypothesis_tests: the sentences of VS22 that a test of one batch can answer."""

from typing import Any

import pandas

from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED, Finding, judge_sentences
from compendium.nb13_hypothesis_tests.calibration import outside_band
from compendium.nb13_hypothesis_tests.perturbations import ATTACK, TITLES


def judge(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame) -> None:
    """Record the verdicts, from the largest batches of a table of powers and from a table of calibration."""
    m = int(table.m.max())
    attacked = table[(table.share == 1) & (table.m == m) & (table.kind == ATTACK)]
    judge_sentences(
        run,
        {
            "every_attack_is_flagged": every_attack_is_flagged(attacked, m),
            "small_fgsm_is_flagged": small_fgsm_is_flagged(attacked, m),
            "asks_no_network": _finding(
                True,
                "density and coverage on pixels, residual and texture ask no network; hidden layer and stability do",
            ),
            "level_is_kept": level_is_kept(calibrated),
        },
    )


def every_attack_is_flagged(attacked: pandas.DataFrame, m: int) -> Finding:
    """Whether density or coverage on pixels flags at least half of the batches of every attack."""
    ours = _density_or_coverage(attacked)
    either = ours.groupby(["dataset", "perturbation", "size"], dropna=False).power.max()
    texture = attacked[attacked.test == "nearest ball · texture"].power.min()
    dataset, attack, _ = either.idxmin()
    return _finding(
        either.min() >= 0.5,
        f"power of the better of density and coverage on pixels, m = {m}: {either.min():.2f} to {either.max():.2f}; "
        f"nearest ball on texture at least {texture:.2f}",
        attack=attack,
        data=TITLES[dataset],
    )


def small_fgsm_is_flagged(attacked: pandas.DataFrame, m: int) -> Finding:
    """Whether density or coverage on pixels flags at least half of the batches under an FGSM nobody sees, ε ≤ 8/255."""
    ours = _density_or_coverage(attacked)
    small = ours[(ours.perturbation == "FGSM") & (ours["size"] <= 8 / 255 + 1e-9)]
    seen = small.groupby("dataset", sort=False).power.max()
    powers = ", ".join(f"{TITLES[name]} {value:.2f}" for name, value in seen.items())
    return _finding(seen.min() >= 0.5, f"FGSM at eps = {small['size'].max():g}, m = {m}, flagged at 5 %: {powers}")


def level_is_kept(calibrated: pandas.DataFrame) -> Finding:
    """Whether no more rejection rates of clean batches lie outside their band than chance allows."""
    outside, cells, allowed = outside_band(calibrated)
    return _finding(
        outside <= allowed,
        f"level kept: {outside} of {cells} rejection rates outside their 99 % band, chance allows {allowed}; a flag "
        "says changed, not attacked, unless stability is looked at",
    )


def _density_or_coverage(attacked: pandas.DataFrame) -> pandas.DataFrame:
    return attacked[attacked.test.isin(["density · pixels", "coverage · pixels"])]


def _finding(holds: bool, words: str, **numbers: str) -> Finding:
    """Say what was found; there is no rerun as published."""
    return Finding({AS_PUBLISHED: False, CORRECTED: bool(holds)}, {CORRECTED: words}, numbers)
