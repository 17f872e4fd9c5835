"""Every public function of the library with arguments that it takes: what the property tests spoil, one at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch

from advlib import architectures, attacks, checks, datasets, detectors, figures, models, training
from advlib.detectors import features, sequential
from advlib.prdc import ReferenceManifold, expected_coverage, prdc
from advlib.ulsif import ULSIF, fit_batch, fit_batch_indices


@dataclass(frozen=True)
class Call:
    """A function, arguments that it takes, which of them are arrays and which are single values to spoil.

    `says` holds other names by which messages call an argument; `covers` names the public members it stands
    for; `any_number`: NaN and infinity are numbers to it.
    """

    function: Callable
    good: dict[str, Any]
    arrays: tuple[str, ...] = ()
    scalars: tuple[str, ...] = ()
    says: dict[str, tuple[str, ...]] = field(default_factory=dict)
    covers: tuple[str, ...] = ()
    any_number: bool = False


def _draw(*shape, seed=0, low=0.0, high=1.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


POINTS, OTHERS = _draw(24, 4), _draw(12, 4, seed=1)
IMAGES, LABELS = _draw(6, 1, 8, 8, seed=2), np.arange(6) % 3


@cache
def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3)).eval()


class _Embedding(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()

    def features(self, images):
        return images.flatten(1)[:, :5]

    def forward(self, images):
        return self.inner(images)


FAST = {"draws": 19}


@cache
def density():
    return detectors.DensityTest(2, **FAST).fit(POINTS, OTHERS)


@cache
def manifold():
    return ReferenceManifold(2).fit(POINTS)


@cache
def ratio():
    return ULSIF(n_kernels=8, sigmas=1.0, lambdas=0.1).fit(POINTS, OTHERS)


def _fit_test(kind, **more):
    def fit(reference, calibration, reference_labels=None, calibration_labels=None, **parameters):
        given = {"reference_labels": reference_labels, "calibration_labels": calibration_labels}
        test = kind(**parameters).fit(reference, calibration, **given)
        return test.test(OTHERS[:4], None if test.classes_ is None else np.arange(4) % 2)

    good = {"reference": POINTS, "calibration": OTHERS, "draws": 19, "alternative": "two-sided", "ties": "random"}
    good |= {"check": False, "random_state": 0, **more}
    return Call(
        fit,
        good,
        ("reference", "calibration"),
        ("draws", "alternative", "ties", "random_state", *more),
        {"k": ("reference",)},
        covers=(f"detectors.{kind.__name__}.fit",),
    )


def _labelled(**given):
    test = detectors.DensityTest(2, **FAST, check=False)
    return test.fit(given["reference"], given["calibration"], reference_labels=given["reference_labels"],
                    calibration_labels=given["calibration_labels"]).n_reference_  # fmt: skip


def _stream(batch, **parameters):
    return detectors.StreamTest(density(), **{"draws": 19, **parameters}).update(batch)


def _training(images, labels, seed=0, epochs=1, batch_size=3, max_lr=1e-3):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3))
    recipe = training.Recipe(epochs=epochs, max_lr=max_lr, batch_size=batch_size)
    history = training.fit(model, images, labels, recipe, seed=seed, progress=False)
    return [row["train_loss"] for row in history]


def _attack(function, *scalars, sweep="", rng=False, **more):
    """An attack on the small network; sweeps are run to their end."""
    if sweep:
        result = lambda **given: [batch.images for batch in function(network(), **given)]  # noqa: E731
    else:
        result = lambda **given: function(network(), **given).images  # noqa: E731

    def fresh(**given):  # a generator is used up by a call
        if isinstance(given.get("rng"), str) and given["rng"] == "fresh":
            given["rng"] = np.random.default_rng(0)
        return result(**given)

    good = {"images": IMAGES, "labels": LABELS, "clip": (0.0, 1.0), "batch_size": 4, **more} | (
        {"rng": "fresh"} if rng else {}
    )
    return Call(
        fresh, good, ("images", "labels"), ("clip", "batch_size", *scalars, *(["rng"] if rng else [])),
        covers=(f"attacks.{function.__name__}",),
        says={"gammas": ("gamma",), "epsilons": ("epsilon",), "images": ("labels",), "labels": ("classes",),
              "clip": ("images",)},
    )  # fmt: skip


def _changed(function, *scalars, rng=False, **more):
    def call(**given):
        if isinstance(given.get("rng"), str) and given["rng"] == "fresh":
            given["rng"] = np.random.default_rng(0)
        return function(**given)

    good = {"images": IMAGES, **more} | ({"rng": "fresh"} if rng else {})
    arrays = tuple(name for name in ("images", "changed") if name in good)
    says = {name: ("l2", "pixels", "degrees") for name in ("l2", "pixels", "degrees")}
    says |= {"images": ("changed", "pixels", "l2"), "clip": ("images",)}
    return Call(call, good, arrays, (*scalars, *["rng"] * rng), says, (f"attacks.{function.__name__}",))


STACKS = _draw(3, 6, 2), _draw(3, 5, 2, seed=1)
ROWS = np.arange(12).reshape(2, 6), np.arange(10).reshape(2, 5)
FIXED = {"sigmas": 1.0, "lambdas": 0.1}
GRID = {"sigmas": (0.3, 1.0), "lambdas": (0.1, 1.0), "n_kernels": 4, "kernel": "gaussian", "random_state": 0}
SAMPLES = {
    "batches": ("batch", "calibration"),
    "samples": ("batch", "samples"),
    "batch": ("batch",),
    "pool": ("batch", "pool"),
}

CALLS = {
    "DensityTest.fit": _fit_test(detectors.DensityTest, k=2),
    "NearestBallTest.fit": _fit_test(detectors.NearestBallTest, k=2),
    "CoverageTest.fit": _fit_test(detectors.CoverageTest, k=2),
    "HotellingTest.fit": _fit_test(detectors.HotellingTest),
    "DensityRatioTest.fit": _fit_test(detectors.DensityRatioTest, n_numerator=8, sigmas=(0.3, 1.0),
                                      lambdas=(0.1, 1.0), kernel="gaussian"),
    "CombinedTest.fit": _fit_test(detectors.CombinedTest, tests=None),
    "fit by class": Call(
        _labelled,
        {"reference": POINTS, "calibration": OTHERS, "reference_labels": np.arange(24) % 2,
         "calibration_labels": np.arange(12) % 2},
        ("reference_labels", "calibration_labels"),
    ),
    "features": Call(
        lambda features: detectors.DensityTest(2, features=features, **FAST).fit(IMAGES.repeat(4, 0) + POINTS.mean()),
        {"features": "pixels"}, (), ("features",), {"features": ("feature map", "dictionary update")},
        ("detectors.BatchTest.fit",),
    ),
    "test": Call(lambda batch: density().test(batch), {"batch": OTHERS[:5]}, ("batch",),
                 covers=("detectors.BatchTest.test",)),
    "measure": Call(lambda samples: density().measure(samples).parts[0], {"samples": OTHERS[:5]}, ("samples",), (),
                    SAMPLES, ("detectors.BatchTest.measure",)),
    "p_values": Call(
        lambda pool, batches, calibration: density().p_values(pool, batches, calibration),
        {"pool": POINTS, "batches": np.arange(6).reshape(2, 3), "calibration": np.arange(6, 24).reshape(2, 9)},
        ("pool", "batches", "calibration"), (), SAMPLES, ("detectors.BatchTest.p_values",),
    ),
    "statistics": Call(lambda rows: density().statistics(density().measure(POINTS), rows),
                       {"rows": np.arange(6).reshape(2, 3)}, ("rows",), covers=("detectors.BatchTest.statistics",)),
    "StreamTest": Call(_stream, {"batch": OTHERS[:4], "alpha": 0.05, "draws": 19, "max_samples": 100,
                                 "random_state": 0},
                       ("batch",), ("alpha", "draws", "max_samples", "random_state"),
                       covers=("detectors.StreamTest.update",)),
    "e_value": Call(sequential.e_value, {"p": np.array([0.5, 0.25], np.float32)}, ("p",)),
    "evidence": Call(sequential.evidence, {"p": np.array([0.5, 0.25], np.float32)}, ("p",)),
    "reject": Call(lambda alpha: density().test(OTHERS[:3]).reject(alpha), {"alpha": 0.05}, (), ("alpha",),
                   covers=("detectors.Verdict.reject",)),
    "load": Call(detectors.load, {"path": "/nonexistent/place"}, (), (), covers=("detectors.load",)),
    "ReferenceManifold.fit": Call(
        lambda reference, k, memory_gb: ReferenceManifold(k, memory_gb=memory_gb).fit(reference).radii_,
        {"reference": POINTS, "k": 2, "memory_gb": 0.1}, ("reference",), ("k", "memory_gb"),
        covers=("prdc.ReferenceManifold.fit",),
    ),
    **{
        name: Call(lambda queries, name=name: getattr(manifold(), name)(queries), {"queries": OTHERS}, ("queries",),
                   covers=(f"prdc.ReferenceManifold.{name}",))
        for name in ("ball_counts", "density", "coverage", "density_coverage", "hits")
    },
    "subset_density_coverage": Call(
        lambda batches: manifold().subset_density_coverage(manifold().hits(OTHERS), batches),
        {"batches": np.arange(6).reshape(2, 3)}, ("batches",), (),
        covers=("prdc.ReferenceManifold.subset_density_coverage",),
    ),
    "prdc": Call(prdc, {"reference": POINTS, "queries": OTHERS, "k": 2, "memory_gb": 0.1}, ("reference", "queries"),
                 ("k", "memory_gb"), covers=("prdc.prdc",)),
    "expected_coverage": Call(expected_coverage, {"n_reference": 10, "n_queries": 5, "k": 2}, (),
                              ("n_reference", "n_queries", "k"), {"k": ("n_reference",)}, ("prdc.expected_coverage",)),
    "ULSIF.fit": Call(
        lambda numerator, denominator, **given: ULSIF(**given).fit(numerator, denominator).mean_ratio_,
        {"numerator": POINTS, "denominator": OTHERS, **GRID}, ("numerator", "denominator"), tuple(GRID),
        covers=("ulsif.ULSIF.fit",),
    ),
    "ULSIF.predict": Call(lambda points: ratio().predict(points), {"points": OTHERS}, ("points",),
                          covers=("ulsif.ULSIF.predict",)),
    "fit_batch": Call(
        lambda **given: fit_batch(**given).mean_ratio_,
        {"numerators": STACKS[0], "denominators": STACKS[1], "chunk_draws": 2, **GRID}, ("numerators", "denominators"),
        ("chunk_draws", *GRID), covers=("ulsif.fit_batch",),
    ),
    "fit_batch_indices": Call(
        lambda **given: fit_batch_indices(**given, **FIXED).mean_ratio_,
        {"numerator_pool": POINTS, "denominator_pool": OTHERS, "numerator_indices": ROWS[0],
         "denominator_indices": ROWS[1]},
        ("numerator_pool", "denominator_pool", "numerator_indices", "denominator_indices"), (),
        {"numerator_pool": ("numerator_indices",), "denominator_pool": ("denominator_indices",)},
        ("ulsif.fit_batch_indices",),
    ),
    "fgsm": _attack(attacks.fgsm, "epsilon", epsilon=0.1),
    "fgsm_sweep": _attack(attacks.fgsm_sweep, "epsilons", sweep="epsilons", epsilons=[0.1, 0.2]),
    "gradient_signs": Call(
        lambda **given: attacks.gradient_signs(network(), **given),
        {"images": IMAGES, "labels": LABELS, "batch_size": 4},
        ("images", "labels"), ("batch_size",), {"images": ("labels",)}, ("attacks.gradient_signs",),
    ),
    "pgd": _attack(attacks.pgd, "epsilon", "steps", "step", rng=True, epsilon=0.1, steps=2, step=0.05),
    "tgsm": _attack(attacks.tgsm, "epsilon", "steps", "ball", "targets", epsilon=0.1, steps=2, ball=0.1, targets=1),
    "tgsm_sweep": _attack(attacks.tgsm_sweep, "steps", sweep="steps", steps=[1, 2]),
    "jsma": _attack(attacks.jsma, "gamma", "theta", "targets", "saliency", gamma=0.05, theta=1.0, targets=1,
                    saliency="logits"),
    "jsma_sweep": _attack(attacks.jsma_sweep, "gammas", sweep="gammas", gammas=[0.03, 0.06]),
    "boundary": _attack(attacks.boundary, "steps", "directions", rng=True, steps=2, directions=5),
    "boundary_sweep": _attack(attacks.boundary_sweep, "steps", sweep="steps", rng=True, steps=[1, 2], directions=5),
    "random_sign_noise": _changed(attacks.random_sign_noise, "epsilon", "clip", rng=True, epsilon=0.1, clip=(0.0, 1.0)),
    "gaussian_noise": _changed(attacks.gaussian_noise, "l2", "clip", rng=True, l2=0.5, clip=(0.0, 1.0)),
    "match_l2": _changed(attacks.match_l2, "l2", "clip", changed=IMAGES[::-1].copy(), l2=0.5, clip=(0.0, 1.0)),
    "shifted": _changed(attacks.shifted, "pixels", "direction", pixels=1.0, direction=0.0),
    "rotated": _changed(attacks.rotated, "degrees", degrees=10.0),
    "predict": Call(lambda **given: models.predict(network(), **given), {"images": IMAGES, "batch_size": 4},
                    ("images",), ("batch_size",), covers=("models.predict",)),
    "logits": Call(lambda **given: models.logits(network(), **given), {"images": IMAGES, "batch_size": 4}, ("images",),
                   ("batch_size",), covers=("models.logits",)),
    "embed": Call(lambda **given: models.embed(_Embedding(), **given), {"images": IMAGES, "batch_size": 4}, ("images",),
                  ("batch_size",), covers=("models.embed",)),
    "accuracy": Call(lambda **given: models.accuracy(network(), **given), {"images": IMAGES, "labels": LABELS},
                     ("images", "labels"), (), {"images": ("labels",)},
                     ("models.accuracy", "checks.image_tensor", "checks.class_labels")),
    "as_tensor": Call(lambda values: models.as_tensor(values), {"values": POINTS}, ("values",),
                      covers=("models.as_tensor",), any_number=True),
    "a model": Call(lambda model: models.predict(model, IMAGES), {"model": network()}, (), ("model",),
                    covers=("models.frozen", "models.fitting",)),
    **{
        name: Call(lambda name, function=function: bool(function(name)), {"name": "mnist-vs22"}, (), ("name",),
                   covers=(f"models.{function.__name__}",))
        for name, function in {
            "spec": models.spec, "build": models.build, "card": models.card, "files": models.files,
            "load_trained": models.load_trained,
        }.items()
    },
    "weights_from": Call(lambda folder: models.weights_from(folder).__enter__(), {"folder": "."}, (), ("folder",),
                         covers=("models.weights_from",)),
    "training.fit": Call(_training, {"images": IMAGES, "labels": LABELS, "seed": 0, "epochs": 1, "batch_size": 3,
                                     "max_lr": 1e-3},
                         ("images", "labels"), ("seed", "epochs", "batch_size", "max_lr"),
                         {"images": ("labels",)}, ("training.fit",)),
    "grey": Call(datasets.grey, {"images": _draw(2, 3, 4, 4)}, ("images",), covers=("datasets.grey",)),
    "stratified_holdout": Call(
        datasets.stratified_holdout, {"labels": np.arange(40) % 4, "fraction": 0.25, "seed": 42}, ("labels",),
        ("fraction", "seed"), covers=("datasets.stratified_holdout",),
    ),
    "datasets.load": Call(lambda name: datasets.load(name, download=False).name, {"name": "mnist"}, (), ("name",),
                          covers=("datasets.load",)),
    "as_matrix": Call(lambda values: checks.as_matrix(values, "values"), {"values": POINTS}, ("values",),
                      covers=("checks.as_matrix", "checks.finite", "checks.same_columns", "checks.plain_array",
                              "checks.plain_tensor", "checks.checked_seed", "checks.one_of", "checks.listed",
                              "checks.as_number")),
    "whole_number": Call(lambda value: checks.whole_number(value, "value", 1), {"value": 3}, (), ("value",),
                         covers=("checks.whole_number",)),
    "finite_number": Call(lambda value: checks.finite_number(value, "value"), {"value": 3.0}, (), ("value",),
                          covers=("checks.finite_number",)),
    **{
        name: Call(lambda images, name=name: features.apply(name, images), {"images": IMAGES}, ("images",))
        for name in ("pixels", "residual", "texture")
    },
}  # fmt: skip

NOT_HERE = {
    **{
        f"detectors.AimTest.{method}": "a fit rehearses attacks: tests/advlib/detectors/test_aim.py"
        for method in ["fit", "look", "measure_tensor", "measure", "p_values", "test", "assumed", "state"]
    },
    "detectors.AimVerdict.reject": "a level: tests/advlib/detectors/test_aim.py",
    **{
        f"chunks.{name}": "arrays on disk: tests/advlib/prdc/test_prdc_blocks.py"
        for name in ("Block.values", "inside", "is_chunked", "open_array", "rows_of")
    },
    **{
        f"tasks.{name}": "a cluster: tests/compendium/test_dask.py"
        for name in ["map_tasks", "stamp", "difference", "settle", "current", "connect", "verified"]
    },
    "checks.usual_device": "takes nothing",
    "checks.of_kind": "takes what others checked",
    "detectors.BatchTest.save": "files: test_damaged, test_killed",
    "detectors.Scores.stack": "takes what `measure` returned",
    "detectors.BatchTest.statistic_names": "takes nothing",
    "detectors.CombinedTest.statistic_names": "takes nothing",
    "prdc.ReferenceManifold.save": "files: test_damaged",
    "attacks.join": "takes what attacks returned",
    "attacks.summarised": "takes what attacks computed",
    "attacks.versioned": "a mark for a programmer",
    "models.partition": "reads data sets: tests/advlib/test_models.py",
    "training.train": "writes files: test_killed, tests/advlib/test_training.py",
    "n2gem.card": "a key of a table",
    "n2gem.read": "files: tests/advlib/test_n2gem.py",
    "datasets.fetch": "files: test_killed, test_surroundings",
    "datasets.load_npz": "files: test_damaged",
    "datasets.pooled": "takes a Dataset",
    "datasets.rgb_medical": "takes switches",
    "datasets.status": "takes names that `source` checks",
    "environment.environment": "takes nothing",
    "paths.shown": "takes a path of our own",
    "paths.replacing": "files: test_surroundings",
    "paths.write_atomically": "files: test_surroundings",
    "progress.track": "takes any iterable",
    **{f"figures.{name}": "draws what others checked" for name in vars(figures)},
    **{f"architectures.{name}": "layers, whose arguments are torch's" for name in vars(architectures)},
}
"""Public functions that no call above stands for, and why."""
