"""VS22's experiments again with the networks that its authors trained, at the paper's sizes, in both modes.

The stored record `results/reference/authors.json` was made by

    python -m compendium.authors [PART …]

with parts such as "fgsm MNIST", "boundary OrganMNIST" or "fgsm PathMNIST"; without any, all are run. A part renews its
own numbers and keeps the others. The networks' weights are fetched or taken from the folder that `ADVLIB_N2GEM` names
(`advlib.n2gem`). PathMNIST runs on the tiles of a file in MedMNIST's format with `images`, `labels` and
`unlabelled_images`, in the folder that `ADVLIB_PATHMNIST_TILES` names, and is left out where there is none.

*As published* follows the order of operations of the authors' code: the network ends in log-softmax, of which foolbox
takes the cross-entropy, softmax included, once more. That changes no prediction, but FGSM's direction where the
softmax is saturated in float32. Points are normalised images, as there; only where the deviations of the colours differ
that is another distance than that of pixels.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from advlib import datasets, environment, models, paths
from advlib.attacks import AdversarialBatch
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from compendium import paths as places
from compendium.claims import published
from compendium.common import boundary, vs22
from compendium.common.splits import evenly
from compendium.common.vs22 import AS_PUBLISHED, CORRECTED, EPSILONS, MODES, Curve, Split
from compendium.nb02b_density_coverage.judge_fgsm import read_off
from compendium.nb08_admixture.mixtures import SHARES, TABLES, mixture
from compendium.nb09_embedding_space.judge import fig12_value
from compendium.nb09_embedding_space.measure import LOGITS, embeddings
from compendium.nb10_metric_analysis import geometry

STORED = places.REFERENCE / "authors.json"

SEEDS = range(5)
FGSM_ITEMS = ("§5", "§5.1", "Figure 12", "stored results")
"""What `data/published/vs22.csv` has of FGSM in numbers, appendix C apart."""

TILES = "ADVLIB_PATHMNIST_TILES"
NETWORKS = {"MNIST": "mnist-n2gem", "OrganMNIST": "organmnist-n2gem", "PathMNIST": "pathmnist-n2gem"}
STEPS = (0, 10_000, 25_000)
"""Of the boundary attack; the last state counts."""

BOUNDARY_IMAGES = {
    "MNIST": {AS_PUBLISHED.name: 100, CORRECTED.name: 50},
    "OrganMNIST": {AS_PUBLISHED.name: 50, CORRECTED.name: 20},
    "PathMNIST": {AS_PUBLISHED.name: 50, CORRECTED.name: 20},
}
"""Attacked images of the hold-outs, at even steps: few, each takes 25,000 steps; on a GPU all but OrganMNIST's."""

PARTS = (*(("fgsm", title) for title in NETWORKS), *(("boundary", title) for title in BOUNDARY_IMAGES))


class Values:
    """Numbers by the key of a printed one, mode and seed.

    Attributes
    ----------
    found : dict
        "vs22 | item | row | column" → mode → seed → number, None where the rerun has none.
    """

    def __init__(self) -> None:
        self.found: dict[str, dict[str, dict[str, float | None]]] = {}

    def add(self, key: Sequence[str], mode: vs22.Mode, seed: int, value: float | None) -> None:
        """Keep a number; `key` must be one of `data/published/vs22.csv`."""
        published.lookup(*key)
        by_mode = self.found.setdefault(" | ".join(key), {})
        by_mode.setdefault(mode.name, {})[str(seed)] = None if value is None else float(f"{value:.6g}")


def points(split: Split, images: np.ndarray) -> np.ndarray:
    """Return pixels (n, c, h, w) as the points that the authors' metrics take: normalised images, (n, c·h·w)."""
    return vs22.flat(AS_PUBLISHED.to_attack(split.image_set, images))


def tiles_file() -> Path | None:
    """Return the file of PathMNIST's tiles, or None where no folder is named.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold exactly one .npz file.
    """
    folder = os.environ.get(TILES)
    if not folder:
        return None
    files = sorted(Path(folder).expanduser().glob("*.npz"))
    if len(files) != 1:
        raise FileNotFoundError(f"{TILES} must name a folder with one .npz file, but {folder} has {len(files)}")
    return files[0]


