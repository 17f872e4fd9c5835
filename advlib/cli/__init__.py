"""The command line: advlib fit | detect | data | train | doctor, and what plug-ins add.

The compendium adds run | report | compare.

A plug-in is an entry point of the group `advlib.commands`: a function that is given the `typer.Typer` application.
"""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
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
_plug_ins: dict[str, Exception | None] = {}
"""Plug-ins that were asked for, and why one could not be loaded."""


def fail(message: object) -> typer.Exit:
    """Print one sentence on standard error and return what ends the command with exit status 2."""
    errors.print(f"[red]advlib:[/] {escape(str(message))}", highlight=False, soft_wrap=True)
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
        justify = "right" if heading == "size" else "left"
        table.add_column(heading, justify=justify, no_wrap=heading in ("name", "check"))
    for row in datasets.status():
        size = f"{row.size / 1e6:.0f} MB" if row.size else ""
        files = "\n".join(f"{file.path.name}  {'' if file.check == 'ok' else file.check}" for file in row.files)
        table.add_row(row.name, f"[{_colour(row)}]{_check(row)}[/]", size, files, row.source, row.licence)
    console.print(table)


def _check(row: datasets.DataStatus) -> str:
    return "missing (optional)" if row.check == "missing" and row.optional else row.check


def _colour(row: datasets.DataStatus) -> str:
    return {"ok": "green", "missing": "dim" if row.optional else "yellow"}.get(row.check, "red")


@data.command()
def fetch(names: Annotated[list[str] | None, typer.Argument(help="Data sets; all if none.")] = None) -> None:
    """Get data sets from the first source that has them, and check every byte."""
    try:
        fetched = datasets.fetch(names or None)
    except (ValueError, datasets.DataUnavailable, OSError) as error:
        raise fail(error) from None
    for row in fetched:
        console.print(f"{row.name}: {_check(row)}", style=_colour(row), highlight=False)
        if row.problem:
            console.print(f"  {row.problem}", highlight=False)
    if any(not row.present and (names or not row.optional) for row in fetched):
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
Memory = Annotated[
    float | None,
    typer.Option(help="GiB: read a folder, .npy or .zarr larger than memory by blocks.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output, nothing else.")]


@app.command()
def fit(
    reference: Annotated[Path, typer.Argument(help="Clean images: .npz, .npy, a folder of pictures, a MedMNIST file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Detector to write, detector.safetensors.")],
    calibration: Annotated[
        Path | None, typer.Option(help="Other clean images, from where the batches come; else a fifth held out.")
    ] = None,
    test: Annotated[str, typer.Option(help="combined, density, coverage, nearest, mean or ratio.")] = "combined",
    features: Annotated[list[str] | None, typer.Option(help="Feature maps by name; may be repeated.")] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbour that sets a ball's radius.")] = 5,
    per_channel: Annotated[bool, typer.Option("--per-channel", help="One statistic a colour channel.")] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Judge samples within their class, by labels.")] = False,
    network: Annotated[
        str | None, typer.Option(help="A network by name: ask too whether a change aims at it (minutes).")
    ] = None,
    second: Annotated[
        str | None, typer.Option(help="Another network for the same classes; it makes aim surer.")
    ] = None,
    draws: Annotated[int | None, typer.Option(help="Permutations.")] = None,
    seed: Annotated[int, typer.Option(help="Of the permutations and of the split.")] = 0,
    split: Split = None,
    key: Key = None,
    memory_gb: Memory = None,
    as_json: Json = False,
) -> None:
    """Learn what clean images look like, and save a detector for `advlib detect`."""
    with _one_sentence():
        from advlib.cli import detection  # takes torch, without which `advlib --help` is quick

        record = detection.fit(
            reference, output, calibration, kind=test, features=features, k=k, per_channel=per_channel,
            by_class=by_class, draws=draws, seed=seed, split=split, key=key, memory_gb=memory_gb, network=network,
            second=second,
        )  # fmt: skip
    if as_json:
        _print_json(record)
        return
    console.print(record["sentence"], highlight=False, soft_wrap=True, markup=False)
    for sentence in record["assumed"]:
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
    memory_gb: Memory = None,
    as_json: Json = False,
) -> None:
    """Test whether a batch was drawn as the clean images were, and whether a change aims at the network.

    Exit status 0: neither; 1: flagged by one of the two; 2: error. The second question is asked of a detector that was
    fitted with --network.

    One batch gives a verdict, a ranking of its samples and a figure. Several files, or --watch, are a stream: the
    chance that a clean one ever raises an alarm is at most alpha, however long it runs.
    """
    with _one_sentence():
        if (watch is None) == (not batches):
            raise ValueError("give batches, or a folder to --watch, one of the two")
        if show < 0:
            raise ValueError(f"show must be a whole number of at least 0, but is {show}")
        from advlib.cli import detection, records

        stream = watch is not None or len(batches) > 1
        if figure is None and not stream and not as_json:
            figure = Path(f"{batches[0].absolute().stem}-verdict.png")
        options: dict[str, Any] = {"alpha": alpha, "figure": None if no_figure else figure, "split": split, "key": key}
        if not stream:
            record = detection.detect(detector, batches[0], **options, memory_gb=memory_gb)
            if as_json:
                _print_json(record)
            else:
                _print_lines(records.verdict_lines(record, show))
                _print_lines([f"Figure: {record['figure']}"] if record["figure"] else [])
            raise typer.Exit(1 if record["flagged"] or (record["aim"] or {}).get("aimed") else 0)

        def print_step(record: dict[str, Any]) -> None:
            if as_json:
                _print_json(record, indent=None)
            else:
                _print_lines([records.step_line(record)])

        alarm, skipped = detection.detect_stream(
            detector, batches, watch, **options, interval=interval, idle=idle, on_step=print_step, on_skipped=fail
        )
        raise typer.Exit(1 if alarm else 2 if skipped else 0)


