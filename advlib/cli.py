"""The command line: advlib run | report | data | train | doctor."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from advlib import __version__, datasets, paths

app = typer.Typer(
    help="Detecting adversarial examples in batches: rerun the papers, read the report, test your own data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)


def _fail(message: object) -> typer.Exit:
    errors.print(f"[red]advlib:[/] {message}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


def _parse(setting: str) -> tuple[str, Any]:
    name, separator, text = setting.partition("=")
    if not separator or not name.strip():
        raise _fail(f"a parameter is given as NAME=VALUE, not {setting!r}")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError:
        raise _fail(f"the value in {setting!r} is not a number, a word or a list such as [0.1, 0.3]") from None


@app.command()
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
    from advlib import report, runner

    overrides = dict(_parse(setting) for setting in parameter or [])
    if update_reference and overrides:
        raise _fail("--update-reference keeps a profile as it is; leave --parameter out")
    try:
        chosen = runner.notebooks(names or [])
        outcomes = runner.run_all(names or [], profile, overrides, console, force=force)
    except ValueError as error:
        raise _fail(error) from None
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        errors.print(f"[red]{outcome.notebook} failed:[/] {outcome.message}", highlight=False, soft_wrap=True)
        kept = paths.RUNS / profile / outcome.notebook / "failed.ipynb"
        errors.print(f"  the notebook up to the error: {kept}", highlight=False, soft_wrap=True)
    if update_reference and not failed:
        for path in chosen:
            runner.store_reference(path, profile)
        report.write_claims()
        report.write_readme()
    page = report.write_html(profile)
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)
    if failed:
        raise typer.Exit(1)


@app.command(name="report")
def report_command(
    profile: Annotated[str, typer.Option(help="Which runs to show.")] = "quick",
    readme: Annotated[bool, typer.Option("--readme", help="Renew README's table and results/claims.csv too.")] = False,
) -> None:
    """Write the HTML page from the runs there are."""
    from advlib import report, runner

    try:
        runner.profile_parameters(profile)
    except ValueError as error:
        raise _fail(error) from None
    if readme:
        report.write_claims()
        report.write_readme()
    page = report.write_html(profile)
    console.print(f"Report: [bold]{page}[/]", soft_wrap=True, highlight=False)


data = typer.Typer(help="Data sets: what is there, what is missing; fetch them.", invoke_without_command=True)
app.add_typer(data, name="data")


@data.callback()
def data_status(context: typer.Context) -> None:
    """List the data sets: presence, size, check, licence."""
    if context.invoked_subcommand is not None:
        return
    table = Table(title=f"Data sets in {paths.DOWNLOADS}", title_justify="left")
    for heading in ("name", "check", "size", "files", "source", "licence"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for row in datasets.status():
        colour = {"ok": "green", "missing": "yellow"}.get(row.check, "red")
        size = f"{row.size / 1e6:.0f} MB" if row.size else ""
        files = "\n".join(f"{file.path.name}  {'' if file.check == 'ok' else file.check}" for file in row.files)
        table.add_row(row.name, f"[{colour}]{row.check}[/]", size, files, row.source, row.licence)
    console.print(table)


@data.command()
def fetch(names: Annotated[list[str] | None, typer.Argument(help="Data sets; all if none.")] = None) -> None:
    """Get data sets from the first source that has them, and check every byte."""
    try:
        fetched = datasets.fetch(names or None)
    except (ValueError, datasets.DataUnavailable, OSError) as error:
        raise _fail(error) from None
    for row in fetched:
        console.print(f"{row.name}: {row.check}", style="green" if row.present else "yellow", highlight=False)
        if row.problem:
            console.print(f"  {row.problem}", highlight=False)
    # PathMNIST has no registry copy; its experiments go on without it and say so.
    if any(not row.present and (names or row.name != "pathmnist") for row in fetched):
        raise typer.Exit(1)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A network, for instance mnist-vs22.")],
    epochs: Annotated[int | None, typer.Option(help="Instead of the network's own number.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder for weights, card and curve.")] = None,
) -> None:
    """Train a network with one-cycle Adam; writes weights, card and curve."""
    from advlib import plotting, record, training

    try:
        card = training.train(name, epochs=epochs, seed=seed, folder=output)
    except (ValueError, datasets.DataUnavailable) as error:
        raise _fail(error) from None
    curve = (output or paths.RUNS / "training") / f"{name}.png"
    record.save_figure(plotting.training_curve(card), curve)
    console.print(f"{name}: accuracy {card['accuracy']:.4f} on {card['holdout']}; curve in {curve}", highlight=False)


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, hardware, data, weights, free disk."""
    from advlib import models, record

    found = record.environment()
    console.print(f"advlib {__version__}, Python {found['python']}, {found['system']}, {found['cpu']}", highlight=False)
    console.print(f"{found['cores']} cores, {found['threads']} threads, GPU: {found['gpu'] or 'none'}", highlight=False)
    console.print(", ".join(f"{name} {version}" for name, version in found["packages"].items()), highlight=False)
    console.print(f"home {paths.HOME}, {shutil.disk_usage(paths.HOME).free / 1e9:.0f} GB free", highlight=False)
    healthy = True
    for row in datasets.status():
        wrong = row.check not in ("ok", "missing")
        healthy &= not wrong
        console.print(f"  data {row.name}: {row.check}", style="red" if wrong else None, highlight=False)
    for name in models.SPECS:
        try:
            models.load_trained(name)
            console.print(f"  network {name}: ok", highlight=False)
        except (ValueError, OSError) as error:
            healthy = False
            console.print(f"  network {name}: {error}", style="red", highlight=False)
    if not healthy:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
