"""What `advlib fit` and `advlib detect` do: a detector from files, its verdict on a batch or on a stream of batches."""

import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from advlib import detectors, figures, models
from advlib.checks import whole_number
from advlib.cli.records import aim_record, range_note, step_record, verdict_record
from advlib.datasets import files, large
from advlib.detectors import (
    AimTest,
    BatchTest,
    CombinedTest,
    CoverageTest,
    DensityRatioTest,
    DensityTest,
    HotellingTest,
    NearestBallTest,
)
from advlib.detectors.feature_test import feature_name
from advlib.detectors.samples import extremes, level
from advlib.detectors.sequential import StreamTest

KINDS = ("combined", "density", "coverage", "nearest", "mean", "ratio")
DEFAULT_FEATURES = ("pixels", "residual", "texture", "multiscale")
"""Feature maps of the combined test, where images are large enough for them."""

_MEANS = ("multiscale",)  # maps whose mean the combined test looks at as well, where smooth attacks show

_SINGLE = {"density": DensityTest, "coverage": CoverageTest, "nearest": NearestBallTest, "ratio": DensityRatioTest}
_SMALLEST_IMAGE = 8  # pixels a side that the residual map needs to have more than one number


def make_test(
    kind: str,
    shape: Sequence[int],
    *,
    features: Sequence[str] | None = None,
    k: int = 5,
    per_channel: bool = False,
    draws: int | None = None,
    seed: int = 0,
) -> BatchTest:
    """Return an unfitted test.

    Parameters
    ----------
    kind : str
        One of `KINDS`. "combined" is density, coverage and nearest ball on each feature map, and the mean
        of `multiscale`, at a joint level.
    shape : tuple of int
        Of one sample: (c, h, w), or (d,) for a vector.
    features : sequence of str, optional
        Names of feature maps; by default pixels, and for the combined test on images `DEFAULT_FEATURES`.
    k : int
        Neighbour that sets a ball's radius.
    per_channel : bool
        One statistic a colour channel.
    draws : int, optional
        Permutations; by default 999, or 199 for the density ratio.
    seed : int
        Of the permutations.

    Raises
    ------
    ValueError
        For an unknown kind, or parameters that do not go together.
    """
    draws = None if draws is None else whole_number(draws, "draws", 1)
    seed = whole_number(seed, "seed", 0)
    if kind not in KINDS:
        raise ValueError(f"test must be one of {', '.join(KINDS)}, but is {kind!r}")
    if not features:
        images = len(shape) == 3 and min(shape[1:]) >= _SMALLEST_IMAGE
        features = DEFAULT_FEATURES if kind == "combined" and images else ("pixels",)
    common: dict[str, Any] = {"per_channel": per_channel, "random_state": seed}
    if kind == "ratio":
        tests = [DensityRatioTest(features=name, draws=draws or 199, **common) for name in features]
    elif kind == "mean":
        tests = [HotellingTest(features=name, draws=draws or 999, **common) for name in features]
    else:
        classes = [DensityTest, CoverageTest, NearestBallTest] if kind == "combined" else [_SINGLE[kind]]
        tests = [test(k, features=name, draws=draws or 999, **common) for name in features for test in classes]
        if kind == "combined":
            tests += [HotellingTest(features=name, **common) for name in features if name in _MEANS]
    if len(tests) == 1:
        return tests[0]
    return CombinedTest(tests, draws=tests[0].draws, random_state=seed)


