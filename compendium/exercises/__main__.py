"""`python -m compendium.exercises [NN …]`: the same as `advlib exercises`."""

import typer

from compendium.cli import exercises

typer.run(exercises)
