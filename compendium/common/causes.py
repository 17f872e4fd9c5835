"""The causes of the published numbers as a table: texts from `data/published/causes/`, numbers from a run."""

from collections.abc import Mapping
from typing import Any

import pandas
import yaml

from compendium import paths as places


def causes_frame(notebook: str, numbers: Mapping[str, Any]) -> pandas.DataFrame:
    """Put the causes that a notebook shows into words, each with its effect as measured.

    Parameters
    ----------
    notebook : str
        Its name without ending; the texts are in `data/published/causes/<notebook>.yaml`.
    numbers : dict
        What the texts name in curly brackets.

    Returns
    -------
    pandas.DataFrame
        A row a cause: what was changed to see it, the effect in numbers, what shows it or speaks against it, and how
        sure it is ("certain", "likely" or "open").
    """
    path = places.PUBLISHED / "causes" / f"{notebook}.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    rows = [{name: text.format(**numbers) for name, text in entry.items()} for entry in entries]
    return pandas.DataFrame(rows).set_index(["paper", "cause"])


def short(value: float) -> str:
    """Write a number with three digits and no power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.3g}"