def fit(
    reference: Path,
    output: Path,
    calibration: Path | None = None,
    *,
    by_class: bool = False,
    split: str | None = None,
    key: str | None = None,
    memory_gb: float | None = None,
    network: str | None = None,
    second: str | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Fit a detector to files and save it.

    Parameters
    ----------
    reference, calibration : path
        As `files.read` takes them. Without calibration a fifth of the reference is held out.
    output : path
        Written whole or not at all.
    by_class : bool
        Whether samples are judged within their class; the files must hold labels.
    split, key
        As in `files.read`, of the npz files among the two; the training part where none is named.
    memory_gb : float, optional
        Read the reference by blocks, a folder or npy file (a zarr array always is), in so many GiB.
    network, second : str, optional
        Of `advlib.models.SPECS`: with a network the detector also answers whether a change aims at it (`AimTest`).
    **parameters
        Of `make_test`.

    Returns
    -------
    dict
        What was made, in JSON's types: `sentence`, `assumed`, and the numbers in them.

    Raises
    ------
    ValueError, OSError
        In one sentence; then no file is written.
    """
    output = Path(output)
    if output.is_dir():
        raise ValueError(f"output must be a file such as detector.safetensors, but {output} is a folder")
    with scratch_beside(output) as scratch:
        clean = _opened(reference, scratch, memory_gb) or files.read(
            reference, split=split, usual_split="train", key=key
        )
        return _fit_to(
            clean, output, calibration, by_class, {"split": split, "key": key}, (network, second), parameters
        )


@contextmanager
def scratch_beside(path: Path) -> Iterator[Path]:
    """Give a folder for feature vectors on the disk where a file will lie or lies; it is removed at the end."""
    folder = Path(path).absolute().parent
    folder = folder if folder.is_dir() else Path.cwd()
    with tempfile.TemporaryDirectory(prefix=".advlib-", dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def _opened(
    path: Path, scratch: Path, memory_gb: float | None, shape: Sequence[int] | None = None
) -> files.Samples | None:
    """Return samples that stay on disk, or None for what is read at once."""
    if not large.is_large(path, memory_gb):
        return None
    values, names = large.open_large(path, scratch, 2.0 if memory_gb is None else memory_gb, shape)
    return files.Samples(values, None, names, values.source)


def _fit_to(
    clean: files.Samples,
    output: Path,
    calibration: Path | None,
    by_class: bool,
    part: dict[str, str | None],
    networks: tuple[str | None, str | None],
    parameters: dict[str, Any],
) -> dict[str, Any]:
    shape, (network, second) = clean.values.shape[1:], networks
    test = make_test(shape=shape, **parameters)
    other = None
    if calibration is not None:
        part = part if Path(calibration).suffix == ".npz" else {}
        other = files.read(calibration, **part, usual_split="train", shape=shape)
    for samples in filter(None, (clean, other)):
        _check_clean(samples, by_class)
    labels = {"reference_labels": clean.labels} if by_class else {}
    if by_class and other is not None:
        labels["calibration_labels"] = other.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said in `assumed_`
        test.fit(clean.values, None if other is None else other.values, **labels)
    test.aim_ = _aim(network, second, clean.values, other, parameters.get("seed", 0))
    with _naming(output):
        test.save(output)
    return _fit_record(test, output)


def _aim(
    network: str | None, second: str | None, clean: np.ndarray, other: files.Samples | None, seed: int
) -> AimTest | None:
    """Fit the second question, if there is a network; say in one sentence why it cannot be asked of these images."""
    if network is None:
        if second is not None:
            raise ValueError("--second needs --network: it is the other one of two")
        return None
    if isinstance(clean, large.LargeSamples):
        raise ValueError("--network needs images that fit into memory; leave --memory-gb out, or take fewer images")
    for name in filter(None, (network, second)):
        models.spec(name)
    try:
        return AimTest(network, second, random_state=seed).fit(clean, None if other is None else other.values)
    except (RuntimeError, models.DoesNotFit) as error:  # a network for images of another size, mostly
        raise ValueError(f"the network {network} cannot take these images: {str(error).splitlines()[0]}") from None


def _check_clean(samples: files.Samples, by_class: bool) -> None:
    if by_class and samples.labels is None:
        raise ValueError(f"--by-class needs labels, but {samples.source} has none")
    low, high = extremes(samples.values)
    if samples.values.ndim == 4 and low >= 0 and 2 < high <= 255:
        raise ValueError(
            f"{samples.source} must hold images in [0, 1] or bytes (uint8), but its values run to {high:g}: divide "
            "by 255"
        )


def _fit_record(test: BatchTest, output: Path) -> dict[str, Any]:
    names, n_calibration = test.statistic_names(), len(test.calibration_)
    size = " × ".join(map(str, test.sample_shape_))
    return {
        "sentence": (
            f"{output}: {', '.join(names)}; {test.n_reference_} reference and {n_calibration} calibration "
            f"samples of {size}."
        ),
        "detector": str(output),
        "statistics": names,
        "features": [*dict.fromkeys(feature_name(part) for part in getattr(test, "tests_", [test]))],
        "n_reference": test.n_reference_,
        "n_calibration": n_calibration,
        "sample_shape": list(test.sample_shape_),
        "exchangeability_p": None if math.isnan(test.exchangeability_p_) else test.exchangeability_p_,
        "assumed": [*test.assumed_, *(test.aim_.assumed() if test.aim_ else ())],
        "network": test.aim_.network if test.aim_ else None,
    }


def detect(
    detector: Path,
    batch: Path,
    *,
    alpha: float = 0.05,
    figure: Path | None = None,
    split: str | None = None,
    key: str | None = None,
    memory_gb: float | None = None,
) -> dict[str, Any]:
    """Test one batch from a file.

    Parameters
    ----------
    detector : path
        From `fit`.
    batch : path
        As `files.read` takes it.
    alpha : float
        Level of the decision.
    figure : path, optional
        Written whole or not at all.
    split, key
        As in `files.read`.
    memory_gb : float, optional
        Read detector and batch by blocks, as in `fit`.

    Returns
    -------
    dict
        From `records.verdict_record`, and `figure`; `aim`, from `records.aim_record`, or None without a network.

    Raises
    ------
    ValueError, OSError
        In one sentence.
    """
    level("alpha", alpha)
    test = detectors.load(detector, memory_gb=memory_gb)
    with scratch_beside(batch) as scratch:
        opened = _opened(batch, scratch, memory_gb, test.sample_shape_)
        samples, labels = (opened, None) if opened else _read_batch(test, batch, split, key)
        _check_permutations(test, len(samples.names), memory_gb)
        return _detected(test, samples, labels, alpha, figure)


def _check_permutations(test: BatchTest, m: int, memory_gb: float | None) -> None:
    """Raise where the permutations of a batch would not fit: they are rows, not samples, and held at once."""
    needed = 8 * (test.draws + 1) * m / 2**30
    if memory_gb is not None and needed > memory_gb / 2:
        raise ValueError(
            f"{test.draws} permutations of a batch of {m:,} would take {needed:.2g} GiB, more than half of memory_gb = "
            f"{memory_gb:g}: fit with fewer draws, or test the batch in parts"
        )


def _detected(
    test: BatchTest, samples: files.Samples, labels: np.ndarray | None, alpha: float, figure: Path | None
) -> dict[str, Any]:
    verdict = test.test(samples.values, labels)
    smallest = 1 / (1 + verdict.draws)
    if alpha < smallest:
        raise ValueError(
            f"alpha must be at least {smallest:.3g}, the smallest p-value that {verdict.draws} permutations "
            f"can give here, but is {alpha:g}: fit with more draws or more calibration samples"
        )
    notes = range_note(samples.values, test.value_range_)
    record = verdict_record(verdict, samples.names, samples.source, alpha, notes)
    record["aim"] = None if test.aim_ is None else aim_record(test.aim_.test(samples.values), test.aim_, alpha)
    record["figure"] = None
    if figure is not None:
        figure = Path(figure)
        images = samples.values if samples.values.ndim == 4 else None
        with _naming(figure):
            figures.save_figure(figures.verdict(verdict, images, samples.names, alpha), figure)
        record["figure"] = str(figure)
    return record


def detect_stream(
    detector: Path,
    batches: Sequence[Path] | None,
    folder: Path | None,
    *,
    alpha: float = 0.05,
    figure: Path | None = None,
    split: str | None = None,
    key: str | None = None,
    interval: float = 1.0,
    idle: float | None = None,
    on_step: Callable[[dict[str, Any]], None],
    on_skipped: Callable[[ValueError], object],
) -> tuple[bool, int]:
    """Test a stream of batches with one bound on false alarms; return whether it rang, and how many files were skipped.

    Parameters
    ----------
    detector, figure, split, key
        As in `detect`; the figure shows the evidence over time.
    batches : list of path or None
        Files in their order; one that cannot be read ends the stream with its error.
    folder : path or None
        In place of files: a folder that is watched (`files.arriving`, with `interval` and `idle` in seconds) until the
        first alarm. A file that cannot be read is skipped.
    alpha : float
        Bound on the chance that a clean stream ever raises an alarm.
    on_step, on_skipped : callable
        Get each step's record (`records.step_record`), and the error of each file that was skipped.
    """
    stream = StreamTest(detectors.load(detector), alpha=alpha)
    evidence, skipped = [], 0
    try:
        for path in batches or () if folder is None else _watched(folder, interval, idle):
            try:
                samples, labels = _read_batch(stream.test, path, split, key)
                step = stream.update(samples.values, labels)
            except (ValueError, FileNotFoundError) as error:
                if folder is None:
                    raise
                skipped += 1
                on_skipped(error if isinstance(error, ValueError) else ValueError(str(error)))
                continue
            evidence.append(step.evidence)
            on_step(step_record(step, str(path), alpha))
            if folder is not None and step.alarm:
                break
    except KeyboardInterrupt:  # how a person ends a watch
        if folder is None:
            raise
    if figure is not None and evidence:
        with _naming(figure):
            figures.save_figure(figures.stream(evidence, alpha, stream.first_alarm), Path(figure))
    return stream.first_alarm is not None, skipped


def _watched(folder: Path, interval: float, idle: float | None) -> Iterable[Path]:
    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder {folder}")
    if not interval > 0:
        raise ValueError(f"interval must be a positive number of seconds, but is {interval:g}")
    return files.arriving(folder, interval=interval, idle=idle)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file that cannot be written, not the temporary one beside it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def _read_batch(
    test: BatchTest, path: Path, split: str | None, key: str | None
) -> tuple[files.Samples, np.ndarray | None]:
    """Read a batch; its labels only if the test is class-conditional."""
    samples = files.read(path, split=split, key=key, shape=test.sample_shape_)
    if test.classes_ is None:
        return samples, None
    if samples.labels is None:
        raise ValueError(f"the detector judges samples within their class, but {samples.source} has no labels")
    return samples, samples.labels
