"""The command line: advlib fit | detect | data | train | doctor, and what plug-ins add (the compendium: run | report).

A plug-in is an entry point of the group `advlib.commands`: a function that is given the `typer.Typer` application.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from advlib import __version__, datasets, paths

app = typer.Typer(
    help="Detecting adversarial examples in batches: test your own data, rerun the papers, read the report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)
_loaded: set[str] = set()


def fail(message: object) -> typer.Exit:
    """Print one sentence on standard error and return what ends the command with exit status 2."""
    errors.print(f"[red]advlib:[/] {message}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


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
        raise fail(error) from None
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
    from advlib import figures, training

    try:
        card = training.train(name, epochs=epochs, seed=seed, folder=output)
    except (ValueError, datasets.DataUnavailable) as error:
        raise fail(error) from None
    curve = (output or paths.HOME / "results" / "runs" / "training") / f"{name}.png"
    figures.save_figure(figures.training_curve(card), curve)
    console.print(f"{name}: accuracy {card['accuracy']:.4f} on {card['holdout']}; curve in {curve}", highlight=False)


Key = Annotated[str | None, typer.Option(help="Name of the array in an npz file.")]
Split = Annotated[str | None, typer.Option(help="Part of a MedMNIST file: train, val, test or all.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output, nothing else.")]


@app.command()
def fit(
    reference: Annotated[Path, typer.Argument(help="Clean images: .npz, .npy, a folder of pictures, a MedMNIST file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Detector to write, detector.safetensors.")],
    calibration: Annotated[
        Path | None, typer.Option(help="Other clean images, from where the batches come; else a fifth held out.")
    ] = None,
    test: Annotated[str, typer.Option(help="combined, density, coverage, nearest or ratio.")] = "combined",
    features: Annotated[list[str] | None, typer.Option(help="Feature maps by name; may be repeated.")] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbour that sets a ball's radius.")] = 5,
    per_channel: Annotated[bool, typer.Option("--per-channel", help="One statistic a colour channel.")] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Judge samples within their class, by labels.")] = False,
    draws: Annotated[int | None, typer.Option(help="Permutations.")] = None,
    seed: Annotated[int, typer.Option(help="Of the permutations and of the split.")] = 0,
    split: Split = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Learn what clean images look like, and save a detector for `advlib detect`."""
    with _one_sentence():
        told = verdicts().fit(
            reference, output, calibration, kind=test, features=features, k=k, per_channel=per_channel,
            by_class=by_class, draws=draws, seed=seed, split=split, key=key,
        )  # fmt: skip
    if as_json:
        _print_json(told)
        return
    console.print(told["sentence"], highlight=False, soft_wrap=True, markup=False)
    for sentence in told["assumed"]:
        console.print(f"  · {sentence}", highlight=False, markup=False)


@app.command()
def detect(
    detector: Annotated[Path, typer.Argument(help="From `advlib fit`.")],
    batches: Annotated[list[Path] | None, typer.Argument(help="A batch, or several as a stream.")] = None,
    watch: Annotated[Path | None, typer.Option(help="A folder: take its files as they come, as a stream.")] = None,
    alpha: Annotated[float, typer.Option(help="False alarms: a batch, or a whole stream.")] = 0.05,
    figure: Annotated[Path | None, typer.Option(help="Figure to write (.png, .pdf, .svg).")] = None,
    no_figure: Annotated[bool, typer.Option("--no-figure", help="Write no figure.")] = False,
    show: Annotated[int, typer.Option(help="Samples in the ranking.")] = 10,
    interval: Annotated[float, typer.Option(help="With --watch: seconds between two looks.")] = 1.0,
    idle: Annotated[float | None, typer.Option(help="With --watch: stop after so many quiet seconds.")] = None,
    split: Split = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Test whether a batch was drawn as the clean images were; exit status 0 clean, 1 flagged, 2 error.

    One batch gives a verdict, a ranking of its samples and a figure. Several files, or --watch, are a stream: the
    chance that a clean one ever raises an alarm is at most alpha, however long it runs.
    """
    with _one_sentence():
        if (watch is None) == (not batches):
            raise ValueError("give batches, or a folder to --watch, one of the two")
        if show < 0:
            raise ValueError(f"show must be a whole number of at least 0, but is {show}")
        if watch is None and len(batches) == 1:
            if figure is None and not no_figure and not as_json:
                figure = Path(f"{batches[0].absolute().stem}-verdict.png")
            told = verdicts().detect(
                detector, batches[0], alpha=alpha, figure=None if no_figure else figure, split=split, key=key
            )
            if as_json:
                _print_json(told)
            else:
                for line in verdicts().sentences(told, show):
                    console.print(line, highlight=False, soft_wrap=True, markup=False)
                if told["figure"]:
                    console.print(f"Figure: {told['figure']}", highlight=False, soft_wrap=True, markup=False)
            raise typer.Exit(1 if told["flagged"] else 0)

        def heard(told: dict[str, Any]) -> None:
            if as_json:
                _print_json(told, indent=None)
            else:
                console.print(verdicts().step_sentence(told), highlight=False, soft_wrap=True, markup=False)

        def refused(error: ValueError) -> None:
            errors.print(f"[red]advlib:[/] {escape(str(error))}", highlight=False, soft_wrap=True)

        alarm, skipped = verdicts().detect_stream(
            detector, batches, watch, alpha=alpha, figure=None if no_figure else figure, split=split, key=key,
            interval=interval, idle=idle, heard=heard, refused=refused,
        )  # fmt: skip
        raise typer.Exit(1 if alarm else 2 if skipped else 0)


def verdicts() -> ModuleType:
    """Import what needs torch only when it is needed: `advlib --help` is quick."""
    from advlib.cli import detect as module

    return module


def _print_json(told: dict[str, Any], indent: int | None = 1) -> None:
    typer.echo(json.dumps(told, ensure_ascii=False, indent=indent, allow_nan=False))


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn whatever goes wrong into one sentence and exit status 2: 1 would mean "flagged"."""
    try:
        yield
    except typer.Exit:
        raise
    except (ValueError, OSError, datasets.DataUnavailable) as error:
        raise fail(escape(" ".join(str(error).split()))) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except MemoryError:
        raise fail("the samples do not fit into this machine's memory") from None
    except Exception as error:
        raise fail(escape(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")) from error


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, hardware, data, weights, free disk."""
    from advlib import models
    from advlib.environment import environment

    found = environment()
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


def load_plug_ins() -> None:
    """Add the commands of the group `advlib.commands` to `app`, once."""
    for plug_in in entry_points(group="advlib.commands"):
        if plug_in.name not in _loaded:
            _loaded.add(plug_in.name)
            plug_in.load()(app)


def main() -> None:
    """Run the command line: the program `advlib`."""
    load_plug_ins()
    app()
