"""Bands and statements catch defects: plant one, run a section of a notebook, and something must fail.

Each section is a part of a notebook that is quick enough, with the notebook's own parameters and random streams, so
that untouched it gives the notebook's own numbers: the control below holds that, within the bands. Run as a program,
this file prints which defect is caught by what.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
from test_numbers import EXPECTED, bands, failures

from advlib import attacks
from advlib.detectors import base
from advlib.prdc import ReferenceManifold, manifold
from advlib.ulsif import DEFAULT_GRID
from compendium import nb01_intuition as nb01
from compendium import runner
from compendium.claims import record
from compendium.common import g17, protocol, size_sweeps, vs22
from compendium.nb02b_density_coverage import fgsm
from compendium.nb13_hypothesis_tests import calibration, perturbations

pytestmark = pytest.mark.data


def start(number: str) -> record.Run:
    (path,) = runner.notebooks([number])
    return record.start(path.stem, **runner.defaults(path))


def points_in_balls() -> record.Run:
    run = start("01")
    steps = nb01.points_through_balls([0.0, 0.25, 0.5, 1.0, 1.8], run.rng("balls"), k=2)
    for name in ("density", "coverage"):
        run.metric(f"balls.{name}", [step[name] for step in steps])
    return run


def sample_sizes_of_mnist() -> record.Run:
    run = start("03")
    sizes, epsilon, draws, images = (run.parameters[name] for name in ("sample_sizes", "epsilon", "draws", "images"))
    for mode in g17.MODES:
        results = size_sweeps.size_sweep(
            mode, sizes, epsilon=epsilon, images=images, draws=draws, rng=run.rng(mode.name), image_sets=("mnist",)
        )
        size_sweeps.record_sweep(run, results, "figure3")
    return run


def fgsm_on_mnist() -> record.Run:
    run = start("02b")
    options = {name: run.parameters[name] for name in ("queries", "batch_size")}
    result = fgsm.fgsm_experiment(vs22.SETS["mnist"], **options, rng=run.rng("fgsm mnist"))
    for name, curve in result.curves.items():
        for kind in ("density", "coverage", "accuracy"):
            run.metric(f"fgsm.MNIST.{name}.{kind}", getattr(curve, kind))
    return run


def clean_batches_of_mnist() -> record.Run:
    run = start("13")
    own = run.parameters
    split = perturbations.split_images(
        "mnist", references=own["power_references"], images=own["power_images"], calibration=2000,
        rng=run.rng("images mnist"),
    )  # fmt: skip
    table = calibration.calibration_table(
        {"mnist": split}, ["density · pixels"], batch_sizes=own["clean_sizes"], batches=own["clean_batches"],
        rng=run.rng("calibration"),
    )  # fmt: skip
    outside, _, allowed = calibration.outside_band(table)
    run.verdict("no more rejection rates lie outside their 99 % band than chance allows", outside <= allowed)
    run.verdict("no p-value is below 1 / (1 + permutations)", table.too_small.sum() == 0)
    return run


SECTIONS = (points_in_balls, sample_sizes_of_mnist, fgsm_on_mnist, clean_batches_of_mnist)


def caught(section: Callable[[], record.Run]) -> list[str]:
    """List the bands and statements that a section fails, or what the library refuses outright."""
    try:
        run = section()
    except ValueError as error:
        return [f"refused: {error}"]
    known = {name for name in run.metrics} | {f"{n}[{i}]" for n, v in run.metrics.items() if isinstance(v, list)
                                              for i in range(len(v))}  # fmt: skip
    wanted = [band for band in bands(EXPECTED / f"{run.notebook}.yaml") if band["metric"] in known]
    return failures(run.metrics, wanted) + [f"False: {words}" for words, holds in run.verdicts.items() if not holds]


# ------------------------------------------------------------------------------------------------ defects


def other_attack(patch: pytest.MonkeyPatch, change: Callable) -> None:
    attack = attacks.fgsm
    patch.setattr(
        attacks, "fgsm", lambda model, images, labels, **options: attack(model, images, *change(labels, options)[:1],
                                                                         **change(labels, options)[1])
    )  # fmt: skip


def other_fit(patch: pytest.MonkeyPatch, **options: object) -> None:
    fit = protocol.fit_batch_indices
    patch.setattr(protocol, "fit_batch_indices", lambda *samples, **own: fit(*samples, **{**own, **options}))


def other_neighbour(patch: pytest.MonkeyPatch, step: int) -> None:
    fit = manifold.fit_radii
    patch.setattr(manifold, "fit_radii", lambda points, k: fit(points, k + step))


def kernel_unsquared(patch):
    other_fit(patch, kernel="unsquared")


def lambda_grid_shifted(patch):
    other_fit(patch, lambdas=[value / 10 for value in DEFAULT_GRID])


def clip_left_out(patch):
    other_attack(patch, lambda labels, options: (labels, {**options, "clip": None}))


def epsilon_doubled(patch):
    other_attack(patch, lambda labels, options: (labels, {**options, "epsilon": 2 * options["epsilon"]}))


def labels_shuffled(patch):
    other_attack(patch, lambda labels, options: (np.random.default_rng(0).permutation(labels), options))


def sides_swapped(patch):
    make = size_sweeps.attacked_pools

    def swapped(*arguments, **options):
        pools = make(*arguments, **options)
        sides = pools.suspects
        return dataclasses.replace(pools, suspects={**sides, "r1": sides["r2"], "r2": sides["r1"]})

    patch.setattr(size_sweeps, "attacked_pools", swapped)


def k_off_by_one(patch):
    other_neighbour(patch, 1)


def self_not_excluded(patch):
    other_neighbour(patch, -1)  # the nearest "neighbour" is the point itself


def density_without_k(patch):
    score = ReferenceManifold.subset_density_coverage

    def unscaled(self, *arguments):
        density, coverage = score(self, *arguments)
        return density * self.k, coverage

    patch.setattr(ReferenceManifold, "subset_density_coverage", unscaled)


def normalised_twice(patch):
    patch.setattr(vs22.Mode, "to_attack", functools.partialmethod(_normalised, vs22.Mode.to_attack))


def _normalised(self, to_attack, image_set, images):
    return to_attack(vs22.AS_PUBLISHED, image_set, images)


def p_without_one(patch):
    exact = base.p_values

    def biased(values, *arguments):
        p, each = exact(values, *arguments)
        draws = len(values) - 1
        return (p * (draws + 1) - 1) / draws, each

    patch.setattr(base, "p_values", biased)


def calibration_reused_as_batch(patch):
    draw = calibration.index_sets

    def overlapping(n, draws, size, rng):
        sets = draw(n, draws, size, rng)
        m = size - 500  # the calibration images come after the batch
        sets[:, :m] = sets[:, m : 2 * m]
        return sets

    patch.setattr(calibration, "index_sets", overlapping)


DEFECTS = {
    kernel_unsquared: sample_sizes_of_mnist,
    lambda_grid_shifted: sample_sizes_of_mnist,
    clip_left_out: sample_sizes_of_mnist,
    epsilon_doubled: sample_sizes_of_mnist,
    labels_shuffled: sample_sizes_of_mnist,
    sides_swapped: sample_sizes_of_mnist,
    k_off_by_one: fgsm_on_mnist,
    self_not_excluded: fgsm_on_mnist,
    density_without_k: fgsm_on_mnist,
    normalised_twice: fgsm_on_mnist,
    p_without_one: clean_batches_of_mnist,
    calibration_reused_as_batch: clean_batches_of_mnist,
}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda f: f.__name__)
def test_untouched_sections_stay_in_their_bands(section):
    assert caught(section) == []


@pytest.mark.parametrize("plant", DEFECTS, ids=lambda f: f.__name__)
def test_a_planted_defect_is_caught(plant, monkeypatch):
    plant(monkeypatch)
    assert caught(DEFECTS[plant])


if __name__ == "__main__":
    for plant, section in DEFECTS.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            found = caught(section)
        print(f"{plant.__name__} · {section.__name__} · {len(found)} fail, first: {(found or ['NOTHING'])[0]}")
