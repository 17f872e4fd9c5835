"""Density and coverage in a network's embeddings, beside pixel space (VS22 appendix C, Fig. 12).

The paper's text says "the embeddings from the last layer"; its code [1]_ takes the output of the last dense layer, the
logits. So both are here, the last hidden layer and the logits, and beside them pixel space and, where its weights lie
on disk, a network that never saw the data.

References
----------
.. [1] D. K. Venkatesh, P. Steinbach, "Detecting adversarial examples in batches", arXiv:2206.08738 (2022); code:
   github.com/danushv07/n2gem, classes FXMNIST and FXMed.
.. [2] K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016,
   doi:10.1109/CVPR.2016.90.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn
from torchvision.models import ResNet18_Weights, resnet18

from advlib import models, published, vs22
from advlib.attacks import AdversarialBatch
from advlib.features import FeatureMap
from advlib.models import Classifier
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from advlib.vs22 import Curve, ImageSet, Score, Split

PIXELS, HIDDEN, LOGITS, IMAGENET = "pixels", "last hidden layer", "logits", "ImageNet ResNet-18"

IMAGENET_SIZE = 64
"""Side in pixels to which images are scaled for the ImageNet network: an eighth of the work of its own 224."""

TOLERANCE = 0.15, 0.02
"""Relative and absolute deviation, the larger of the two, up to which a density or coverage counts as the published
one: VS22's networks are not published, and ours differ from them in their training."""


def embeddings(model: Classifier, images: np.ndarray, imagenet: FeatureMap | None = None) -> dict[str, np.ndarray]:
    """Return the images as points of every space, by its name; the network runs once for both of its layers.

    Parameters
    ----------
    model : Classifier
    images : (n, c, h, w) float32 array
        In [0, 1].
    imagenet : callable, optional
        From `imagenet_features`, where its weights are there.

    Returns
    -------
    dict
        Space → (n, d) float32: the pixels, the last hidden layer (d = 64), the logits (d = classes), and where given
        the ImageNet network's features (d = 512).
    """
    hidden = models.embed(model, images, batch_size=50)  # few images fit into a CPU's cache: twice as fast
    with torch.inference_mode():
        device = next(model.parameters()).device
        logits = model.head(torch.from_numpy(hidden).to(device)).cpu().numpy()
    found = {PIXELS: vs22.flat(images), HIDDEN: hidden, LOGITS: logits}
    return found if imagenet is None else found | {IMAGENET: imagenet(images)}


def imagenet_features(folder: Path | None = None) -> tuple[FeatureMap | None, str]:
    """Return the pooled features of torchvision's ImageNet ResNet-18 [2]_ if its weights lie on disk; fetches nothing.

    Parameters
    ----------
    folder : path, optional
        Where to look instead of torch's own `hub/checkpoints`, to which torchvision downloads.

    Returns
    -------
    features : callable or None
        (n, c, h, w) images in [0, 1] → (n, 512) float32.
    sentence : str
        What is used, or why nothing is.
    """
    weights = ResNet18_Weights.DEFAULT
    file = (Path(torch.hub.get_dir()) / "checkpoints" if folder is None else Path(folder)) / Path(weights.url).name
    if not file.is_file():
        return None, (
            f"ImageNet ResNet-18: its weights ({file.name}) are not in torch's checkpoint folder and are not fetched, "
            "so this space is left out."
        )
    # torchvision's file names end in the first digits of their sha256.
    wanted, found = file.stem.rsplit("-", 1)[-1], hashlib.sha256(file.read_bytes()).hexdigest()
    if not found.startswith(wanted):
        return None, (
            f"ImageNet ResNet-18: {file.name} must have a sha256 that begins with {wanted}, but has {found[:8]}…, so "
            "this space is left out."
        )
    return _ImageNet(
        file
    ), f"ImageNet ResNet-18: {file.name}, pooled features, images scaled to {IMAGENET_SIZE} pixels."


