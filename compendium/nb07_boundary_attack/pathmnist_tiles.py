"""VS22's PathMNIST experiment on the images of a file: FGSM in both modes, and the same images moved without it.

The stored study of the PathMNIST tiles that could be had was made by

    python -m compendium.nb07_boundary_attack.pathmnist_tiles FILE "title" results/reference
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch

from advlib import attacks, datasets, environment, models, paths, training
from advlib.attacks import AdversarialBatch
from advlib.figures import save_figure
from advlib.prdc import ReferenceManifold
from compendium import paths as places
from compendium.common import vs22
from compendium.nb07_boundary_attack import figures, rising_density

STORED = "pathmnist_tiles.json"
"""Under `results/reference/`."""

ATTACKED_SHARE = 0.225
"""Of the labelled images."""

SEED = 0


def stored() -> dict[str, Any]:
    """Read the committed study of the PathMNIST tiles: what `study` gives, and its title.

    Beside it "authors": density of tiles by VS22's own network, untouched and under the boundary attack in each mode
    (`compendium.authors`).
    """
    found, authors = (json.loads((places.REFERENCE / name).read_text("utf-8")) for name in (STORED, "authors.json"))
    parts = [pandas.DataFrame(move).assign(way=way) for way, moves in found["movements"].items() for move in moves]
    before, after = (
        authors["values"][f"vs22 | §5.2 | PathMNIST | {kind} density"] for kind in ("reference", "adversarial")
    )
    densities = {"untouched": before[vs22.CORRECTED.name]["0"]} | {mode: of["0"] for mode, of in after.items()}
    return found | {"movements": pandas.concat(parts), "authors": densities}


def as_lists(movements: pandas.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """Return a study's movements as the file holds them: way → a dict of lists for each; None where no network was."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for (way, name), move in movements.groupby(["way", "name"], sort=False):
        lists = {key: None if move[key].isna().all() else move[key].tolist() for key in move.columns.drop("way")}
        ways.setdefault(way, []).append(lists | {"name": name})
    return ways


def study(path: str | os.PathLike, epochs: int = 25, epsilons: Sequence[float] = vs22.EPSILONS) -> dict[str, Any]:
    """Run FGSM as published and corrected, and its controls, on a file in MedMNIST's format.

    The labelled images are split; a network of VS22's Table 2 is trained on one part and the other part is attacked.
    Reference are that first part and all unlabelled images. What VS22 normalised PathMNIST with is not printed, so the
    published program is run with both the file's own mean and deviation of the channels and with 0.5 and 0.5, each with
    a network of its own; density and coverage are those of normalised images, as in the paper.

    Parameters
    ----------
    path : path
        For `advlib.datasets.load_npz`, which says what it raises.
    epochs : int
        Of the training.
    epsilons : sequence of float

    Returns
    -------
    dict
        counts of images; mean and std of the channels in pixels of [0, 1]; for each normalisation accuracy on the
        attacked images, fed as trained, and under boundary the density of a hundred of them, clean and clipped to
        (0, 1); movements, as `rising_density.scores`, with way (the normalisation, or "corrected"), accuracy and
        largest_class, the share read as the most frequent class.
    """
    data = datasets.load_npz(path)
    train, held = datasets.stratified_holdout(data.train_labels, ATTACKED_SHARE, seed=models.SPLIT_SEED)
    images, labels = data.train_images[held], data.train_labels[held]
    unlabelled = data.train_images[:0] if data.unlabelled_images is None else data.unlabelled_images
    reference = np.concatenate([data.train_images[train], unlabelled])
    own, half = (reference.mean((0, 2, 3)), reference.std((0, 2, 3))), (np.full(images.shape[1], 0.5),) * 2
    accuracy, boundary, movements = {}, {}, []
    for way, (mean, std) in {"own statistics": own, "one half": half}.items():
        network = _network(data, train, mean, std, epochs)
        accuracy[way] = models.accuracy(network, images, labels)
        points, queries = (rising_density.normalised(pixels, mean, std) for pixels in (reference, images))
        manifold, middle = ReferenceManifold(k=vs22.K).fit(vs22.flat(points)), points.mean(0)
        # The network normalises once more: that is the published program.
        twice = vs22.ImageSet("", data.title, "", tuple(mean), tuple(std))
        sweeps = {way: vs22.fgsm_sweep(vs22.AS_PUBLISHED, twice, network, images, labels, epsilons)}
        if way == "own statistics":
            sweeps["corrected"] = (attacks.fgsm(network, images, labels, epsilon) for epsilon in epsilons)
        for mode, sweep in sweeps.items():
            movements.append(_under_fgsm(mode, manifold, middle, mean, std, epsilons, list(sweep)))
        movements.append(rising_density.moved_without_attack(manifold, middle, queries, epsilons).assign(way=way))
        few = vs22.flat(queries[:100])
        clean, clipped = manifold.density(few), manifold.density(rising_density.clipped_alone(few, 1e3))
        boundary[way] = {"images": len(few), "clean_density": clean, "clipped_density": clipped}
    counts = {"labelled": len(data.train_images), "unlabelled": len(unlabelled)}
    counts |= {"reference": len(reference), "queries": len(images)}
    found = {"counts": counts, "accuracy": accuracy, "mean": own[0].tolist(), "std": own[1].tolist()}
    return found | {"movements": pandas.concat(movements), "boundary": boundary}


def _under_fgsm(
    way: str,
    manifold: ReferenceManifold,
    middle: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    epsilons: Sequence[float],
    batches: Sequence[AdversarialBatch],
) -> pandas.DataFrame:
    moved = [rising_density.normalised(batch.images, mean, std) for batch in batches]
    name = "FGSM corrected" if way == "corrected" else "FGSM as published"
    return rising_density.scores(name, manifold, middle, epsilons, moved).assign(
        way=way,
        accuracy=[batch.adversarial_accuracy for batch in batches],
        largest_class=[np.bincount(batch.predictions).max() / len(batch.predictions) for batch in batches],
    )


def _network(
    data: datasets.Dataset, train: np.ndarray, mean: np.ndarray, std: np.ndarray, epochs: int
) -> models.Classifier:
    images, labels = data.train_images[train], data.train_labels[train]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        hidden, head = models.vs22_medmnist(images.shape[1], len(data.class_names))
    network = models.Classifier(models.Normalize(tuple(map(float, mean)), tuple(map(float, std))), hidden, head)
    recipe = training.Recipe(epochs=epochs, max_lr=3e-3, batch_size=64, flip=True)
    training.fit(network, images, labels, recipe, seed=SEED, progress=False)
    return network.eval().requires_grad_(False)


def main(arguments: Sequence[str]) -> None:
    """Study a file, and write `pathmnist_tiles.json` and its figure into a folder, by default `results/runs`."""
    if len(arguments) not in (2, 3):
        raise SystemExit(__doc__)
    file, title, *folder = arguments
    found = {"title": title} | study(file)
    target = Path(*folder or [places.RUNS]) / STORED
    plain = found | {"movements": as_lists(found["movements"]), "environment": environment.environment()}
    paths.write_atomically(target, json.dumps(plain, ensure_ascii=False, indent=1, default=float) + "\n")
    save_figure(figures.tiles(found), target.with_suffix(".png"))
    print(f"{target} and {target.with_suffix('.png').name} written")


if __name__ == "__main__":
    main(sys.argv[1:])
