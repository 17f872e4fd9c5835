"""What a notebook run leaves behind: parameters, metrics, verdicts, comparisons with the papers, machine, duration.

A run is one JSON file. The committed reference (`results/reference/`) is a copy of such files, the tables of README
and report are made from them, and `tests/expected/` holds the bands that a fresh run must meet.
"""

import datetime as dt
import hashlib
import json
import math
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from advlib.environment import environment
from advlib.figures import save_figure
from advlib.paths import write_atomically
from compendium import paths as places
from compendium.claims.parameters import validate
from compendium.claims.published import CLAIMS, NOT_RUN, Key, key_of, read_claims


def _plain(value: Any) -> Any:
    """Return a number, array or container as what JSON can hold; refuse what it cannot (NaN, infinity, objects)."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a recorded number must be finite, but is {value}")
        return float(f"{value:.10g}")
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise ValueError(f"cannot record a {type(value).__name__}")


class Run:
    """One notebook run. Made by `start`, filled by the notebook, written by `finish`.

    Parameters
    ----------
    notebook : str
    parameters : dict
    network : str
        "0": the shipped networks; another name: retrained ones (`compendium.spread`).
    """

    def __init__(self, notebook: str, parameters: dict[str, Any], network: str = "0"):
        self.notebook = notebook
        self.parameters = parameters
        self.network = network
        self.metrics: dict[str, Any] = {}
        self.verdicts: dict[str, bool] = {}
        self.comparisons: dict[tuple[str, ...], dict[str, Any]] = {}
        self._started = dt.datetime.now(dt.UTC)
        self._clock = time.monotonic()

    @property
    def folder(self) -> Path:
        """Where this run's files go: `results/runs/<profile>/<notebook>/`."""
        return places.RUNS / self.parameters["profile"] / self.notebook

    def rng(self, purpose: str) -> np.random.Generator:
        """Give the generator of one section, derived from the run's seed and the section's name.

        A section keeps its numbers when another one is edited, skipped or rerun. Runs with other networks get other
        draws under the same seed: the rule takes all runs for independent.
        """
        purpose = purpose if self.network == "0" else f"{purpose}, network {self.network}"
        words = np.frombuffer(hashlib.sha256(purpose.encode()).digest(), dtype=np.uint32)
        return np.random.default_rng([self.parameters["seed"], *words.tolist()])

    def metric(self, name: str, value: Any) -> None:
        """Keep a number (or a list, or a dict of numbers) under a dotted name; running a cell again replaces it."""
        self.metrics[name] = _plain(value)

    def verdict(self, statement: str, holds: bool) -> None:
        """Keep and print one statement that this run shows to be true or false."""
        self.verdicts[statement] = bool(holds)
        print(f"{statement}: {bool(holds)}")

    def compare(self, comparison: Mapping[str, Any]) -> None:
        """Keep what this run found about one printed number or sentence; running a cell again replaces it.

        Keys: paper, item, row, column (as in `data/published/`), as_published, corrected, cause, and for a sentence
        statistics; see `compendium.claims.verdicts`.
        """
        self.comparisons[key_of(comparison)] = _plain({**comparison, "notebook": self.notebook})

    def shown(self, comparison: Mapping[str, Any]) -> str:
        """Return the verdict on a compared row, by all stored runs at paper scale (`results/claims.csv`)."""
        return _stored_verdicts().get(key_of(comparison), NOT_RUN)

    def figure(self, name: str, figure: Any) -> Any:
        """Keep a figure beside the record as `<name>.png`, and return it so that the cell shows it."""
        save_figure(figure, self.folder / f"{name}.png")
        return figure

    def finish(self) -> None:
        """Write `metrics.json` into the run's folder and say so."""
        duration = time.monotonic() - self._clock
        content = {
            "generated_by": f"notebooks/{self.notebook}.ipynb",
            "notebook": self.notebook,
            "profile": self.parameters["profile"],
            "parameters": self.parameters,
            "metrics": self.metrics,
            "verdicts": self.verdicts,
            "comparisons": list(self.comparisons.values()),
            "started": self._started.isoformat(timespec="seconds"),
            "duration_s": round(duration, 1),
            "environment": environment(),
        }
        path = self.folder / "metrics.json"
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"{self.notebook}, profile {self.parameters['profile']}: {duration:.0f} s, metrics.json written")
        print(stored_paper_run(self.notebook))


