"""The judged experiments of a notebook again, with other networks and seeds, at paper scale.

    python -m compendium.spread 02a_density_ratio 09_embedding_space     # or none: all that can

Every run is a (network, seed) pair. Network "0" is the shipped one; "1", "2" … are retrained ones of the same
architecture and recipe (`compendium.networks`), used wherever `results/networks/<network>/` holds the network that an
experiment asks for. Each run's comparisons go to `results/reference/spread/<notebook>.json`, from which
`compendium.claims.table` makes intervals. A run that is stored is not done again, unless `--again` asks for it: what
was cut off goes on where it stopped. With `ADVLIB_DEVICE=cuda` networks and manifolds are on a GPU, the boundary attack
among the runs, and `--jobs 12` keeps it busy.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import typer

from advlib import models
from advlib.environment import environment
from advlib.paths import write_atomically
from advlib.progress import track
from compendium import paths as places
from compendium.claims import record
from compendium.claims.published import PARTS
from compendium.common import boundary, g17
from compendium.networks import FOLDER
from compendium.runner import defaults

REPLICATES = {
    "02a_density_ratio": "compendium.nb02a_density_ratio",
    "02b_density_coverage": "compendium.nb02b_density_coverage",
    "03_sample_size": "compendium.nb03_sample_size",
    "04_transferability": "compendium.nb04_transferability",
    "05_real_life_m": "compendium.nb05_real_life_m",
    "07_boundary_attack": "compendium.nb07_boundary_attack",
    "08_admixture": "compendium.nb08_admixture",
    "09_embedding_space": "compendium.nb09_embedding_space",
    "10_metric_analysis": "compendium.nb10_metric_analysis",
}
"""Notebook → module with `replicate(run)`: it fills a run's comparisons as the notebook does, and draws nothing."""

NETWORKS = ("0", "1", "2", "3", "4")
SEEDS = (0, 1, 2)


def path(notebook: str) -> Path:
    """Where a notebook's runs are stored."""
    return places.REFERENCE / "spread" / f"{notebook}.json"


def one_run(notebook: str, network: str, seed: int, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Do the judged experiments once; return the comparisons.

    Raises
    ------
    FileNotFoundError
        If the network's folder is not there.
    """
    replicate: Callable[[record.Run], None] = import_module(REPLICATES[notebook]).replicate
    run = record.Run(notebook, {**parameters, "seed": seed}, network)
    folder = FOLDER / network
    if network != "0" and not folder.is_dir():
        raise FileNotFoundError(f"no retrained networks in {folder}; make them: python -m compendium.networks")
    with nullcontext() if network == "0" else models.weights_from(folder):
        replicate(run)
    return [_own(row, folder) if network != "0" else row for row in run.comparisons.values()]


def _own(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Leave out of a row of Table 1 or 2 what came from a network that was not retrained: it is no other network's."""
    image_set, _ = g17.TABLE1.get(row["row"], (None, None))
    if row["paper"] != "g17" or image_set is None:
        return row
    shared = [
        column
        for mode, column in ((g17.AS_PUBLISHED, "as_published"), (g17.CORRECTED, "corrected"))
        if not models.files(mode.networks[image_set], folder)[0].is_file()
    ]
    return {**row, **dict.fromkeys(shared)}


def spread(
    notebook: str,
    networks: Sequence[str] = NETWORKS,
    seeds: Sequence[int] = SEEDS,
    again: bool = False,
    jobs: int = 1,
) -> Path:
    """Do all runs of a notebook that are not stored, and store each as soon as it is done.

    Parameters
    ----------
    notebook : str
        A key of `REPLICATES`.
    networks, seeds : sequences
        Every pair is a run.
    again : bool
        Whether to do stored runs again.
    jobs : int
        Runs at a time, each in a process of its own; 1 does them here, where one run keeps data for the next.
    """
    paper = record.profile_parameters("paper")
    own = defaults(places.NOTEBOOKS / f"{notebook}.ipynb")
    parameters = {name: paper.get(name, value) for name, value in own.items()}
    target = path(notebook)
    runs = [] if again or not target.is_file() else record.read(target)["runs"]
    done = {(run["network"], run["seed"]) for run in runs}
    # With several at a time all networks come first, which say more than seeds; one after another, a network's seeds.
    order = ((n, s) for s in seeds for n in networks) if jobs > 1 else ((n, s) for n in networks for s in seeds)
    pairs = [pair for pair in order if pair not in done]
    finished = _runs(notebook, pairs, parameters, jobs)
    for (network, seed), comparisons in track(finished, f"{notebook}, networks × seeds", len(pairs)):
        first = (network, seed) == (networks[0], seeds[0])
        runs.append({"network": network, "seed": seed, "comparisons": [_short(row, first) for row in comparisons]})
        content = {
            "generated_by": f"python -m compendium.spread {notebook}",
            "notebook": notebook,
            "profile": "paper",
            "runs": sorted(runs, key=lambda run: (run["network"], run["seed"])),
            "environment": environment(),
        }
        write_atomically(target, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    return target


def _runs(
    notebook: str, pairs: Sequence[tuple[str, int]], parameters: dict[str, Any], jobs: int
) -> Iterator[tuple[tuple[str, int], list[dict[str, Any]]]]:
    """Give each pair with its comparisons as soon as they are there; a failed run is reported when all others are done.

    Processes are spawned, not forked: CUDA does not survive a fork.
    """
    if jobs == 1:
        for pair in pairs:
            yield pair, one_run(notebook, *pair, parameters)
        return
    failed = []
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        places_of = {pool.submit(one_run, notebook, *pair, parameters): pair for pair in pairs}
        for done in as_completed(places_of):
            if done.exception():
                failed.append((places_of[done], done.exception()))
            else:
                yield places_of[done], done.result()
    if failed:
        (network, seed), error = failed[0]
        raise RuntimeError(f"{len(failed)} runs failed; the first, network {network}, seed {seed}: {error}") from error


def _short(row: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Keep of a comparison what intervals need; of the first run what a reader is told as well."""
    if whole:
        return {name: value for name, value in row.items() if name != "notebook"}
    kept = {name: row[name] for name in PARTS}
    if row["item"] == "claim":
        return kept | {"statistics": row["statistics"]}
    return kept | {name: row[name] for name in ("as_published", "corrected") if row[name] is not None}


def main(notebooks: list[str] | None = None, again: bool = False, jobs: int = 1) -> None:
    """Store the runs of the named notebooks, or of all that take minutes and not hours on this machine."""
    long = set() if boundary.on_gpu() else {"07_boundary_attack"}
    for notebook in notebooks or sorted(REPLICATES.keys() - long):
        if notebook not in REPLICATES:
            raise typer.BadParameter(f"notebooks must be among {', '.join(REPLICATES)}, but has {notebook}")
        print(f"stored: {spread(notebook, again=again, jobs=jobs)}")


if __name__ == "__main__":
    typer.run(main)
