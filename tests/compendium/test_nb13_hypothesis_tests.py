"""The peers against brute force, SciPy and scikit-learn; levels and powers where the truth is known."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas
import pytest
from recorded import Recorder, criteria_of, says
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.linear_model import Ridge
from sklearn.model_selection import LeaveOneOut, cross_val_predict

from advlib.detectors import DensityTest, NearestBallTest, Scores
from compendium.nb13_hypothesis_tests import calibration, judge, peers, perturbations, power, tables


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def a_split(rng, n=400, channels=1):
    """Images of noise, and a split of them that asks no data set."""
    images = rng.random((3 * n, channels, 6, 6), dtype=np.float32)
    labels = rng.integers(0, 3, 3 * n)
    return perturbations.ImageSplit("mnist", "mnist-vs22", *np.split(images, 3), labels[2 * n :], labels[n : 2 * n])


def statistic(test, reference, batch):
    fitted = test.fit(reference)
    return fitted.statistics(fitted.measure(batch), np.arange(len(batch))[None])[0, 0]


@pytest.mark.parametrize("d", [1, 20])
def test_mmd_is_the_biased_estimate(rng, d):
    reference, batch = rng.normal(size=(60, d)), rng.normal(0.5, 1, size=(9, d))
    squared = cdist(reference, reference, "sqeuclidean")
    width = np.median(squared[np.triu_indices(60, 1)])
    kernel = [np.exp(-cdist(a, b, "sqeuclidean") / width).mean()
              for a, b in ((reference, reference), (batch, batch), (reference, batch))]  # fmt: skip
    assert statistic(peers.MMDTest(), reference, batch) == pytest.approx(
        kernel[0] + kernel[1] - 2 * kernel[2], abs=1e-10
    )


def test_energy_distance_is_scipys_in_one_dimension_and_brute_force_in_more(rng):
    reference, batch = rng.normal(size=(60, 1)), rng.normal(0.5, 1, size=(9, 1))
    scipys = stats.energy_distance(reference[:, 0], batch[:, 0]) ** 2
    assert statistic(peers.EnergyTest(), reference, batch) == pytest.approx(scipys, abs=1e-6)
    reference, batch = rng.normal(size=(60, 7)), rng.normal(0.5, 1, size=(9, 7))
    brute = 2 * cdist(reference, batch).mean() - cdist(reference, reference).mean() - cdist(batch, batch).mean()
    assert statistic(peers.EnergyTest(), reference, batch) == pytest.approx(brute, abs=1e-6)


def test_many_sets_at_once_equal_each_alone(rng):
    reference, pool = rng.normal(size=(60, 5)), rng.normal(size=(30, 5))
    few, many = np.array([[3, 1, 4], [1, 5, 9]]), np.stack([rng.permutation(30)[:8] for _ in range(200)])
    for test in (peers.MMDTest(), peers.EnergyTest()):
        fitted = test.fit(reference)
        scores = fitted.measure(pool)
        for rows in (few, many):
            alone = [statistic(test, reference, pool[batch]) for batch in rows]
            np.testing.assert_allclose(fitted.statistics(scores, rows)[:, 0], alone, atol=1e-9)


def test_classifier_predicts_as_scikit_learns_ridge_leaving_one_out(rng):
    features, target = rng.normal(size=(14, 30)), np.repeat([-1.0, 1.0], 7)
    ridge = Ridge(alpha=30, fit_intercept=False)
    theirs = cross_val_predict(ridge, features, target, cv=LeaveOneOut())
    np.testing.assert_allclose(peers.leave_one_out(features, target), theirs, atol=1e-9)


def test_classifier_tells_far_samples_and_not_equal_ones(rng):
    reference = rng.normal(size=(200, 4))
    assert statistic(peers.ClassifierTest(), reference, 5 + rng.normal(size=(20, 4))) > 0.95
    assert 0.2 < statistic(peers.ClassifierTest(), reference, rng.normal(size=(20, 4))) < 0.8


def test_power_table_gives_the_level_for_nothing_and_one_for_everything(rng):
    split = a_split(rng)
    nothing = perturbations.Perturbation("nothing", "control", None, split.clean)
    dark = perturbations.Perturbation("darkened", "attack", 0.1, split.clean * 0.3, success=0.5)
    table = power.power_table(
        split,
        {"density": DensityTest(features="pixels", check=False), "nearest": NearestBallTest(check=False),
         "MMD": peers.MMDTest(), "classifier": peers.ClassifierTest()},
        [dark, nothing],
        batch_sizes=[1, 30],
        shares=[0.1, 1.0],
        batches=200,
        slow_batches=40,
        rng=rng,
    )  # fmt: skip
    full = table[(table.m == 30) & (table.share == 1)].set_index(["test", "perturbation"]).power
    for test in ("density", "nearest", "MMD", "classifier"):
        assert full[test, "darkened"] == 1, test
        assert full[test, "nothing"] <= 0.2, test
    partial = table[table.share < 1]
    assert set(partial.m) == {30} and set(partial.test) == {"density", "nearest", "MMD", "classifier"}
    assert set(table[table.m == 1].test) == {"density", "nearest"}
    assert (table.ms >= 0).all() and (table.feature_ms >= 0).all()


def test_a_test_on_several_maps_is_asked_map_by_map(rng):
    """Its statistics are those of the whole on images, and a flag of it what either finds."""
    reference, calibration, clean = (rng.random((120, 1, 9, 9), dtype=np.float32) for _ in range(3))
    labels = np.zeros(120, dtype=np.int64)
    split = perturbations.ImageSplit("mnist", "mnist-vs22", reference, calibration, clean, labels, labels)
    whole = power.suite(split.network, 120)["advlib fit · four maps"]
    parts = power.by_map(whole)
    assert [seen for seen, _ in parts] == ["pixels", "residual", "texture", "multiscale"]
    rows = power.index_sets(120, 7, 10, rng)
    fitted = whole.fit(reference, calibration)
    together = [power._Part(split, *each) for each in parts]
    found = power._statistics(together, [part.clean for part in together], rows)
    expected = fitted.statistics(fitted.measure(clean), rows)
    assert found.shape == expected.shape == (7, 13)
    # Part by part: the mean of the scales comes right after their balls.
    np.testing.assert_allclose(np.sort(found, axis=1), np.sort(expected, axis=1), rtol=1e-9)


def test_several_columns_are_measured_in_the_spread_of_their_own_side(rng):
    """A skewed column, such as T², flags as many clean batches as others, and one that stands still flags none."""
    null = np.column_stack([rng.normal(size=4000), rng.exponential(size=4000) ** 2, np.ones(4000)])
    fresh = np.column_stack([rng.normal(size=4000), rng.exponential(size=4000) ** 2, np.ones(4000)])
    assert 0.03 < power._power(null, fresh, True) < 0.07
    for shift in ((-12, 0, 0), (0, 300, 0), (0, 0, 100)):
        assert power._power(null, fresh + np.array(shift), True) == 1


def test_partial_batches_hold_the_share_asked_for(rng):
    """The mean of a score that is 0 on clean and 1 on changed images is the share itself."""
    split = a_split(rng)

    seen = []

    class Marked(peers.Peer):
        def measure(self, vectors):
            return Scores((vectors[:, 0].astype(float),))

        def statistics(self, scores, rows):
            values = scores.parts[0][rows].mean(axis=1, keepdims=True)
            seen.append(float((values > 1).mean()) if rows.shape[1] == 1 else float(values.mean()))
            return values

    clean = replace(split, clean=split.clean * 0)
    changed = perturbations.Perturbation("FGSM", "attack", 0.1, clean.clean + 1)
    power.power_table(
        clean, {"marked": Marked()}, [changed], batch_sizes=[20], shares=[0.25, 0.5, 1], batches=9, rng=rng
    )
    assert seen == [0, 0.25, 0.5, 1]


def test_weighted_batches_hold_more_of_what_weighs(rng):
    weights = np.r_[np.full(10, 0.05), np.full(90, 0.5 / 90)]
    rows = power.index_sets(100, 4000, 6, rng, weights)
    assert rows.shape == (4000, 6) and all(len(set(row)) == 6 for row in rows[:50])
    assert 0.35 < np.mean(rows < 10) < 0.5
    with pytest.raises(ValueError, match="between 1 and the 5"):
        power.index_sets(5, 2, 6, rng)


def test_exact_tests_keep_their_level_and_a_wrong_one_is_found(rng):
    split = a_split(rng)
    table = calibration.calibration(
        split,
        {"density": DensityTest(draws=99, check=False)},
        batch_sizes=[1, 40],
        batches=1000,
        n_calibration=200,
        rng=rng,
    )
    assert len(table) == 4 and set(table.n) == {200}
    outside, cells, allowed = calibration.outside_band(table)
    assert cells == 4 and outside <= allowed < cells
    assert table.uniform_p.min() > 1e-4
    low, high = calibration.binomial_band(1000, 0.05)
    assert 0.03 < low < 0.036 and 0.065 < high < 0.071 and not low <= 0.1 <= high
    steps = rng.integers(1, 101, 2000) / 100
    assert calibration.uniformity(steps, 99, rng.random(len(steps))) > 1e-3
    assert calibration.uniformity(steps**1.3, 99, rng.random(len(steps))) < 1e-3


def test_batches_and_calibration_leave_room_for_each_other(rng):
    split = a_split(rng, n=60)
    table = calibration.calibration(
        split,
        {"density": DensityTest(draws=19, check=False)},
        batch_sizes=[50, 100],
        batches=50,
        n_calibration=500,
        rng=rng,
    )
    assert set(table.m) == {50} and set(table.n) == {70}


def test_one_calibration_set_has_luck_and_the_mean_is_the_level(rng):
    rates = calibration.one_calibration_set(
        a_split(rng), DensityTest(draws=99, check=False), batch_size=80, batches=60, sets=30, rng=rng
    )
    assert rates.mean() == pytest.approx(0.05, abs=0.04) and rates.max() > 0.07


def test_perturbations_round_to_grey_levels_and_another_data_set_fits(rng):
    images = rng.random((4, 1, 30, 26), dtype=np.float32)
    stored = perturbations.stored(images)
    assert np.abs(stored - images).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_allclose(stored * 255, np.round(stored * 255), atol=1e-4)
    cast = perturbations.resized(images, (3, 28, 28))
    assert cast.shape == (4, 3, 28, 28) and np.array_equal(cast[:, 0], cast[:, 2])
    assert np.array_equal(cast[:, 0, :, 1:27], images[:, 0, 1:29]) and np.array_equal(cast[..., 0], cast[..., 1])


@pytest.mark.data
def test_split_is_disjoint_and_perturbations_are_what_they_say():
    split = perturbations.split_images(
        "mnist", references=300, images=60, calibration=100, rng=np.random.default_rng(0)
    )
    assert len(split.reference) == 300 and len(split.calibration) == 100 and len(split.clean) == 60
    rows = {image.tobytes() for image in split.clean}
    assert not rows & {image.tobytes() for image in split.calibration}
    made = perturbations.perturb(split, epsilons=[0.05, 0.1], rng=np.random.default_rng(0))
    by_label = {change.label: change for change in made}
    assert set(by_label) == {"FGSM, ε = 0.05", "FGSM, ε = 0.1", "PGD, ε = 0.05", "PGD, ε = 0.1", "TGSM, ε = 0.1",
                             "random noise, ε = 0.05", "random noise, ε = 0.1", "shift by 1.5 pixels",
                             "rotation by 10°", "another data set", "half of one class", "nothing"}  # fmt: skip
    for label in ("FGSM, ε = 0.05", "PGD, ε = 0.05", "random noise, ε = 0.05"):
        change = np.abs(by_label[label].images - split.clean).max()
        assert 0.04 < change <= 0.05 + 0.5 / 255 + 1e-6, label
    weights, frequent = by_label["half of one class"].weights, np.bincount(split.labels).argmax()
    assert weights.sum() == pytest.approx(1) and weights[split.labels == frequent].sum() == pytest.approx(0.5)


def test_details_are_other_sizes_and_shares_of_one_attack():
    cells = [(1, 1.0, 0.1), (5, 1.0, 0.2), (25, 0.25, 0.3), (25, 1.0, 0.4)]
    rows = [
        {"dataset": "mnist", "test": "t", "perturbation": "FGSM", "size": size, "m": m, "share": share, "power": power}
        for size in (0.03, 0.05)
        for m, share, power in cells
        if size == 0.05 or share == 1
    ]
    found = tables.details(pandas.DataFrame(rows), "mnist", 25, ["t"], "FGSM")
    assert found.index.tolist() == [
        "FGSM, ε = 0.05: of 1 image", "FGSM, ε = 0.05: of 5 images", "FGSM, ε = 0.05: 25% of 25"
    ]  # fmt: skip
    assert found["t"].tolist() == [0.1, 0.2, 0.3]


def test_mismatches_are_found_and_class_imbalance_is_harmless_by_class(rng):
    n = 1200
    labels = rng.permutation(np.repeat([0, 0, 1, 2, 3, 4], n // 6))  # a third, and half in the tilted set
    images = rng.random((n, 1, 9, 9), dtype=np.float32)
    images[labels == 0] = 0.5 + (images[labels == 0] - 0.5) / 10  # amid the others: in many balls
    split = perturbations.ImageSplit("mnist", "mnist-vs22", images[:9], images, images[:9], labels[:9], labels)
    found = calibration.mismatches(split, rng=rng).set_index("calibration")
    assert found.p["drawn alike"] > 0.01 and found.p_by_class["drawn alike"] > 0.01
    assert found.p["half of one class"] <= 0.01 < found.p_by_class["half of one class"]
    assert found.loc["rotated by 10°"].max() <= 0.01


def test_unknown_names_are_refused(rng):
    with pytest.raises(ValueError, match="one of mnist"):
        perturbations.split_images("fashion", references=1, images=1, calibration=1, rng=rng)
    with pytest.raises(ValueError, match="density · pixels"):
        calibration.calibration_table(
            {"mnist": a_split(rng, 60)}, ["MMD · pixels"], batch_sizes=[1], batches=9, rng=rng
        )


def test_tables_are_read_by_name():
    table = pandas.DataFrame(
        [
            {"dataset": d, "test": t, "perturbation": c, "kind": k, "size": s, "success": 1.0, "m": 25, "share": 1.0,
             "power": p, "ms": 1.0, "feature_ms": 1.0}
            for d, t, c, k, s, p in (
                ("mnist", "density · pixels", "FGSM", "attack", 0.05, 0.1),
                ("mnist", "MMD · pixels", "FGSM", "attack", 0.05, 0.3),
                ("mnist", "MMD · pixels", "JSMA", "attack", np.nan, 0.4),
                ("mnist", "density · pixels", "JSMA", "attack", np.nan, 0.2),
                ("cifar10", "density · pixels", "FGSM", "attack", 0.05, 0.6),
                ("cifar10", "MMD · pixels", "FGSM", "attack", 0.05, 0.5),
            )
        ]
    )  # fmt: skip
    assert tables.at(table, "density · pixels", "FGSM", 0.05, 25).to_dict() == {"mnist": 0.1, "cifar10": 0.6}
    assert tables.at(table, "density · pixels", "FGSM", 0.05, 25).min() == 0.1
    assert tables.at(table, "MMD · pixels", "JSMA", None, 25).max() == 0.4
    wide = tables.pivot(table, "mnist", 25, ["MMD · pixels", "density · pixels"])
    assert wide.index.tolist() == ["FGSM, ε = 0.05", "JSMA"] and wide.loc["JSMA"].tolist() == [0.4, 0.2]


def test_power_by_references_keeps_the_level_and_sees_what_is_far_away(monkeypatch, rng):
    split = a_split(rng)
    n = len(split.clean)
    made = {"same": split.clean, "far": np.zeros_like(split.clean)}
    monkeypatch.setattr(power, "split_images", lambda *a, **k: split)
    monkeypatch.setattr(power.models, "load_trained", lambda name: None)
    table = {}
    for name, images in made.items():
        result = SimpleNamespace(images=images, success=np.zeros(n, bool), clean_correct=np.ones(n, bool))
        monkeypatch.setattr(power.attacks, "fgsm", lambda *a, result=result, **k: result)
        test = NearestBallTest(check=False, draws=99)
        table[name] = power.by_references("mnist", test, [50, 400, 1000], epsilon=0.1, rng=rng)
    # No more than all references can be used, and the table says so.
    assert table["same"].references.tolist() == [50, 400, 400]
    # The same images as those that set the threshold: half of the level at each end, rounded down, and ties.
    assert table["same"].power.between(0.03, 0.06).all()
    assert (table["far"].power == 1).all()


def powers(**changed):
    """Powers of density and coverage: 0.9 against every attack but where it is said otherwise."""
    rows = [
        {"dataset": dataset, "test": test, "perturbation": attack, "kind": "attack", "size": size, "m": m, "share": 1.0,
         "power": changed.get(f"{attack} {test[:3]}", 0.9) if m == largest else 0.1}
        for dataset in ("mnist", "organamnist")
        for test in ("density · pixels", "coverage · pixels")
        for attack, size, largest in (("FGSM", 0.03, 100), ("FGSM", 0.2, 100), ("JSMA", np.nan, 25))
        for m in (25, 100)
        if m <= largest
    ]  # fmt: skip
    blind = [row | {"dataset": "cifar10", "power": 0.0} for row in rows]
    return pandas.DataFrame(rows + blind + [row | {"test": "MMD · pixels", "power": 0.0} for row in rows])


def sentences(inside=(True, True), networks=(0.9, 0.85), **changed):
    seen = pandas.DataFrame({"dataset": "mnist", "network": ["a", "b"], "size": 0.1, "power": networks})
    found = judge.sentences(powers(**changed), pandas.DataFrame({"inside": list(inside)}), seen)
    assert set(found) == criteria_of("13_hypothesis_tests")
    return {row for row, statistics in found.items() if says(row, statistics) == "agrees"}


def test_sentences_follow_what_was_measured():
    everything = sentences()
    assert everything == criteria_of("13_hypothesis_tests")
    assert everything - sentences(**{"JSMA den": 0.7, "JSMA cov": 0.7}) == {"independent-of-attack"}
    assert everything - sentences(**{"JSMA den": 0.7}) == set()  # the better of the two
    assert everything - sentences(**{"FGSM cov": 0.7}) == {"detects-imperceptible"}  # both are asked for
    assert everything - sentences(inside=[False] * 3) == {"hypothesis-tests-would-help"}
    assert everything - sentences(networks=(0.9, 0.6)) == {"model-agnostic"}
    low = sentences(**{"FGSM den": 0.5, "FGSM cov": 0.5})
    assert everything - low == {"independent-of-attack", "detects-imperceptible", "hypothesis-tests-would-help"}


def test_what_was_not_measured_is_left_out():
    no_networks = pandas.DataFrame(columns=["dataset", "network", "size", "power"])
    table = powers()
    found = judge.sentences(table[table["size"] != 0.03], pandas.DataFrame({"inside": [True]}), no_networks)
    assert set(found) == {"independent-of-attack", "hypothesis-tests-would-help"}
    run = Recorder()
    judge.judge(run, table, pandas.DataFrame({"inside": [True]}), no_networks)
    assert run.says("independent-of-attack") == "agrees" and "model-agnostic" not in run.sentences()


def test_two_networks_are_attacked_and_their_batches_drawn_alike(monkeypatch, rng):
    split, asked = a_split(rng), []

    def attack(function, network, images, labels, epsilon):
        asked.append(network)
        return SimpleNamespace(images=images * (1 - epsilon))

    monkeypatch.setattr(power, "stored_attack", attack)
    found = power.by_network({"mnist": split, "bloodmnist": split}, [0.1, 0.9], batch_size=20, batches=39, rng=rng)
    assert set(asked) == {"mnist-vs22", "mnist-cleverhans"} and len(found) == 4
    assert found.groupby("size").power.nunique().eq(1).all()  # the same change, the same power
    assert (found[found["size"] == 0.9].power == 1).all()