def _print_json(record: dict[str, Any], indent: int | None = 1) -> None:
    typer.echo(json.dumps(record, ensure_ascii=False, indent=indent, allow_nan=False))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Turn whatever goes wrong into one sentence and exit status 2: 1 would mean "flagged"."""
    try:
        yield
    except typer.Exit:
        raise
    except (ValueError, OSError, datasets.DataUnavailable) as error:
        raise fail(" ".join(str(error).split())) from None
    except MemoryError:
        raise fail("the samples do not fit into this machine's memory") from None
    except Exception as error:
        raise fail(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}") from error


@app.command()
def doctor() -> None:
    """Say what this installation has: versions, hardware, data, weights, free disk."""
    from advlib import models, n2gem
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
        console.print(f"  data {row.name}: {_check(row)}", style="red" if wrong else None, highlight=False)
    if not paths.WEIGHTS.is_dir():
        console.print(f"  networks: none, they come with the repository ({paths.WEIGHTS})", highlight=False)
    for name in models.SPECS if paths.WEIGHTS.is_dir() else ():
        authors = name in models.AUTHORS
        try:
            n2gem.read(name, fetch=False) if authors else models.load_trained(name)
            console.print(f"  network {name}: ok", highlight=False)
        except (ValueError, OSError) as error:
            wrong = name in models.NAMES or not isinstance(error, FileNotFoundError)
            healthy &= not wrong
            words = "not fetched (optional)" if authors else f"not trained here (optional): advlib train {name}"
            words = str(error) if wrong else words
            console.print(f"  network {name}: {words}", style="red" if wrong else None, highlight=False)
    if not healthy:
        raise typer.Exit(1)


def load_plug_ins() -> None:
    """Add the commands of the group `advlib.commands` to `app`, once; a plug-in that fails leaves the others be."""
    for plug_in in entry_points(group="advlib.commands"):
        if plug_in.name not in _plug_ins:
            try:
                plug_in.load()(app)
                _plug_ins[plug_in.name] = None
            except Exception as error:
                _plug_ins[plug_in.name] = error


def main() -> None:
    """Run the command line: the program `advlib`. An interruption (Ctrl-C) ends it with one sentence and status 130."""
    try:
        with _heard():
            _run()
    except KeyboardInterrupt:
        code: object = 130
    except SystemExit as leaving:  # typer turns an interruption into this status, without a word
        code = leaving.code
    else:
        return
    if code == 130:
        errors.print(
            "[red]advlib:[/] interrupted; what was finished is kept, and the same command goes on from there",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    sys.exit(code)


@contextmanager
def _heard() -> Iterator[None]:
    """Let no Ctrl-C be lost; where it is ignored (a shell's background job), it stays ignored."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or do so a moment later.

    In a destructor, or what a weak reference calls when its object is gone, Python prints an exception and forgets it.
    """
    above = frame
    while above is not None:
        code = above.f_code
        if code.co_name == "__del__" or os.path.basename(code.co_filename) in ("weakref.py", "_weakrefset.py"):
            again = threading.Timer(0.02, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
            return
        above = above.f_back
    raise KeyboardInterrupt


def _run() -> None:
    load_plug_ins()
    command = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), None)
    broken = [f"{name} ({type(error).__name__}: {error})" for name, error in _plug_ins.items() if error is not None]
    if broken and command is not None and command not in typer.main.get_command(app).commands:
        # Quiet otherwise: who fits a detector need not hear what the compendium lacks.
        fail(f"there is no command {command!r}; it may belong to a plug-in that failed: {', '.join(broken)}")
        sys.exit(2)
    app()
