"""`advlib run`, `advlib report` and `advlib exercises`: what the compendium adds to the library's command line."""

from importlib.util import find_spec
from typing import Annotated, Any

import typer
from rich.markup import escape

from advlib.cli import console, errors, fail
from compendium import paths as places


def _need_the_repository() -> None:
    if not places.NOTEBOOKS.is_dir():
        raise fail(
            f"this command needs the repository, but there is no {places.NOTEBOOKS}: run it in a clone, "
            "or name one with ADVLIB_HOME"
        )
    if find_spec("papermill") is None:
        raise fail("this command needs papermill and its kin: pip install 'advlib[compendium]'")


def _parse(setting: str) -> tuple[str, Any]:
    name, separator, text = setting.partition("=")
    if not separator or not name.strip():
        raise fail(f"a parameter is given as NAME=VALUE, not {setting!r}")
    import yaml  # an extra: without it, too, `advlib run` has to say what is missing

    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        raise fail(f"the value in {setting!r} is not a number, a word or a list such as [0.1, 0.3]") from None


def run(
    names: Annotated[list[str] | None, typer.Argument(help="Beginnings of notebook names; all if none.")] = None,
    profile: Annotated[str, typer.Option(help="quick, or paper for the papers' own settings.")] = "quick",
    parameter: Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is still valid.")] = False,
    update_reference: Annotated[
        bool, typer.Option("--update-reference", help="Store records (and, in quick, outputs) in the tree.")
    ] = False,
) -> None:
    """Execute the notebooks, keep their records under results/runs, and write the report."""
    _need_the_repository()
    from compendium import runner
    from compendium.claims import report as reports

    overrides = dict(_parse(setting) for setting in parameter or [])
    if update_reference and overrides:
        raise fail("--update-reference keeps a profile as it is; leave --parameter out")
    try:
        chosen = runner.notebooks(names or [])
        outcomes = runner.run_all(names or [], profile, overrides, console, force=force)
    except ValueError as error:
        raise fail(error) from None
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        errors.print(f"[red]{outcome.notebook} failed:[/] {escape(outcome.message)}", highlight=False, soft_wrap=True)
        kept = places.RUNS / profile / outcome.notebook / "failed.ipynb"
        errors.print(f"  the notebook up to the error: {kept}", highlight=False, soft_wrap=True)
    if update_reference and not failed:
        for path in chosen:
            runner.store_reference(path, profile)
        reports.write_claims()
        reports.write_readme()
    page = reports.write_html(profile)
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(1)


def report(
    profile: Annotated[str, typer.Option(help="Which runs to show.")] = "quick",
    readme: Annotated[
        bool, typer.Option("--readme", help="Renew docs/results.md, README's counts and claims.csv too.")
    ] = False,
) -> None:
    """Write the HTML page from the runs there are."""
    _need_the_repository()
    from compendium.claims import record
    from compendium.claims import report as reports

    try:
        record.profile_parameters(profile)
    except ValueError as error:
        raise fail(error) from None
    if readme:
        reports.write_claims()
        reports.write_readme()
    page = reports.write_html(profile)
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)


def exercises(
    names: Annotated[list[str] | None, typer.Argument(help="Beginnings of notebook names; all if none.")] = None,
) -> None:
    """Write the notebooks' exercise cells and worked solutions from exercises/, where they are edited."""
    _need_the_repository()
    from compendium.exercises import writing

    try:
        written = writing.write(names or [])
    except ValueError as error:
        raise fail(error) from None
    for path in written:
        console.print(f"written: {path.relative_to(places.NOTEBOOKS)}", soft_wrap=True, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the commands to the library's application."""
    app.command()(run)
    app.command()(report)
    app.command()(exercises)