def tiles_split(path: Path, rng: np.random.Generator) -> Split:
    """Divide PathMNIST's tiles in the paper's ratio of references to queries; queries are labelled ones, drawn.

    Parameters
    ----------
    path : Path
        For `advlib.datasets.load_npz`, which says what it raises; with unlabelled images.
    rng : numpy.random.Generator
    """
    data = datasets.load_npz(path)
    chosen = vs22.with_network(vs22.image_set("pathmnist"), NETWORKS["PathMNIST"])
    labelled = len(data.train_images)
    total = labelled + len(data.unlabelled_images)
    queries = round(total * chosen.queries / (chosen.queries + chosen.references))
    if queries > labelled:
        raise ValueError(f"{path} must hold at least {queries} labelled images for {total} in all, but has {labelled}")
    order = rng.permutation(labelled)
    held, rest = order[:queries], order[queries:]
    reference = np.concatenate([data.train_images[rest], data.unlabelled_images])
    index = np.concatenate([rest, np.arange(labelled, total)])
    unknown = np.concatenate([data.train_labels[rest], np.full(total - labelled, -1)])
    return Split(chosen, reference, unknown, index, data.train_images[held], data.train_labels[held], held)


def references(title: str) -> Iterator[tuple[int, Split, ReferenceManifold]]:
    """Draw the references of the FGSM experiments, and queries where they are drawn too: (seed, split, manifold).

    Five times, once where the whole model set is the reference.
    """
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        if title == "PathMNIST":
            split = tiles_split(tiles_file(), rng)
        else:
            name = models.spec(NETWORKS[title]).dataset
            split = vs22.reference_and_holdout(name, rng=rng, network=NETWORKS[title])
        yield seed, split, ReferenceManifold(vs22.K).fit(points(split, split.reference))
        if title != "PathMNIST" and not split.image_set.references:
            return


# ---------------------------------------------------------------- FGSM


def attacked(split: Split, model: nn.Module) -> dict[str, list[AdversarialBatch]]:
    """Attack all queries by FGSM at the paper's 20 ε, mode's name → batches."""
    by_mode = {}
    for mode in MODES:
        network = nn.Sequential(model, nn.LogSoftmax(1)) if mode.normalised_twice else model
        sweep = vs22.fgsm_sweep(mode, split.image_set, network, split.images, split.labels)
        by_mode[mode.name] = list(track(sweep, f"{split.image_set.title}, {mode.name}", len(EPSILONS)))
    return by_mode


def fgsm(title: str) -> tuple[Values, dict[str, Any]]:
    """Rerun §5's accuracy, §5.1, Figure 12, appendix C and the stored FGSM results on one image set.

    Returns
    -------
    values : Values
    about : dict
        Sizes ("references", "queries"), "curves" (mode → seed → statistic → 20 values) and "class shares" (mode → ε →
        share of each predicted class).
    """
    values, about, batches, before = Values(), {"curves": {mode.name: {} for mode in MODES}}, None, None
    printed = [e for item in FGSM_ITEMS for e in published.load("vs22", item) if e.row == title]
    for seed, split, manifold in references(title):
        model = vs22.network(split.image_set)
        if before is None or not np.array_equal(before, split.index):
            batches, before = attacked(split, model), split.index
            logits = {mode: [_logits(model, batch.images) for batch in sweep] for mode, sweep in batches.items()}
            clean_logits = _logits(model, split.images)
        if "class shares" not in about:
            about["class shares"] = labels(values, split, batches, logits)
            about |= {"references": len(split.reference), "queries": len(split.images)}
        images = {mode: [points(split, batch.images) for batch in sweep] for mode, sweep in batches.items()}
        curves = curves_of(title, seed, manifold, points(split, split.images), images, batches)
        inner = ReferenceManifold(vs22.K).fit(_logits(model, split.reference))
        inside = curves_of(title, seed, inner, clean_logits, logits, batches)
        accuracy = float(np.mean(clean_logits.argmax(axis=1) == split.labels))
        for mode in MODES:
            curve = curves[mode.name]
            about["curves"][mode.name][str(seed)] = {
                what: [float(f"{x:.5g}") for x in getattr(curve, what)] for what in ("density", "coverage", "accuracy")
            }
            for entry in printed:
                values.add(entry.key, mode, seed, _number(entry, mode, curve, inside[mode.name], accuracy))
    return values, about


def _number(entry: published.Published, mode: vs22.Mode, curve: Curve, inside: Curve, accuracy: float) -> float | None:
    """Read a printed number off the rerun; None: never."""
    if entry.item == "§5":
        return 100 * float(curve.accuracy[0] if mode.normalised_twice else accuracy)
    return fig12_value({LOGITS: inside}, entry.column) if entry.item == "Figure 12" else read_off(entry.column, curve)


def _logits(model: models.Classifier, images: np.ndarray) -> np.ndarray:
    return embeddings(model, np.asarray(images))[LOGITS]


