"""What notebook 09_embedding_space records: Fig. 12, layers, statistics of its sentences; and tables to show."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas
from torch import nn

from advlib import models
from compendium import networks
from compendium.claims import published, verdicts
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED
from compendium.common.tables import at_paper_scale
from compendium.common.vs22 import SETS, Curve
from compendium.nb09_embedding_space.measure import HIDDEN, LOGITS, PIXELS, SpaceCurves, power_where_it_works

SPACES = (PIXELS, HIDDEN, LOGITS)
SMALL = (1 / 19, 3 / 19)
"""Sizes in pixels at which AUROC and power are kept."""
BENCHMARK = 0.951
"""Best accuracy on OrganAMNIST's test part: ResNet-18 at 224 pixels, MedMNIST v2 (doi:10.1038/s41597-022-01721-8)."""
KINDS = {"as_published": "FGSM as published", "corrected": "FGSM corrected", "noise": "±ε noise"}


def fig12_value(curves: Mapping[str, Curve], column: str) -> float:
    """Read one of the published columns of Fig. 12 off our curves in the logits.

    Parameters
    ----------
    curves : dict
        Space → curve, of one mode.
    column : str
        "reference density", "reference coverage", "adversarial density eps=0.316" and the like.
    """
    curve = curves[LOGITS]
    kind, statistic, *at = column.split()
    if kind == "reference":
        return float(getattr(curve.clean, statistic))
    return float(np.interp(float(at[0].partition("=")[2]), curve.x, getattr(curve, statistic)))


def stored_fig12(statistic: str) -> dict[str, dict[float, float]]:
    """Return VS22's stored values of Fig. 12 for a figure: image set → ε → density or coverage."""
    found: dict[str, dict[float, float]] = {}
    for entry in published.load("vs22", "Figure 12"):
        kind, what, *at = entry.column.split()
        if kind == "adversarial" and what == statistic:
            found.setdefault(entry.row, {})[float(at[0].partition("=")[2])] = entry.value
    return found


def record_metrics(run: Any, results: Sequence[SpaceCurves]) -> None:
    """Keep numbers off the curves: clean values, density and coverage at two ε of FGSM, AUROC and power at two small ε.

    Parameters
    ----------
    run : record.Run
    results : sequence of SpaceCurves
    """
    large = (6 / 19, 1.0)
    for result in results:
        run.metric(f"{result.image_set.name}.shared_neighbours", result.shared)
        for space, clean in result.corrected.items():
            name = f"{result.image_set.name}.{space}"
            for statistic in ("density", "coverage"):
                run.metric(f"{name}.clean.{statistic}", getattr(clean.clean, statistic))
                for kind in ("as_published", "corrected"):
                    curve = getattr(result, kind)[space]
                    run.metric(f"{name}.{kind}.{statistic}", np.interp(large, curve.x, getattr(curve, statistic)))
                for kind in ("corrected", "noise"):
                    curve = getattr(result, kind)[space]
                    for word, line in zip(("auroc", "power"), curve.decisions(statistic), strict=True):
                        run.metric(f"{name}.{kind}.{word}.{statistic}", np.interp(SMALL, curve.x, line))


def accuracy_frame(run: Any, results: Sequence[SpaceCurves]) -> pandas.DataFrame:
    """Keep as metrics, and show, the share of images that the network reads rightly under FGSM and under noise.

    Parameters
    ----------
    run : record.Run
    results : sequence of SpaceCurves

    Returns
    -------
    pandas.DataFrame
        A line for each image set and change, a column for each of seven ε.
    """
    sizes = np.array([0, 1, 3, 4, 6, 12, 19]) / 19
    lines = {}
    for result in results:
        for kind, words in KINDS.items():
            curve = getattr(result, kind)[LOGITS]
            accuracy = np.interp(sizes, curve.x, curve.accuracy)
            run.metric(f"{result.image_set.name}.{kind}.accuracy", accuracy)
            lines[result.image_set.title, words] = accuracy.round(2)
    frame = pandas.DataFrame(lines, index=[f"ε = {size:.2f}" for size in sizes]).T
    return frame.rename_axis(["images", "accuracy under"])


def stored_power(run: Any, statistic: str) -> pandas.DataFrame:
    """Show what the stored run at paper scale gives for a decision about one sub-batch, FGSM beside noise.

    Parameters
    ----------
    run : record.Run
    statistic : str
        "density" or "coverage".

    Returns
    -------
    pandas.DataFrame
        A line for each space of MNIST and OrganMNIST; power under FGSM and ±ε noise at two small ε in pixels. Empty
        where no run at paper scale is stored.
    """
    metrics, lines = at_paper_scale(run), {}
    for name, space in product(("mnist", "organamnist"), SPACES):
        found = [metrics.get(f"{name}.{space}.{kind}.power.{statistic}") for kind in ("corrected", "noise")]
        if None not in found:
            pairs = zip(SMALL, *found, strict=True)
            lines[SETS[name].title, space] = {
                f"{what}, ε = {size:.2f}": round(value, 2)
                for size, *values in pairs for what, value in zip(("FGSM", "noise"), values, strict=True)
            }  # fmt: skip
    return pandas.DataFrame(lines).T


