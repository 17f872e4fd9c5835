"""The judged experiments of a notebook again, with other networks and seeds, at paper scale.

    python -m compendium.spread 02_primary_results 09_embedding_space     # or none: all that can

Every run is a (network, seed) pair. Network "0" is the shipped one; "1", "2" … are retrained ones of the same
architecture and recipe (`compendium.networks`), used wherever `results/networks/<network>/` holds the network that an
experiment asks for. Each run's comparisons go to `results/reference/spread/<notebook>.json`, from which
`compendium.claims.table` makes intervals. A run that is stored is not done again, unless `--again` asks for it: what
was cut off goes on where it stopped.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from advlib import models
from advlib.environment import environment
from advlib.paths import write_atomically
from advlib.progress import track
from compendium import paths as places
from compendium.claims import record
from compendium.common import g17
from compendium.runner import defaults

REPLICATES = {
    "02_primary_results": "compendium.nb02_primary_results",
    "03_sample_size": "compendium.nb03_sample_size",
    "04_transferability": "compendium.nb04_transferability",
    "05_real_life_m": "compendium.nb05_real_life_m",
    "08_admixture": "compendium.nb08_admixture",
    "09_embedding_space": "compendium.nb09_embedding_space",
    "10_metric_analysis": "compendium.nb10_metric_analysis",
}
"""Notebook → module with `replicate(run)`: it fills a run's comparisons as the notebook does, and draws nothing."""

RETRAINED = places.RESULTS / "networks"
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
    folder = RETRAINED / network
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
    notebook: str, networks: Sequence[str] = NETWORKS, seeds: Sequence[int] = SEEDS, again: bool = False
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
    """
    paper = record.profile_parameters("paper")
    own = defaults(places.NOTEBOOKS / f"{notebook}.ipynb")
    parameters = {name: paper.get(name, value) for name, value in own.items()}
    target = path(notebook)
    runs = [] if again or not target.is_file() else json.loads(target.read_text(encoding="utf-8"))["runs"]
    done = {(run["network"], run["seed"]) for run in runs}
    pairs = [(network, seed) for network in networks for seed in seeds if (network, seed) not in done]
    for network, seed in track(pairs, f"{notebook}, networks × seeds"):
        first = (network, seed) == (networks[0], seeds[0])
        comparisons = [_short(row, first) for row in one_run(notebook, network, seed, parameters)]
        runs.append({"network": network, "seed": seed, "comparisons": comparisons})
        content = {
            "generated_by": f"python -m compendium.spread {notebook}",
            "notebook": notebook,
            "profile": "paper",
            "runs": sorted(runs, key=lambda run: (run["network"], run["seed"])),
            "environment": environment(),
        }
        write_atomically(target, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    return target


def _short(row: dict[str, Any], whole: bool) -> dict[str, Any]:
    """Keep of a comparison what intervals need; of the first run what a reader is told as well."""
    if whole:
        return {name: value for name, value in row.items() if name != "notebook"}
    kept = {name: row[name] for name in ("paper", "item", "row", "column")}
    if row["item"] == "claim":
        return kept | {"statistics": row["statistics"]}
    return kept | {name: row[name] for name in ("as_published", "corrected") if row[name] is not None}


def main(notebooks: list[str] | None = None, again: bool = False) -> None:
    """Store the runs of the named notebooks, or of all."""
    for notebook in notebooks or REPLICATES:
        if notebook not in REPLICATES:
            raise typer.BadParameter(f"notebooks must be among {', '.join(REPLICATES)}, but has {notebook}")
        print(f"stored: {spread(notebook, again=again)}")


if __name__ == "__main__":
    typer.run(main)
