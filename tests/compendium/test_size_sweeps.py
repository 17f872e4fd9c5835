"""G17's sweeps over the sample size: fits against single ones, draws shared, records and tables as defined."""

import numpy as np
import pytest
from size_results import MODES, apart, result, together, use_toy_images

from advlib.ulsif import ULSIF
from compendium.claims import record
from compendium.common import g17, size_sweeps

ROWS = [row for rows in size_sweeps.ROWS.values() for row in rows]

pytestmark = pytest.mark.filterwarnings("ignore::advlib.ulsif.GridEdgeWarning")


@pytest.fixture
def toy(monkeypatch):
    use_toy_images(monkeypatch)


# ---------------------------------------------------------------------------------------------- sweeps


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("numerator_size", [None, 12])
def test_each_draw_is_algorithm_1_written_out(toy, mode, numerator_size):
    sizes = [8, 3]
    found = size_sweeps.size_sweep(
        mode, sizes, epsilon=0.2, images=40, draws=3, rng=np.random.default_rng(4), numerator_size=numerator_size,
        image_sets=["mnist"],
    )  # fmt: skip
    assert [(r.row, r.mode, r.size) for r in found] == [("MNIST", mode.name, 8), ("MNIST", mode.name, 3)]
    again = np.random.default_rng(4)
    pools = size_sweeps.attacked_pools(mode, "mnist", 0.2, 40, again)
    a = np.stack([again.choice(60, numerator_size or 8, replace=False) for _ in range(3)])
    b = np.stack([again.choice(40, 8, replace=False) for _ in range(3)])
    for r in found:
        for t in range(3):
            x = pools.clean[a[t] if numerator_size else a[t, : r.size], 0]
            for side, pool in pools.suspects.items():
                fit = ULSIF(kernel=mode.kernel).fit(x, pool[b[t, : r.size], 0])
                assert getattr(r, side)[t] == pytest.approx(np.mean(fit.predict(x)), rel=1e-9)
                assert r.settings[side][t] == pytest.approx([fit.sigma_, fit.lambda_])
                # Without its own kernel each point keeps the other centres' part.
                others = [fit.theta_ @ (phi * (np.arange(len(x)) != i)) for i, phi in enumerate(kernels(x, fit, mode))]
                assert getattr(r, side)[t] - r.own[side][t] == pytest.approx(np.mean(others), rel=1e-8, abs=1e-12)


def kernels(x, fit, mode):
    distance = np.linalg.norm(x[:, None].astype(float) - x[None], axis=2)
    return np.exp(-(distance ** (2 if mode.kernel == "gaussian" else 1)) / (2 * fit.sigma_**2))


def test_attack_and_noise_are_of_the_same_size_and_clipped_only_when_corrected(toy):
    for mode in g17.MODES:
        pools = size_sweeps.attacked_pools(mode, "cifar10", 0.3, 20, np.random.default_rng(0))
        adversarial, real, noise = pools.suspects.values()
        assert pools.clean.shape == (60, 3, 36) and real.shape == adversarial.shape == (20, 3, 36)
        for pool in (adversarial, noise):
            assert np.abs(pool - real).max() == pytest.approx(0.3, abs=1e-6)
            inside = (pool >= 0).all() and (pool <= 1).all()
            assert inside == (mode is g17.CORRECTED)
        assert pools.outside_share == (0.0 if mode is g17.CORRECTED else 1.0)
        assert 0 <= pools.accuracies[1] <= pools.accuracies[0] <= 1


def test_channels_come_with_their_mean(toy):
    found = size_sweeps.size_sweep(
        g17.CORRECTED, [6, 4], epsilon=0.1, images=0, draws=3, rng=np.random.default_rng(0), image_sets=["cifar10"]
    )
    assert [(r.row, r.size) for r in found] == [
        (row, size) for row in ("CIFAR-10 (red)", "CIFAR-10 (green)", "CIFAR-10 (blue)", "CIFAR-10 (combined)")
        for size in (6, 4)
    ]  # fmt: skip
    channels = [r for r in found if r.size == 4]
    np.testing.assert_allclose(channels[3].r1, np.mean([r.r1 for r in channels[:3]], axis=0))
    np.testing.assert_allclose(channels[3].own["noise"], np.mean([r.own["noise"] for r in channels[:3]], axis=0))
    assert not channels[3].settings


