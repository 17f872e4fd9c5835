"""`advlib run`, `report`, `compare` and `exercises`: what the compendium adds to the library's command line."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from advlib.cli import console, errors, fail
from compendium import paths as places
from compendium import summaries


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
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Notebooks at a time, sharing the cores; 1, or one a worker.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force/--resume", help="Run again what is still valid, or keep it and go on.")
    ] = False,
    update_reference: Annotated[
        bool, typer.Option("--update-reference", help="Store records (and, in quick, outputs) in the tree.")
    ] = False,
    dask: Annotated[
        str | None, typer.Option(help="A Dask scheduler's HOST:PORT, or local: notebooks and their parts run there.")
    ] = None,
) -> None:
    """Execute the notebooks, keep their records under results/runs, and write the report.

    A run that is whole and whose inputs have not changed since is kept, so an interrupted call goes on where it was.
    """
    _need_the_repository()
    from advlib.tasks import ClusterLost
    from compendium import runner
    from compendium.claims import report as reports
    from compendium.site.build import write_site

    overrides = dict(_parse(setting) for setting in parameter or [])
    if update_reference and overrides:
        raise fail("--update-reference keeps a profile as it is; leave --parameter out")
    try:
        chosen = runner.notebooks(names or [])
        outcomes = runner.run_all(names or [], profile, overrides, console, force=force, jobs=jobs, dask=dask)
    except (ValueError, ClusterLost) as error:
        raise fail(error) from None
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if update_reference and not failed:
        for path in chosen:
            runner.store_reference(path, profile)
        reports.write_claims()
        reports.write_readme()
    console.print(summaries.of_runs(outcomes, profile))
    for outcome in failed:
        errors.print(f"[red]{outcome.notebook} failed:[/] {escape(outcome.message)}", highlight=False, soft_wrap=True)
        kept = places.RUNS / profile / outcome.notebook / "failed.ipynb"
        errors.print(f"  the notebook up to the error: {kept}", highlight=False, soft_wrap=True)
    try:
        page = write_site(profile)
    except ValueError as error:
        raise fail(f"the runs are kept, but the report could not be written: {error}") from None
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(1)


def report(
    profile: Annotated[str, typer.Option(help="Which runs to show.")] = "quick",
    readme: Annotated[
        bool, typer.Option("--readme", help="Renew docs/results.md, README's counts and claims.csv too.")
    ] = False,
) -> None:
    """Write the site from the runs there are: pages to open from disk, which ask no host for anything."""
    _need_the_repository()
    from compendium.claims import record
    from compendium.claims import report as reports
    from compendium.site.build import write_site

    try:
        record.profile_parameters(profile)
        if readme:
            reports.write_claims()
            reports.write_readme()
        page = write_site(profile)
    except ValueError as error:
        raise fail(error) from None
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)


def compare(
    first: Annotated[
        Path, typer.Argument(help="A metrics.json, a run's folder, a profile's folder, results/reference.")
    ],
    second: Annotated[Path, typer.Argument(help="Likewise.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 1 where a number is beyond its band or a verdict changed.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="Relative change that counts as none where no band holds.")] = 0.05,
    show: Annotated[int, typer.Option(help="Numbers shown of each notebook.")] = 10,
    as_json: Annotated[
        bool, typer.Option("--json", help="For scripts: JSON on standard output, nothing else.")
    ] = False,
) -> None:
    """Put two runs side by side: which numbers moved, which beyond their band, which statements changed."""
    if find_spec("yaml") is None:
        raise fail("this command needs the compendium's packages: pip install 'advlib[compendium]'")
    from compendium import compare as comparing

    try:
        matched, alone = comparing.pairs(first, second)
        found = [comparing.compare(*pair, tolerance=tolerance) for pair in matched]
    except (ValueError, OSError) as error:
        raise fail(error) from None
    differs = any(each.differs for each in found)
    if as_json:
        content = {"pairs": [each.as_dict() for each in found], "unmatched": alone, "differs": differs}
        typer.echo(json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False))
    else:
        console.print(summaries.of_comparisons(found))
        for each in found:
            for line in summaries.details(each, show):
                console.print(line, highlight=False, soft_wrap=True, markup=False)
        if alone:
            console.print(f"In one place only: {', '.join(alone)}", highlight=False, soft_wrap=True, markup=False)
    if strict and differs:
        raise typer.Exit(1)


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
    for command in (run, report, compare, exercises):
        app.command()(command)