@dataclass(frozen=True)
class _ImageNet:
    """The last hidden layer of ResNet-18 as a feature map."""

    file: Path

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, c, h, w) images in [0, 1] → (n, 512) float32."""
        tensor = models.as_tensor(images).float()
        model = _residual_network(self.file)
        found = []
        with torch.inference_mode():
            for part in tensor.split(250):
                colour = part.expand(-1, 3, -1, -1) if part.shape[1] == 1 else part
                scaled = torch.nn.functional.interpolate(colour, size=IMAGENET_SIZE, mode="bilinear")
                found.append(model((scaled - _IMAGENET_MEAN) / _IMAGENET_STD))
        return torch.cat(found).numpy()


_IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


@lru_cache(maxsize=1)
def _residual_network(file: Path) -> torch.nn.Module:
    model = resnet18(weights=None)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.fc = torch.nn.Identity()
    return model.eval().requires_grad_(False)


# ---------------------------------------------------------------- curves


@dataclass(frozen=True, eq=False)
class SpaceCurves:
    """One image set's curves in every space.

    Attributes
    ----------
    image_set : ImageSet
    as_published, corrected : dict
        Space → `vs22.Curve` over ε under FGSM, in the mode of that name.
    noise : dict
        Space → `vs22.Curve` over ε under random ±ε, a change without an aim, as large as corrected FGSM's.
    hubs : dict
        Space → the largest number of balls that hold one untouched query.
    """

    image_set: ImageSet
    as_published: dict[str, Curve] = field(repr=False)
    corrected: dict[str, Curve] = field(repr=False)
    noise: dict[str, Curve] = field(repr=False)
    hubs: dict[str, int] = field(default_factory=dict, repr=False)

    def by_mode(self) -> dict[str, dict[str, Curve]]:
        """Return mode → space → curve, the attack's modes alone."""
        return {vs22.AS_PUBLISHED.name: self.as_published, vs22.CORRECTED.name: self.corrected}


def space_curves(
    split: Split,
    epsilons: Sequence[float],
    batch_size: int,
    rng: np.random.Generator,
    imagenet: FeatureMap | None = None,
) -> SpaceCurves:
    """Attack one image set by FGSM and score the images in every space.

    The attack is the same for all spaces, and so are the sub-batches: what differs is where the balls are.

    Parameters
    ----------
    split : vs22.Split
        Reference and queries.
    epsilons : sequence of float
        FGSM sizes in the mode's own units, see `vs22.fgsm_sweep`.
    batch_size : int
        Images in a sub-batch.
    rng : numpy.random.Generator
        Draws sub-batches and noise.
    imagenet : callable, optional
        From `imagenet_features`.
    """
    chosen = split.image_set
    model = models.load_trained(chosen.network)
    batches = vs22.sub_batches(len(split.images), batch_size, rng)
    clean = embeddings(model, split.images, imagenet)
    manifolds = {
        space: ReferenceManifold(vs22.K).fit(points)
        for space, points in embeddings(model, split.reference, imagenet).items()
    }
    clean_scores = {space: vs22.score(manifold, clean[space], batches) for space, manifold in manifolds.items()}

    def curves(name: str, queries: Iterable[AdversarialBatch | np.ndarray]) -> dict[str, Curve]:
        scores: dict[str, list[Score]] = {space: [] for space in manifolds}
        for query in track(queries, f"{chosen.title}, {name}", len(epsilons)):
            found_points = embeddings(model, getattr(query, "images", query), imagenet)
            told = {"accuracy": float(np.mean(found_points[LOGITS].argmax(axis=1) == split.labels))}
            if isinstance(query, AdversarialBatch):
                told = {"accuracy": query.adversarial_accuracy, "success": float(np.mean(query.success))}
            for space, points in found_points.items():
                scores[space].append(replace(vs22.score(manifolds[space], points, batches), **told))
        return {
            space: Curve(
                f"{chosen.title}, {space}, {name}",
                np.asarray(epsilons, float),
                clean_scores[space],
                tuple(found),
                len(split.reference),
                len(split.images),
                batch_size,
                vs22.K,
            )
            for space, found in scores.items()
        }

    published_curves, corrected_curves = (
        curves(mode.name, vs22.fgsm_sweep(mode, chosen, model, split.images, split.labels, epsilons))
        for mode in vs22.MODES
    )
    noise = curves("±ε noise", vs22.noise_sweep(split.images, epsilons, rng))
    hubs = {space: int(np.diff(manifold.hits(clean[space]).indptr).max()) for space, manifold in manifolds.items()}
    return SpaceCurves(chosen, published_curves, corrected_curves, noise, hubs)


# ---------------------------------------------------------------- what a decision gets, and verdicts


def power(curve: Curve) -> np.ndarray:
    """Power at 5 % false alarms of the better of density and coverage, two-sided, for one sub-batch at each ε, (e,).

    The better of two is chosen with hindsight; a test that combines them pays for that (notebook 13).
    """
    return np.maximum(*(curve.decisions(statistic)[1] for statistic in ("density", "coverage")))