def test_one_suspect_is_given_twice(toy):
    (found,) = size_sweeps.size_sweep(
        g17.AS_PUBLISHED, [1], epsilon=0.3, images=0, draws=3, rng=np.random.default_rng(1), numerator_size=15,
        image_sets=["mnist"],
    )  # fmt: skip
    again = np.random.default_rng(1)
    pools = size_sweeps.attacked_pools(g17.AS_PUBLISHED, "mnist", 0.3, 0, again)
    a = np.stack([again.choice(60, 15, replace=False) for _ in range(3)])
    b = np.stack([again.choice(60, 1, replace=False) for _ in range(3)])
    for t in range(3):
        x, y = pools.clean[a[t], 0], pools.suspects["r2"][b[t, [0, 0]], 0]
        assert found.size == 1
        assert found.r2[t] == pytest.approx(ULSIF(kernel="unsquared").fit(x, y).mean_ratio_, rel=1e-9)


@pytest.mark.parametrize(
    ("sizes", "extra", "word"),
    [([], {}, "sizes"), ([5, 0], {}, "sizes"), ([61], {}, "size"), ([5], {"numerator_size": 61}, "numerator_size"),
     ([5], {"draws": 1}, "draws")],
)  # fmt: skip
def test_impossible_sweeps_are_named(toy, sizes, extra, word):
    arguments = {"epsilon": 0.1, "images": 0, "draws": 2, "rng": np.random.default_rng(0), "image_sets": ["mnist"]}
    with pytest.raises(ValueError, match=word):
        size_sweeps.size_sweep(g17.CORRECTED, sizes, **{**arguments, **extra})


def test_same_generator_same_numbers_and_smaller_sizes_share_the_draws(toy):
    def run(sizes):
        return size_sweeps.size_sweep(
            g17.CORRECTED, sizes, epsilon=0.1, images=0, draws=2, rng=np.random.default_rng(3), image_sets=["mnist"]
        )

    first, second = run([9, 5]), run([9, 5])
    np.testing.assert_array_equal(first[1].r1, second[1].r1)
    # The largest size rules the draws, so a size in between changes nothing.
    np.testing.assert_array_equal(run([9, 7, 5])[2].r2, first[1].r2)


def test_welch():
    differs = result(*apart())
    assert differs.p_value < 1e-20 and result(*together()).p_value == pytest.approx(1)
    pairs = np.array([[1, 0.1], [1, 0.1], [1, 0.01], [1, 0.01]])
    assert size_sweeps.most_frequent(pairs) == (1.0, 0.01) and size_sweeps.most_frequent(pairs[:3]) == (1.0, 0.1)


def test_a_sweep_is_recorded_from_the_largest_size_down():
    run = record.start("99_test", profile="quick", seed=0)
    size_sweeps.record_sweep(run, [result([3, 3], [1, 1], size=5), result([2, 2], [1, 1], size=50)], "sweep")
    assert run.metrics["sweep.as published.MNIST.r1"] == [2, 3]
    assert run.metrics["sweep.as published.MNIST.attack.auroc"] == [1, 1]
    assert run.metrics["sweep.as published.MNIST.accuracy"] == [0.99, 0.1, 0.6]


def test_accuracies_are_said_once_each():
    rows = [result([2, 2], [1, 1], row=row, size=n) for row in ROWS for n in (9, 5)]
    assert size_sweeps.accuracy_lines(rows) == [
        f"{name}, as published: accuracy 0.99, under FGSM 0.10, under noise 0.60" for name in ("MNIST", "CIFAR-10")
    ]


def test_frames_have_a_line_for_each_result_and_draw():
    results = [result(*apart(), mode=mode, size=n) for mode in MODES for n in (20, 10)]
    ends = size_sweeps.ends_frame(results)
    assert list(ends.index) == [(mode, "MNIST") for mode in MODES]
    assert list(ends.columns[:2]) == ["AUROC, 20 images", "power, 20 images"] and set(ends.to_numpy().flat) == {"1.00"}
    draws = size_sweeps.draws_frame(results)
    assert len(draws) == 4 * 3 * 40 and (draws["ratio"] == draws["ratio without own kernels"]).all()
