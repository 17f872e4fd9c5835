"""The papers' networks again with other seeds: how far a result depends on the one network that comes with the package.

    python -m compendium.networks                # trains what is missing, hours on a processor
    python -m compendium.networks mnist-vs22     # of one network
    python -m compendium.networks --record       # writes data/models/retrained.json from the cards

Weights and cards lie in `results/networks/SEED`, which git ignores. What the committed record knows of them is recipe,
seed, accuracy, digest, hardware and duration. To run anything with the networks of a seed:

    with models.weights_from(networks.folder(1)):
        ...
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from advlib import models, paths, training
from compendium import paths as places

FOLDER = places.RESULTS / "networks"
"""A folder a seed is in it."""

RECORD = paths.WEIGHTS / "retrained.json"
"""What is known of retrained networks; committed."""

SEEDS = {
    "mnist-vs22": (1, 2, 3, 4),
    "mnist-cleverhans": (1, 2, 3, 4),
    "cifar10-cleverhans": (1, 2, 3, 4),
    "organamnist-vs22": (1, 2, 3, 4),
    "organamnist-vs22-official": (1, 2, 3),
    "cifar10-grey-cleverhans": (1, 2, 3, 4),
    "mnist-vs22-official": (1, 2, 3, 4),
    "cifar10-resnet": (1, 2),
}
"""Seeds that are retrained; the network that comes with the package is seed 0."""

_KEPT = ("name", "seed", "recipe", "accuracy", "accuracy_of", "holdout", "sha256", "duration_s", "hardware", "versions")


def recipe(name: str) -> training.Recipe:
    """Return the network's own recipe with matrix products in bfloat16; the residual network trains half as long.

    Raises
    ------
    ValueError
        For a name that is not in `SEEDS`.
    """
    if name not in SEEDS:
        raise ValueError(f"name must be one of {', '.join(SEEDS)}, but is {name!r}")
    own = replace(training.RECIPES[name], bfloat16=True)
    return replace(own, epochs=5) if name == "cifar10-resnet" else own


def folder(seed: int) -> Path:
    """Return the folder of a seed's networks, whether it is there or not."""
    return FOLDER / str(seed)


def seeds(name: str) -> tuple[int, ...]:
    """Return the seeds whose weights and card of the named network are on this disk, in order."""
    recipe(name)
    there = sorted(int(path.name) for path in FOLDER.glob("*") if path.name.isdecimal())
    return tuple(seed for seed in there if all(file.is_file() for file in models.files(name, folder(seed))))


def retrain(name: str, seed: int, *, progress: bool = True) -> dict[str, Any]:
    """Train a network with another seed, unless that was done, and return its card.

    Two processes may ask for the same network: the second waits and finds it. Nothing half-written stays behind.

    Parameters
    ----------
    name : str
        A key of `SEEDS`.
    seed : int
        From 1 on; 0 is the package's own network.
    progress : bool
        Whether to draw a bar on the terminal.

    Raises
    ------
    ValueError
        For another name or seed, and for weights that do not match their card.
    advlib.datasets.DataUnavailable
        If the data set is neither on disk nor to be had.
    """
    wanted = recipe(name)
    if seed < 1:
        raise ValueError(f"seed must be at least 1, but is {seed}; seed 0 is the network that comes with the package")
    place = folder(seed)
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / f".{name}.lock"):
        if all(file.is_file() for file in models.files(name, place)):
            models.load_trained(name, folder=place)  # raises for damaged weights
            return models.card(name, place)
        return training.train(name, recipe=wanted, seed=seed, folder=place, progress=progress)


def write_record() -> list[dict[str, Any]]:
    """Write what the cards on this disk say to `RECORD`, and return all its entries, ordered by name and seed.

    Entries of networks that are not on this disk stay as they were.
    """
    known = {(entry["name"], entry["seed"]): entry for entry in record()} if RECORD.is_file() else {}
    for name in SEEDS:
        for seed in seeds(name):
            card = models.card(name, folder(seed))
            known[name, seed] = {key: card[key] for key in _KEPT}
    entries = [known[key] for key in sorted(known)]
    paths.write_atomically(RECORD, json.dumps({"networks": entries}, indent=1) + "\n")
    return entries


def record() -> list[dict[str, Any]]:
    """Read `RECORD`: a dict a network with name, seed, recipe, accuracy, holdout, sha256, duration_s, hardware.

    Raises
    ------
    FileNotFoundError
        If it was never written.
    """
    return json.loads(RECORD.read_text(encoding="utf-8"))["networks"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, or write the record."""
    parser = argparse.ArgumentParser(prog="python -m compendium.networks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SEEDS)}; all if none")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of all")
    parser.add_argument("--record", action="store_true", help="write data/models/retrained.json and train nothing")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.record:
            print(f"{paths.shown(RECORD)}: {len(write_record())} networks")
            return
        for name in chosen.names or SEEDS:
            recipe(name)
        for name in chosen.names or SEEDS:
            for seed in chosen.seeds or SEEDS[name]:
                print(f"{name}, seed {seed}: accuracy {retrain(name, seed)['accuracy']:.4f}", flush=True)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
