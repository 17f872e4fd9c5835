"""What `advlib fit` and `advlib detect` do: a detector from files, and its verdicts as text, JSON and figures."""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from advlib import detectors, figures
from advlib.datasets import files
from advlib.detectors import CombinedTest, CoverageTest, DensityRatioTest, DensityTest, NearestBallTest, Verdict
from advlib.detectors.base import BatchTest, feature_word
from advlib.detectors.samples import extremes, level, whole
from advlib.detectors.sequential import Step, StreamTest

KINDS = ("combined", "density", "coverage", "nearest", "ratio")
DEFAULT_FEATURES = ("pixels", "residual")
"""Feature maps of the combined test, where images are large enough for them."""

_SINGLE = {"density": DensityTest, "coverage": CoverageTest, "nearest": NearestBallTest, "ratio": DensityRatioTest}
_SMALLEST_IMAGE = 8  # pixels a side that the residual map needs to have more than one number


def build(
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
        One of `KINDS`. "combined" is density, coverage and nearest ball on each feature map, at a joint level.
    shape : tuple of int
        Of one sample: (c, h, w), or (d,) for a vector.
    features : sequence of str, optional
        Names of feature maps; by default pixels, and for the combined test on images the residual too.
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
    draws = None if draws is None else whole("draws", draws, 1)
    seed = whole("seed", seed, 0)
    if kind not in KINDS:
        raise ValueError(f"test must be one of {', '.join(KINDS)}, but is {kind!r}")
    if not features:
        images = len(shape) == 3 and min(shape[1:]) >= _SMALLEST_IMAGE
        features = DEFAULT_FEATURES if kind == "combined" and images else ("pixels",)
    common: dict[str, Any] = {"per_channel": per_channel, "random_state": seed}
    if kind == "ratio":
        tests = [DensityRatioTest(features=name, draws=draws or 199, **common) for name in features]
    else:
        classes = [DensityTest, CoverageTest, NearestBallTest] if kind == "combined" else [_SINGLE[kind]]
        tests = [test(k, features=name, draws=draws or 999, **common) for name in features for test in classes]
    if len(tests) == 1:
        return tests[0]
    return CombinedTest(tests, draws=tests[0].draws, random_state=seed)


def range_note(values: np.ndarray, value_range: tuple[float, float]) -> list[str]:
    """Return a sentence where images leave the reference's range by more than a twentieth, else nothing."""
    low, high = value_range
    slack = (high - low) / 20
    mine = float(values.min()), float(values.max())
    if values.ndim == 2 or (mine[0] >= low - slack and mine[1] <= high + slack):
        return []
    return [
        f"The values of the batch run from {mine[0]:.3g} to {mine[1]:.3g}, outside the reference's {low:.3g} to "
        f"{high:.3g}: normalised, or not clipped? That alone makes a batch differ."
    ]


def smallest_p(verdict: Verdict) -> float:
    """Return the smallest p-value that could have come out."""
    return 1 / (1 + verdict.draws)


def as_dict(verdict: Verdict, names: Sequence[str], source: str, alpha: float, notes: Sequence[str] = ()) -> dict:
    """Return a verdict in JSON's types, samples in the order of suspicion."""
    return {
        "batch": source,
        "n_samples": len(names),
        "flagged": verdict.reject(alpha),
        "alpha": alpha,
        "p_value": verdict.p_value,
        "statistic": verdict.statistic,
        "draws": verdict.draws,
        "parts": [
            {"name": part.name, "statistic": part.statistic, "expected": part.expected, "p_value": part.p_value}
            for part in verdict.parts
        ],
        "contamination": {
            "share": verdict.contamination.share,
            "low": verdict.contamination.low,
            "high": verdict.contamination.high,
            "level": verdict.contamination.level,
        },
        "samples": [
            {
                "name": names[i],
                "p_value": float(verdict.sample_p_values[i]),
                "score": float(verdict.sample_scores[i]),
            }
            for i in ranking(verdict)
        ],
        "assumed": [*verdict.assumed, *notes],
    }


def ranking(verdict: Verdict) -> np.ndarray:
    """Return the samples' numbers, the least fitting first."""
    return np.argsort(verdict.sample_p_values, kind="stable")


def sentences(told: dict[str, Any], shown: int = 10) -> list[str]:
    """Return what `as_dict` holds as lines for a reader, the verdict first.

    Parameters
    ----------
    told : dict
        From `as_dict`.
    shown : int
        Samples in the ranking.
    """
    p, alpha, m = told["p_value"], told["alpha"], told["n_samples"]
    many = f"{m} samples" if m > 1 else "one sample"
    comparison = f"p = {p:.3g} {'≤' if told['flagged'] else '>'} {alpha:g}"
    lines = [
        f"{'FLAGGED' if told['flagged'] else 'clean'}  {told['batch']}: {many} "
        + (
            f"unlike the calibration set ({comparison})."
            if told["flagged"]
            else f"as the calibration set would give ({comparison})."
        ),
        "",
        f"  {'statistic':<28} {'batch':>9} {'expected':>9} {'p alone':>9}",
    ]
    lines += [
        f"  {part['name']:<28} {part['statistic']:>9.4g} {part['expected']:>9.4g} {part['p_value']:>9.3g}"
        for part in told["parts"]
    ]
    share = told["contamination"]
    lines += [
        "",
        f"  Share that does not fit: {share['share']:.0%} ({share['level']:.0%} interval {share['low']:.0%} to "
        f"{share['high']:.0%}).",
        "",
        f"  {'least fitting':<28} {'p alone':>9}",
    ]
    lines += [f"  {sample['name']:<28} {sample['p_value']:>9.3g}" for sample in told["samples"][:shown]]
    if m > shown:
        lines.append(f"  … and {m - shown} more")
    return [*lines, "", *(f"  · {sentence}" for sentence in told["assumed"])]


def step_as_dict(step: Step, source: str, alpha: float) -> dict[str, Any]:
    """Return one step of a stream in JSON's types."""
    return {
        "batch": source,
        "number": step.number,
        "n_samples": step.size,
        "p_value": step.p_value,
        "e_value": step.e_value,
        "evidence": step.evidence,
        "threshold": 1 / alpha,
        "alarm": step.alarm,
        "first_alarm": step.first_alarm,
    }


def step_sentence(told: dict[str, Any]) -> str:
    """Return one line about one step of a stream."""
    mark = "ALARM" if told["alarm"] else "     "
    digits = 0 if told["evidence"] >= 100 else 2
    evidence = f"{told['evidence']:.{digits}f}" if math.isfinite(told["evidence"]) else "∞"
    return (
        f"{mark} {told['number']:>5}  {told['batch']}  {told['n_samples']} samples  p = {told['p_value']:.3g}  "
        f"evidence {evidence} of {told['threshold']:g}"
    )


# ---------------------------------------------------------------------------------------------- commands


def fit(
    reference: Path,
    output: Path,
    calibration: Path | None = None,
    *,
    kind: str = "combined",
    features: Sequence[str] | None = None,
    k: int = 5,
    per_channel: bool = False,
    by_class: bool = False,
    draws: int | None = None,
    seed: int = 0,
    split: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Fit a detector to files and save it.

    Parameters
    ----------
    reference, calibration : path
        As `batch_files.read` takes them. Without calibration a fifth of the reference is held out.
    output : path
        Written whole or not at all.
    kind, features, k, per_channel, draws, seed
        As in `build`.
    by_class : bool
        Whether samples are judged within their class; the files must hold labels.
    split, key
        As in `batch_files.read`, of the npz files among the two; the training part where none is named.

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
    clean = files.read(reference, split=split, usual_split="train", key=key)
    test = build(kind, clean.values.shape[1:], features=features, k=k, per_channel=per_channel, draws=draws, seed=seed)
    shape = clean.values.shape[1:]
    other = None
    if calibration is not None:
        part = {"split": split, "key": key} if Path(calibration).suffix == ".npz" else {}
        other = files.read(calibration, **part, usual_split="train", shape=shape)
    for samples in filter(None, (clean, other)):
        if by_class and samples.labels is None:
            raise ValueError(f"--by-class needs labels, but {samples.source} has none")
        low, high = extremes(samples.values)
        if samples.values.ndim == 4 and low >= 0 and 2 < high <= 255:
            raise ValueError(
                f"{samples.source} must hold images in [0, 1] or bytes (uint8), but its values run to {high:g}: divide "
                "by 255"
            )
    labels = {"reference_labels": clean.labels} if by_class else {}
    if by_class and other is not None:
        labels["calibration_labels"] = other.labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # said in `assumed_`
        test.fit(clean.values, None if other is None else other.values, **labels)
    with _writing(output):
        test.save(output)
    kinds = [*dict.fromkeys(feature_word(part) for part in getattr(test, "tests_", [test]))]
    n_calibration = len(test.calibration_)
    size = " × ".join(map(str, shape))
    return {
        "sentence": (
            f"{output}: {', '.join(test._names())}; {test.n_reference_} reference and {n_calibration} calibration "
            f"samples of {size}."
        ),
        "detector": str(output),
        "statistics": test._names(),
        "features": kinds,
        "n_reference": test.n_reference_,
        "n_calibration": n_calibration,
        "sample_shape": list(shape),
        "exchangeability_p": None if math.isnan(test.exchangeability_p_) else test.exchangeability_p_,
        "assumed": list(test.assumed_),
    }


def detect(
    detector: Path,
    batch: Path,
    *,
    alpha: float = 0.05,
    figure: Path | None = None,
    split: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Test one batch from a file.

    Parameters
    ----------
    detector : path
        From `fit`.
    batch : path
        As `batch_files.read` takes it.
    alpha : float
        Level of the decision.
    figure : path, optional
        Written whole or not at all.
    split, key
        As in `batch_files.read`.

    Returns
    -------
    dict
        As `as_dict`, and `figure`.

    Raises
    ------
    ValueError, OSError
        In one sentence.
    """
    level("alpha", alpha)
    test = detectors.load(detector)
    samples, labels = _batch(test, batch, split, key)
    result = test.test(samples.values, labels)
    if alpha < smallest_p(result):
        raise ValueError(
            f"alpha must be at least {smallest_p(result):.3g}, the smallest p-value that {result.draws} permutations "
            f"can give here, but is {alpha:g}: fit with more draws or more calibration samples"
        )
    notes = range_note(samples.values, test.value_range_)
    told = as_dict(result, samples.names, samples.source, alpha, notes)
    told["figure"] = None
    if figure is not None:
        figure = Path(figure)
        images = samples.values if samples.values.ndim == 4 else None
        with _writing(figure):
            figures.save_figure(figures.verdict(result, images, samples.names, alpha), figure)
        told["figure"] = str(figure)
    return told


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
    heard: Callable[[dict[str, Any]], None],
    refused: Callable[[ValueError], None],
) -> tuple[bool, int]:
    """Test a stream of batches with one bound on false alarms.

    Parameters
    ----------
    detector : path
        From `fit`.
    batches : list of path or None
        Files in their order; one that cannot be read ends the stream.
    folder : path or None
        In place of files: a folder that is watched (`batch_files.arriving`) until the first alarm. A file that cannot
        be read is passed over.
    alpha : float
        Bound on the chance that a clean stream ever raises an alarm.
    figure : path, optional
        The evidence over time.
    split, key
        As in `batch_files.read`.
    interval, idle
        As in `batch_files.arriving`.
    heard : callable
        Gets each step as a dict.
    refused : callable
        Gets the error of each file that was passed over.

    Returns
    -------
    alarm : bool
    skipped : int
        Files passed over.

    Raises
    ------
    ValueError, OSError
        In one sentence.
    """
    stream = StreamTest(detectors.load(detector), alpha=alpha)
    paths: Iterable[Path] = batches or ()
    if folder is not None:
        if not Path(folder).is_dir():
            raise ValueError(f"there is no folder {folder}")
        if not interval > 0:
            raise ValueError(f"interval must be a positive number of seconds, but is {interval:g}")
        paths = files.arriving(folder, interval=interval, idle=idle)
    course, skipped = [], 0
    try:
        for path in paths:
            try:
                samples, labels = _batch(stream.test, path, split, key)
                step = stream.update(samples.values, labels)
            except (ValueError, FileNotFoundError) as error:
                if folder is None:
                    raise
                skipped += 1
                refused(error if isinstance(error, ValueError) else ValueError(str(error)))
                continue
            course.append(step.evidence)
            heard(step_as_dict(step, str(path), alpha))
            if folder is not None and step.alarm:
                break
    except KeyboardInterrupt:  # how a person ends a watch
        if folder is None:
            raise
    if figure is not None and course:
        with _writing(figure):
            figures.save_figure(figures.stream(course, alpha, stream.first_alarm), Path(figure))
    return stream.first_alarm is not None, skipped


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the file that cannot be written, not the temporary one beside it."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def _batch(test: BatchTest, path: Path, split: str | None, key: str | None) -> tuple[files.Samples, np.ndarray | None]:
    """Read a batch; its labels only if the test is class-conditional."""
    samples = files.read(path, split=split, key=key, shape=test.sample_shape_)
    if test.classes_ is None:
        return samples, None
    if samples.labels is None:
        raise ValueError(f"the detector judges samples within their class, but {samples.source} has no labels")
    return samples, samples.labels