def curves_of(
    title: str,
    seed: int,
    manifold: ReferenceManifold,
    clean: np.ndarray,
    moved: Mapping[str, Sequence[np.ndarray]],
    batches: Mapping[str, Sequence[AdversarialBatch]],
) -> dict[str, Curve]:
    """Score attacked images, as points of one space, against one draw of references.

    Parameters
    ----------
    title : str
        For the progress line.
    seed : int
        For sub-batches.
    manifold : ReferenceManifold
        Of the references in that space.
    clean : (m, d) array
        The untouched queries.
    moved, batches : mapping
        Mode's name → attacked queries at each ε, (m, d) in that space and as the attack gave them.
    """
    size = min(100, len(clean))
    rows = vs22.sub_batches(len(clean), size, np.random.default_rng(seed), least=2)
    score = vs22.score(manifold, clean, rows)
    found = {}
    for mode, sweep in batches.items():
        queries = (replace(batch, images=here) for batch, here in zip(sweep, moved[mode], strict=True))
        words = f"{title}, {mode}, seed {seed}"
        found[mode] = vs22.density_coverage_curve(
            manifold, clean, queries, EPSILONS, rows, title=words, clean_score=score
        )
    return found


def labels(
    values: Values,
    split: Split,
    batches: Mapping[str, Sequence[AdversarialBatch]],
    logits: Mapping[str, Sequence[np.ndarray]],
) -> dict[str, list[list[float]]]:
    """Rerun appendix C: what the network says of the attacked images, as notebook 10 asks it, and class centres.

    Parameters
    ----------
    values : Values
        Gets the numbers.
    split, batches
        The queries, and mode's name → these attacked at each ε.
    logits : mapping
        Mode's name → the network's logits of these, normalised once.

    Returns
    -------
    dict
        Mode's name → for each ε the share of each class among the predictions.
    """
    title, shares = split.image_set.title, {}
    classes = models.spec(split.image_set.network).classes
    columns = {entry.column for entry in published.load("vs22", "Appendix C") if entry.row == title}
    for mode in MODES:
        sweep = batches[mode.name]
        said = [found.argmax(axis=1) for found in logits[mode.name]]
        counts = geometry.label_counts(np.stack(said), classes)
        shares[mode.name] = (counts / len(split.labels)).round(4).tolist()
        label, start, _ = geometry.dominance(counts, np.array(EPSILONS))
        found = {"dominant class": label, "dominant class from eps": start}
        for column in columns & set(found):
            values.add(("vs22", "Appendix C", title, column), mode, 0, found[column])
        if "centre shift from eps" in columns:
            moved = np.stack([vs22.flat(batch.images) for batch in sweep])
            for seed in SEEDS:
                shift, chance = geometry.centre_shift(
                    vs22.flat(split.images), moved, split.labels, classes, np.random.default_rng(seed)
                )
                onset = geometry.start_of_last_run(shift > chance, np.array(EPSILONS))
                values.add(("vs22", "Appendix C", title, "centre shift from eps"), mode, seed, onset)
    return shares


# ---------------------------------------------------------------- boundary attack