def attack_beyond_noise(curves: SpaceCurves, largest: float = 0.35) -> dict[str, tuple[float, float]]:
    """Return where a space tells FGSM best from aimless noise of the same size.

    Parameters
    ----------
    curves : SpaceCurves
    largest : float
        ε up to which it is looked for; beyond, everything is flagged.

    Returns
    -------
    dict
        Space → (ε, power on FGSM minus power on ±ε noise there), of the same statistic, the larger of density's and
        coverage's.
    """
    found = {}
    for space, attack in curves.corrected.items():
        near = attack.x <= largest
        gaps = [
            (attack.decisions(statistic)[1] - curves.noise[space].decisions(statistic)[1])[near]
            for statistic in ("density", "coverage")
        ]
        gap = np.maximum(*gaps)
        found[space] = float(attack.x[near][gap.argmax()]), float(gap.max())
    return found


def power_where_it_works(curve: Curve, share: float = 0.5) -> float | None:
    """Smallest `power` over the ε at which the attack turned at least `share` of all images; None if it never did."""
    works = np.array([score.success is not None and score.success >= share for score in curve.scores])
    return float(power(curve)[works].min()) if works.any() else None


def fig12_value(curves: dict[str, Curve], column: str) -> float:
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
    large, small = (6 / 19, 1.0), (1 / 19, 3 / 19)
    for result in results:
        for space, clean in result.corrected.items():
            name = f"{result.image_set.name}.{space}"
            for statistic in ("density", "coverage"):
                run.metric(f"{name}.clean.{statistic}", getattr(clean.clean, statistic))
                for kind in ("as_published", "corrected", "noise"):
                    curve = getattr(result, kind)[space]
                    if kind != "noise":
                        at = np.interp(large, curve.x, getattr(curve, statistic))
                        run.metric(f"{name}.{kind}.{statistic}", at)
                    if kind != "as_published":
                        aurocs, powers = (np.interp(small, curve.x, line) for line in curve.decisions(statistic))
                        run.metric(f"{name}.{kind}.auroc.{statistic}", aurocs)
                        run.metric(f"{name}.{kind}.power.{statistic}", powers)


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
    lines = []
    for result in results:
        changes = {
            "FGSM as published": result.as_published,
            "FGSM corrected": result.corrected,
            "±ε noise": result.noise,
        }
        for (change, curves), kind in zip(changes.items(), ("as_published", "corrected", "noise"), strict=True):
            accuracy = np.interp(sizes, curves[LOGITS].x, curves[LOGITS].accuracy)
            run.metric(f"{result.image_set.name}.{kind}.accuracy", accuracy)
            at = {f"ε = {size:.2f}": round(float(value), 2) for size, value in zip(sizes, accuracy, strict=True)}
            lines.append({"images": result.image_set.title, "accuracy under": change} | at)
    return pandas.DataFrame(lines).set_index(["images", "accuracy under"])


def comparison_frame(run: Any) -> pandas.DataFrame:
    """Show a run's comparisons as a table: published, as published, corrected, verdict and cause.

    Values of an image set that was not run share one line.
    """
    lines: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in run.comparisons.values():
        missing = row["verdict"] == "not run here" and row["item"] != "claim"
        column = "all values" if missing else row["column"]
        lines[row["item"], row["row"], column] = {
            "item": row["item"],
            "row": row["row"],
            "column": column,
            "published": None
            if missing
            else published.lookup(*(row[part] for part in ("paper", "item", "row", "column"))).value,
            **{name.replace("_", " "): row.get(name) for name in ("as_published", "corrected", "verdict", "cause")},
        }
    return pandas.DataFrame(list(lines.values())).astype(object).fillna("").set_index(["item", "row", "column"])


def judge(results: Sequence[SpaceCurves]) -> list[dict[str, Any]]:
    """Compare with everything that VS22 says of its Fig. 12.

    Returns
    -------
    list of dict
        For `record.Run.compare`: each stored value of Fig. 12, and the claim that embeddings tell attacks apart.
    """
    by_title = {result.image_set.title: result for result in results}
    rows: list[dict[str, Any]] = []
    for entry in published.load("vs22", "Figure 12"):
        row: dict[str, Any] = {"paper": "vs22", "item": entry.item, "row": entry.row, "column": entry.column}
        if entry.row in by_title:
            result = by_title[entry.row]
            old, new = (fig12_value(curves, entry.column) for curves in (result.as_published, result.corrected))
            row |= {"as_published": round(old, 3), "corrected": round(new, 3)} | _verdict(old, new, entry)
        else:
            row |= {"verdict": "not run here", "cause": f"the file of {entry.row} is not on disk"}
        rows.append(row)
    rows.append(_told_apart([result for result in results if result.image_set.in_paper]))
    return rows


