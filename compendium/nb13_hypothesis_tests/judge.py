"""What notebook 13_hypothesis_tests records: statistics of VS22's sentences that a test of one batch can answer."""

from typing import Any

import pandas

from compendium.claims.verdicts import CORRECTED, sentence
from compendium.nb13_hypothesis_tests.calibration import outside_band
from compendium.nb13_hypothesis_tests.perturbations import ATTACK

PAPERS = ("mnist", "organamnist")
"""The paper's own image sets in this notebook."""

OURS = ("density · pixels", "coverage · pixels")
IMPERCEPTIBLE = 8 / 255


def judge(run: Any, table: pandas.DataFrame, calibrated: pandas.DataFrame, networks: pandas.DataFrame) -> None:
    """Record the statistics of the sentences; there is no rerun as published.

    Parameters
    ----------
    run : record.Run
    table : DataFrame
        Powers, from `power.study`.
    calibrated : DataFrame
        From `calibration.calibration_table`.
    networks : DataFrame
        Powers against attacks on two networks, from `power.by_network`.
    """
    for (dataset, network), part in networks.groupby(["dataset", "network"]):
        run.metric(f"by_network.{dataset}.{network}", dict(zip(part["size"].astype(str), part.power, strict=True)))
    for row, statistics in sentences(table, calibrated, networks).items():
        sentence(run, "vs22", row, {CORRECTED: statistics})


def sentences(
    table: pandas.DataFrame, calibrated: pandas.DataFrame, networks: pandas.DataFrame
) -> dict[str, dict[str, float]]:
    """Measure what decides the sentences: sentence → statistic → value; as for `judge`.

    Powers are those of density and coverage on pixels, of whole attacked batches, the largest that were drawn, on the
    paper's image sets.
    """
    ours = table[(table.share == 1) & (table.kind == ATTACK) & table.test.isin(OURS) & table.dataset.isin(PAPERS)]
    change = ["dataset", "perturbation", "size"]
    largest = ours[ours.m == ours.groupby(change, dropna=False).m.transform("max")]
    powers = largest.groupby(change, dropna=False).power
    better, worse = powers.max().reset_index(), powers.min().reset_index()
    small = worse[(worse.perturbation == "FGSM") & (worse["size"] <= IMPERCEPTIBLE + 1e-9)]
    large = better[(better.perturbation == "FGSM") & (better["size"] == better["size"].max())]
    outside, _, allowed = outside_band(calibrated)
    found = {
        "independent-of-attack": {"smallest power over attacks": better.power.min()},
        "detects-imperceptible": {"smallest power": small.power.min()},
        "hypothesis-tests-would-help": {
            "rejection rates outside their band, over what chance allows": outside / max(allowed, 1),
            "smallest power, largest FGSM": large.power.min(),
        },
    }
    if len(networks):
        by = networks.groupby(["dataset", "size"]).power
        found["model-agnostic"] = {"largest difference of power": (by.max() - by.min()).max()}
    return {row: values for row, values in found.items() if not pandas.isna(list(values.values())).any()}