def boundary_attack(title: str) -> tuple[Values, dict[str, Any]]:
    """Rerun §5.2 and Tables 4 and 5 on one image set.

    Densities come from the whole model set as the reference. Coverage depends on the ratio of references to queries:
    for the attacked images, of which there are fewer than in the paper, that many fewer references are drawn.

    Returns
    -------
    values : Values
    about : dict
        "references", "queries" of the untouched hold-out, "steps", and for each mode images "attacked", "adversarial",
        "without a start", "scored" and "references for coverage".
    """
    name = models.spec(NETWORKS[title]).dataset
    if title == "PathMNIST":
        whole = tiles_split(tiles_file(), np.random.default_rng(0))
    else:
        whole = vs22.reference_and_holdout(name, references=0, network=NETWORKS[title])
    n, reference, clean = len(whole.images), points(whole, whole.reference), points(whole, whole.images)
    manifold, per_query = ReferenceManifold(vs22.K).fit(reference), len(reference) / n
    untouched = dict(zip(TABLES, manifold.density_coverage(clean), strict=True))
    values, about = Values(), {"references": len(reference), "queries": n, "steps": STEPS[-1]}
    gpu = boundary.on_gpu()
    about["GPU"] = torch.cuda.get_device_name(0) if gpu else None
    for mode in MODES:
        count = boundary.GPU_IMAGES.get(name, 0) if gpu else BOUNDARY_IMAGES[title][mode.name]
        tried = evenly(n, min(count or n, n))
        split = replace(whole, images=whole.images[tried], labels=whole.labels[tried], index=whole.index[tried])
        state = boundary.attack(mode, split, STEPS)[-1]
        rows = boundary.scored_rows(mode, state)
        about[mode.name] = {
            "attacked": len(split.images), "adversarial": int(state.success.sum()), "scored": len(rows),
            "without a start": int((state.clean_correct & (state.l2 == 0)).sum()),
            "references for coverage": round(per_query * len(rows)),
        }  # fmt: skip
        before, after = clean[tried[rows]], points(whole, state.images[rows])
        balls = {"reference": manifold.ball_counts(clean), "adversarial": manifold.ball_counts(after)}
        for seed in SEEDS:
            rng = np.random.default_rng(seed)
            few = boundary.manifold_in_proportion(reference, len(rows), per_query, rng)
            found = {}
            for statistic, fitted in zip(TABLES, (manifold, few), strict=True):
                drawn = np.random.default_rng([seed, 1])  # the same images for both
                mixed = mixture(fitted, before, [after], [STEPS[-1]], drawn, twins=not mode.normalised_twice)
                found[statistic] = [untouched[statistic], *getattr(mixed, statistic)[0, 1:].tolist()]
            for kind, held in balls.items():
                ends = boundary.quartile_range(held / vs22.K, boundary.PAPER_BATCHES[title], rng)
                found[kind] = dict(zip(("smallest", "largest"), ends, strict=True))
            _keep(values, title, mode, seed, found)
    return values, about


def _keep(values: Values, title: str, mode: vs22.Mode, seed: int, found: Mapping[str, Any]) -> None:
    """Keep "density" and "coverage" at all `SHARES`, and the ranges of §5.2, "reference" and "adversarial"."""
    for entry in published.load("vs22", "§5.2"):
        kind, what, *edge = entry.column.split()
        if entry.row == title:
            number = found[kind][edge[0]] if edge else found[what][-1 if kind == "adversarial" else 0]
            values.add(entry.key, mode, seed, number)
    for statistic, item in TABLES.items():
        for share, value in zip(SHARES[:-1], found[statistic], strict=False):
            values.add(("vs22", item, title, f"share={share:g}"), mode, seed, value)


# ---------------------------------------------------------------- the record


SETTINGS = {
    "networks": NETWORKS,
    "seeds": "of the drawn references; where the whole model set is the reference there is one run, seed 0",
    "PathMNIST": "tiles of the official training part only, in the paper's ratio of references to queries; the network "
    "may have been trained on them, and the density of moved images depends on the number of references",
    "boundary attack, density": "against the whole model set; ranges are the smallest lower and largest upper quartile "
    "over the authors' batch sizes, of batches drawn with replacement",
    "boundary attack, coverage": "of attacked images against so many references that images and references are in the "
    "paper's ratio; fewer references have larger balls, which untouched images do not feel and moved ones may",
}


def run(parts: Sequence[tuple[str, str]], path: Path = STORED) -> Path:
    """Run some of `PARTS` and renew their numbers in the stored record, which each finished part leaves complete.

    Raises
    ------
    ValueError
        For an unknown part.
    FileNotFoundError
        If the authors' weights are missing, or the folder with PathMNIST's tiles has none.
    """
    for part in parts:
        if part not in PARTS:
            known = ", ".join(" ".join(known) for known in PARTS)
            raise ValueError(f"a part must be one of {known}, but is {' '.join(part)}")
    for kind, title in parts:
        if title == "PathMNIST" and tiles_file() is None:
            print(f"PathMNIST is left out: no folder with its tiles is named in {TILES}")
            continue
        values, about = (fgsm if kind == "fgsm" else boundary_attack)(title)
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        sizes = record.get("settings", {}).get("sizes", {})
        arrays = {name: record.get(name, {}) for name in ("curves", "class shares")}
        for name in arrays.keys() & about.keys():
            arrays[name][title] = about.pop(name)
        record = {
            "generated_by": "python -m compendium.authors",
            "settings": SETTINGS | {"sizes": sizes | {f"{kind} {title}": about}},
            "values": record.get("values", {}) | values.found,
            **arrays,
            "environment": environment.environment(),
        }
        paths.write_atomically(path, json.dumps(record, ensure_ascii=False, indent=1) + "\n")
        print(f"{kind} {title}: {path} written", flush=True)
    return path


if __name__ == "__main__":
    run([tuple(part.split()) for part in sys.argv[1:]] or PARTS)