def judge_networks() -> list[dict[str, Any]]:
    """Compare the networks' layers with VS22's Tables 1 and 2.

    Returns
    -------
    list of dict
        For `record.Run.compare`: a row for each printed size, from the modules themselves.
    """
    sizes: dict[tuple[str, str, str], int] = {}
    for item, name, wide in (("Table 1", "mnist-vs22", ("3 Flatten", "3 Dense", "4 Dense")),
                             ("Table 2", "organamnist-vs22", (None, "5 Dense", "6 Dense"))):  # fmt: skip
        modules = list(models.build(name).hidden.modules())
        filters = [m.out_channels for m in modules if isinstance(m, nn.Conv2d)]
        rows = ("1 Conv2D", "2 Conv2D", "3 Conv2D", "4 Conv2D", "4 Conv2D padded")
        sizes |= {(item, row, "size"): size for row, size in zip(rows, filters, strict=False)}
        dense = [m for m in modules if isinstance(m, nn.Linear)]
        widths = [dense[0].in_features, *(m.out_features for m in dense)]
        sizes |= {(item, row, "size"): size for row, size in zip(wide, widths, strict=True) if row}
    sizes["Table 1", "5 Dense", "size"] = models.build("mnist-vs22").head.out_features
    for title, name in (("PathMNIST", "pathmnist-vs22"), ("OrganMNIST", "organamnist-vs22")):
        sizes["Table 2", "7 Dense", f"size {title}"] = models.build(name).head.out_features
    rows = []
    for entry in (*published.load("vs22", "Table 1"), *published.load("vs22", "Table 2")):
        ours = sizes[entry.item, entry.row, entry.column]
        rows.append(
            {
                "paper": "vs22", "item": entry.item, "row": entry.row, "column": entry.column, "as_published": ours,
                "corrected": ours, "verdict": "reproduced" if ours == entry.value else "not reproduced",
                "cause": "a setting, not a result: the network that is attacked here has this layer",
            }
        )  # fmt: skip
    accuracy = models.card("organamnist-vs22")["accuracy"]
    rows.append(
        {
            "paper": "vs22", "item": "claim", "row": "accuracy-on-par", "column": "", "verdict": "not run here",
            "cause": f"our network reads {accuracy:.1%} of OrganMNIST's pooled hold-out, where slices of one "
            "patient lie on both sides; the benchmark tests on other patients, so the two cannot be compared",
        }
    )  # fmt: skip
    return rows


def _verdict(old: float, new: float, entry: published.Published) -> dict[str, str]:
    def near(ours: float) -> bool:
        return abs(ours - entry.value) <= max(TOLERANCE[0] * entry.value, TOLERANCE[1])

    if near(new):
        return {"verdict": "reproduced", "cause": ""}
    if near(old):
        cause = "normalised twice and clipped to (0, 1) in normalised units; FGSM in pixels goes elsewhere"
        return {"verdict": "reproduced as published only", "cause": cause}
    if entry.row == "MNIST":
        cause = "another network: VS22's loses its accuracy faster beyond eps = 0.5, so its logits move further"
    else:
        cause = (
            "another network: how far the logits go when the network is fed what it was not trained on depends on its "
            "training, and VS22's weights are not published"
        )
    return {"verdict": "not reproduced", "cause": cause}


def _told_apart(results: Sequence[SpaceCurves]) -> dict[str, Any]:
    phrases, untested = [], []
    for curves in ("as_published", "corrected"):
        found = {r.image_set.title: power_where_it_works(getattr(r, curves)[LOGITS]) for r in results}
        powers = [f"{title} {value:.2f}" for title, value in found.items() if value is not None]
        weak = [title for title, value in found.items() if value is None]
        parts = ["smallest power where half the images are turned: " + ", ".join(powers)] if powers else []
        phrases.append("; ".join(parts + ([f"not testable on {', '.join(weak)}: no eps turns half"] if weak else [])))
        untested.append(weak)
    worst = [power_where_it_works(result.corrected[LOGITS]) for result in results]
    apart = bool(worst) and all(value is not None and value >= 0.9 for value in worst)
    cause = (
        "in the logits, by the better of density and coverage, at 5 % false alarms; at smaller eps power is low on "
        "MNIST, and +-eps noise of a larger size is flagged as well"
    )
    if untested[0]:
        cause = (
            f"corrected only: as published FGSM turns too few images of {', '.join(untested[0])} to test it; {cause}"
        )
    absent = [
        title for title in ("MNIST", "PathMNIST", "OrganMNIST") if title not in [r.image_set.title for r in results]
    ]
    if absent:
        cause += f"; {', '.join(absent)} not run"
    return {
        "paper": "vs22",
        "item": "claim",
        "row": "embeddings-tell-apart",
        "column": "",
        "as_published": phrases[0],
        "corrected": phrases[1],
        "verdict": "reproduced" if apart else "not reproduced",
        "cause": cause,
    }