def start(notebook: str, **parameters: Any) -> Run:
    """Begin a notebook run: check its parameters, say which profile it is, and hand out the record.

    Parameters
    ----------
    notebook : str
        The notebook's name without ending, for instance "02a_density_ratio".
    **parameters
        Everything in the notebook's `parameters` cell, by name; `profile` and `seed` are required.

    Raises
    ------
    ValueError
        For a missing, unknown or impossible parameter.
    """
    for required in ("profile", "seed"):
        if required not in parameters:
            raise ValueError(f"notebook parameter {required} is missing")
    validate(parameters)
    settings = ", ".join(f"{name}={value}" for name, value in parameters.items() if name != "profile")
    print(f"{notebook} · profile {parameters['profile']} · {settings}")
    return Run(notebook, dict(parameters))


def reference_path(notebook: str, profile: str) -> Path:
    """Where the committed record of a notebook and profile lies."""
    return places.REFERENCE / f"{notebook}.{profile}.json"


@cache
def _stored_verdicts() -> dict[Key, str]:
    """Read the verdicts of `results/claims.csv`."""
    return {claim.key: claim.verdict for claim in read_claims()} if CLAIMS.is_file() else {}


_PARTS = ("notebook", "profile", "parameters", "metrics", "verdicts", "comparisons", "duration_s", "environment")


def read(path: Path, *, whole: bool = False) -> dict[str, Any]:
    """Read the record of a run, or with `whole` refuse one without all its parts.

    Raises
    ------
    ValueError
        Naming the file, where it is missing, no JSON object, or a value in it is no number.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise ValueError(f"the record {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the record {path} is damaged, restore it or make it anew by `advlib run`: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"the record {path} must be a JSON object, but is a {type(content).__name__}")
    missing = [part for part in _PARTS if part not in content] if whole else []
    if missing:
        raise ValueError(f"the record {path} is damaged, restore it or make it anew: it has no {', '.join(missing)}")
    return content


def _no_number(word: str) -> float:
    raise ValueError(f"it holds {word}")


def references(profile: str | None = None) -> list[dict[str, Any]]:
    """Read the committed records, of one profile or of all, ordered by notebook."""
    pattern = f"*.{profile or '*'}.json"
    return [read(path, whole=True) for path in sorted(places.REFERENCE.glob(pattern))]


def profile_parameters(profile: str) -> dict[str, Any]:
    """Read `params/<profile>.yaml`: flat, notebook parameter → value."""
    path = places.PROFILES / f"{profile}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in places.PROFILES.glob("*.yaml")))
        raise ValueError(f"no profile {profile!r}; there are {there}")
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def hardware(stored: Mapping[str, Any]) -> str:
    """Name what a committed record was run on, in words."""
    environment = stored["environment"]
    threads = f"{environment['threads']} thread{'s' * (environment['threads'] != 1)}"
    gpu = f" and one {environment['gpu']}" if environment["gpu"] else ""
    return f"{threads} of {environment['cpu'].replace('(R)', '')}{gpu}"


def smaller_settings(stored: Mapping[str, Any]) -> str:
    """Name the settings of a committed record that are not its profile's, with the profile's in brackets."""
    whole = profile_parameters(stored["profile"])
    return ", ".join(
        f"{name} = {value} ({whole[name]})"
        for name, value in stored["parameters"].items()
        if name in whole and value != whole[name]
    )


def stored_paper_run(notebook: str) -> str:
    """Say what the committed run of a notebook at paper scale was run with, how long it took, and on what."""
    path = reference_path(notebook, "paper")
    if not path.is_file():
        return "At paper scale nothing is stored yet."
    stored = read(path)
    settings = smaller_settings(stored)
    return (
        f"At paper scale, stored in results/reference/{path.name}: {stored['duration_s'] / 60:.0f} min on "
        f"{hardware(stored)}, " + (f"with params/paper.yaml but {settings}." if settings else "with params/paper.yaml.")
    )