def judge(run: Any, results: Sequence[SpaceCurves]) -> None:
    """Record our value of every stored one of VS22's Fig. 12, every layer of its networks, and its sentences."""
    judge_layers(run)
    judge_curves(run, [result for result in results if result.image_set.in_paper])


def judge_curves(run: Any, results: Sequence[SpaceCurves]) -> None:
    """Record Fig. 12 and the sentences about it, of the paper's own image sets."""
    by_title = {result.image_set.title: result for result in results}
    for entry in published.load("vs22", "Figure 12"):
        if entry.row in by_title:
            by_mode = by_title[entry.row].by_mode()
            ours = {mode: fig12_value(curves, entry.column) for mode, curves in by_mode.items()}
            verdicts.number(run, entry.key, ours)
    for row, statistics in sentences(results).items():
        verdicts.sentence(run, "vs22", row, statistics)
    _judge_accuracy(run)


def _judge_accuracy(run: Any) -> None:
    """Record by how much Table 2's network, trained on OrganAMNIST's own training part, reads less of its test part.

    Run "0", "1" … takes the first, second … of the networks that `compendium.networks` retrained on that part.
    """
    for name in ("organamnist-vs22", "organamnist-vs22-official"):
        accuracies = [entry["accuracy"] for entry in networks.record() if entry["name"] == name]
        run.metric(f"accuracy.{name}", accuracies)
    run.metric("accuracy.best of the benchmark", BENCHMARK)
    lead = accuracies[int(run.network)] - BENCHMARK
    statistics = {"accuracy on the benchmark's test part, less that of its best network": lead}
    verdicts.sentence(run, "vs22", "accuracy-on-par", {CORRECTED: statistics})


def judge_layers(run: Any) -> None:
    """Record each size in VS22's Tables 1 and 2, read off the modules of the networks themselves."""
    sizes: dict[tuple[str, str, str], int] = {}
    for item, name, dense in (("Table 1", "mnist-vs22", ("3 Flatten", "3 Dense", "4 Dense")),
                              ("Table 2", "organamnist-vs22", ("", "5 Dense", "6 Dense"))):  # fmt: skip
        modules = list(models.build(name).hidden.modules())
        filters = [module.out_channels for module in modules if isinstance(module, nn.Conv2d)]
        linear = [module for module in modules if isinstance(module, nn.Linear)]
        widths = [linear[0].in_features, *(module.out_features for module in linear)]
        rows = ("1 Conv2D", "2 Conv2D", "3 Conv2D", "4 Conv2D", "4 Conv2D padded")[: len(filters)]
        found = zip((*rows, *dense), (*filters, *widths), strict=True)
        sizes |= {(item, row, "size"): size for row, size in found if row}
    heads = (("Table 1", "5 Dense", "size", "mnist-vs22"), ("Table 2", "7 Dense", "size PathMNIST", "pathmnist-vs22"),
             ("Table 2", "7 Dense", "size OrganMNIST", "organamnist-vs22"))  # fmt: skip
    sizes |= {tuple(key): models.build(name).head.out_features for *key, name in heads}
    keys = [entry.key for item in ("Table 1", "Table 2") for entry in published.load("vs22", item)]
    for key in keys:
        verdicts.number(run, key, dict.fromkeys((AS_PUBLISHED, CORRECTED), sizes[key[1:]]), "a layer of our network")


def sentences(results: Sequence[SpaceCurves]) -> dict[str, dict[str, dict[str, float]]]:
    """Measure what decides the sentences about the logits: sentence → mode → statistic → value.

    Whether FGSM is told apart is measured where it turns half of the images. Where it never does, on some image set,
    that mode is left out: normalised twice, images of OrganMNIST are misread before any attack.
    """
    apart = {}
    for mode in (AS_PUBLISHED, CORRECTED):
        found = [power_where_it_works(result.by_mode()[mode][LOGITS]) for result in results]
        if None not in found:
            apart[mode] = {"smallest power where half of the images are turned": min(found)}
    alike = {"largest share of neighbours in common": max(result.shared for result in results)}
    found = {"embedding-morphology-differs": {CORRECTED: alike}}
    return found | ({"embeddings-tell-apart": apart} if apart else {})
