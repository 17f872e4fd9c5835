"""VS22's experiments: splits by index, the published mode against foolbox itself, curves against brute force."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from torch import nn

from advlib import attacks, datasets, models
from advlib.prdc import ReferenceManifold, expected_coverage
from compendium.common import vs22

RNG = np.random.default_rng(0)
MEAN, STD = 0.1307, 0.3081
TOY = vs22.ImageSet("mnist", "toy", "mnist-vs22", (MEAN,), (STD,), 20, 10)


class Net(nn.Module):
    """Images (n, 1, 4, 4) → 3 logits, smooth, of adjustable confidence; normalises as the toy set's network does."""

    def __init__(self, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.normalize = models.Normalize((MEAN,), (STD,))
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
        self.gain = gain

    def forward(self, x):
        return self.gain * self.layers(self.normalize(x))


def pictures(n=12):
    images = RNG.random((n, 1, 4, 4), dtype=np.float32)
    images[:, :, :2] = 0  # a dark background, as digits have
    return images, RNG.integers(0, 3, n)


# ---------------------------------------------------------------- normalisation


@pytest.mark.parametrize("name", vs22.SETS)
def test_sets_are_normalised_by_their_training_parts_own_statistics(name):
    chosen = vs22.image_set(name)
    try:
        data = datasets.load(name)
    except datasets.DataUnavailable as missing:
        pytest.skip(str(missing))
    assert vs22.own_statistics(data.train_images) == (chosen.mean, chosen.std)


def test_a_channel_without_variation_is_refused():
    images = np.full((3, 3, 4, 4), 0.5, np.float32)
    images[:, :2] = RNG.random((3, 2, 4, 4))
    with pytest.raises(ValueError, match="must vary in every channel"):
        vs22.own_statistics(images)


def test_colours_are_normalised_channel_by_channel():
    chosen = vs22.image_set("bloodmnist")
    images = RNG.random((5, 3, 4, 4), dtype=np.float32)
    there = vs22.AS_PUBLISHED.to_attack(chosen, images)
    for c in range(3):
        np.testing.assert_allclose(there[:, c], (images[:, c] - chosen.mean[c]) / chosen.std[c], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vs22.AS_PUBLISHED.to_pixels(chosen, there), images, atol=1e-6)
    assert vs22.AS_PUBLISHED.pixel_size(chosen, 0.5) == 0.5 * max(chosen.std)
    assert chosen.kink == min(np.divide(chosen.mean, chosen.std))


# ---------------------------------------------------------------- splits


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A data set of 400 images whose first pixel is its number, with a hold-out of 20 that is stored by index."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "splits").mkdir()
    images = RNG.random((400, 1, 4, 4), dtype=np.float32)
    images[:, 0, 0, 0] = np.arange(400) / 400
    labels = np.arange(400) % 4
    held = RNG.permutation(400)[:20]
    np.save(folder / "splits" / "mnist.npy", held.astype(np.int32))
    data = datasets.Dataset(
        "mnist", "MNIST", images[:300], labels[:300], images[300:], labels[300:], ("a",) * 4, "", ""
    )
    return folder, data, images, held


def use(small_data, monkeypatch):
    folder, data, _, _ = small_data
    monkeypatch.setattr(vs22.datasets, "load", lambda name: data)
    monkeypatch.setattr(vs22.paths, "DATA", folder)


@pytest.mark.parametrize("name", ["mnist", "organamnist", "bloodmnist"])
def test_the_stored_split_is_the_one_that_the_network_was_trained_without(name):
    stored = np.load(vs22.paths.DATA / "splits" / f"{name}.npy", allow_pickle=False)
    split = models.card(vs22.SETS[name].network)["split"]
    assert len(stored) == split["holdout_size"] == len(set(stored.tolist()))
    assert hashlib.sha256(stored.astype("<i8").tobytes()).hexdigest() == split["holdout_index_sha256"]


@pytest.mark.parametrize("rng", [None, 0], ids=["even steps", "drawn"])
@pytest.mark.parametrize(("references", "queries"), [(0, 0), (7, 5), (380, 20), (None, 10)])
def test_reference_and_holdout_are_disjoint_and_what_their_index_says(
    small_data, monkeypatch, references, queries, rng
):
    use(small_data, monkeypatch)
    _, _, images, held = small_data
    split = vs22.reference_and_holdout("mnist", references, queries, None if rng is None else np.random.default_rng(0))
    assert len(split.images) == (queries or 20)
    assert len(split.reference) == {0: 380, None: 190}.get(references, references)
    assert set(split.index) <= set(held) and not set(split.reference_index) & set(held)
    np.testing.assert_array_equal(split.images, images[split.index])
    np.testing.assert_array_equal(split.reference, images[split.reference_index])
    np.testing.assert_array_equal(split.labels, split.index % 4)
    np.testing.assert_array_equal(split.reference_labels, split.reference_index % 4)


def test_more_images_than_there_are_are_refused_by_name(small_data, monkeypatch):
    use(small_data, monkeypatch)
    with pytest.raises(ValueError, match="queries must lie between 1 and 20"):
        vs22.reference_and_holdout("mnist", queries=21)
    with pytest.raises(ValueError, match="references must lie between 1 and 380"):
        vs22.reference_and_holdout("mnist", references=381)
    with pytest.raises(ValueError, match="name must be one of mnist"):
        vs22.reference_and_holdout("imagenet")


def test_a_stored_split_of_other_data_is_refused(small_data, monkeypatch):
    use(small_data, monkeypatch)
    with pytest.raises(ValueError, match="must point to the 9 pooled images"):
        vs22.holdout_index("mnist", 9, np.zeros(9, int))


def test_a_set_without_a_stored_split_is_split_as_the_paper_does(tmp_path, monkeypatch):
    monkeypatch.setattr(vs22.paths, "DATA", tmp_path)
    labels = np.arange(1000) % 9
    expected = datasets.stratified_holdout(labels, 0.05, seed=42)[1]
    np.testing.assert_array_equal(vs22.holdout_index("pathmnist", 1000, labels), expected)


def test_paper_sizes_and_their_ratio():
    assert vs22.references_for(vs22.SETS["mnist"], 2100, 67900, 2100) == 20000
    assert vs22.references_for(vs22.SETS["mnist"], 420, 67900, 2100) == 4000
    assert vs22.references_for(vs22.SETS["organamnist"], 4707, 54123, 4707) == 54123
    # A share of the queries keeps the coverage that exchangeable images would have.
    assert expected_coverage(4000, 420, 5) == pytest.approx(expected_coverage(20000, 2100, 5), abs=0.001)


# ---------------------------------------------------------------- modes


def test_as_published_is_what_foolbox_gives_the_authors_code():
    """Normalised images, bounds (0, 1), the network normalising again, the second of foolbox's results."""
    import foolbox

    images, labels = pictures()
    net = Net().eval()
    fmodel = foolbox.PyTorchModel(net, bounds=(0, 1))
    start = torch.from_numpy((images - MEAN) / np.float32(STD))
    epsilons = [0.0, 0.2, 0.42, 0.5, 1.0]
    # foolbox of that time did not check whether its inputs keep to the bounds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foolbox.attacks.gradient_descent_base.verify_input_bounds", lambda *_: None)
        patch.setattr("foolbox.attacks.base.verify_input_bounds", lambda *_: None)
        _, clipped, success = foolbox.attacks.FGSM()(fmodel, start, torch.from_numpy(labels), epsilons=epsilons)
    sweep = vs22.fgsm_sweep(vs22.AS_PUBLISHED, TOY, net, images, labels, epsilons)
    for ours, theirs, wrong in zip(sweep, clipped, success, strict=True):
        np.testing.assert_allclose(ours.images, theirs.numpy() * STD + MEAN, atol=1e-6)
        np.testing.assert_array_equal(ours.predictions != labels, wrong.numpy())


def test_corrected_is_plain_fgsm_where_the_softmax_is_not_saturated():
    images, labels = pictures()
    net, epsilons = Net(), [0.0, 0.1, 1.0]
    for ours, plain in zip(
        vs22.fgsm_sweep(vs22.CORRECTED, TOY, net, images, labels, epsilons),
        attacks.fgsm_sweep(net, images, labels, epsilons),
        strict=True,
    ):
        np.testing.assert_allclose(ours.images, plain.images, atol=1e-7)
        np.testing.assert_array_equal(ours.success, plain.success)
        np.testing.assert_allclose(ours.linf, plain.linf, atol=1e-6)


def test_nothing_moves_at_zero_and_everything_stays_in_its_range():
    images, labels = pictures()
    for mode in vs22.MODES:
        zero, one = vs22.fgsm_sweep(mode, TOY, Net(), images, labels, [0, 1])
        np.testing.assert_allclose(zero.images, images, atol=1e-6)
        assert zero.success.sum() == 0
        # As published a white pixel, far above the upper bound, only comes down by σ.
        low, high = (MEAN, 1 - STD) if mode.normalised_twice else (0, 1)
        assert one.images.min() >= low - 1e-6 and one.images.max() <= high + 1e-6


def test_as_published_lifts_the_background_whatever_the_gradient_says():
    images, labels = pictures()
    epsilon = 0.3  # below μ/σ = 0.42
    (batch,) = vs22.fgsm_sweep(vs22.AS_PUBLISHED, TOY, Net(), images, labels, [epsilon])
    np.testing.assert_allclose(batch.images[:, :, :2], epsilon * STD, atol=1e-6)


def test_there_and_back_and_sizes():
    images, _ = pictures()
    for mode in vs22.MODES:
        np.testing.assert_allclose(mode.to_pixels(TOY, mode.to_attack(TOY, images)), images, atol=1e-6)
    assert vs22.AS_PUBLISHED.pixel_size(TOY, 0.5) == pytest.approx(0.5 * 0.3081)
    assert vs22.CORRECTED.pixel_size(TOY, 0.5) == 0.5


def test_density_and_coverage_do_not_see_the_normalisation():
    images = RNG.random((90, 1, 4, 4), dtype=np.float32).astype(np.float64)
    reference, queries = images[:60], images[60:]
    pixels = ReferenceManifold(3).fit(vs22.flat(reference)).density_coverage(vs22.flat(queries))
    scaled = [(part - 0.1307) / 0.3081 for part in (reference, queries)]
    assert ReferenceManifold(3).fit(vs22.flat(scaled[0])).density_coverage(vs22.flat(scaled[1])) == pixels


@pytest.mark.parametrize("gain", [1.0, 200.0, 5000.0])
def test_margin_signs_are_those_of_the_exact_gradient(gain):
    """float64 has the digits that float32 loses; where even they end, the true class's part must still be there."""
    images, _ = pictures()
    net = Net(gain)
    labels = models.predict(net, images)  # read rightly, with a lead as large as `gain`
    signs = vs22.margin_signs(net, images, labels)
    exact = torch.from_numpy(images).double().requires_grad_()
    z = net.double()(exact)
    truth = torch.from_numpy(labels)[:, None]
    u = z.scatter(1, truth, -torch.inf).logsumexp(1) - z.gather(1, truth)[:, 0]
    (gradient,) = torch.autograd.grad(u.sum(), exact)
    clear = gradient.abs() > 1e-4 * gradient.abs().amax()
    np.testing.assert_array_equal(signs[clear.numpy()], gradient.sign().numpy()[clear.numpy()])
    if gain == 5000.0:
        net.float()
        assert (attacks.gradient_signs(net, images, labels) == 0).mean() > 0.5  # what it is for
        assert (signs == 0).mean() < 0.01


def test_impossible_sizes_and_images_are_refused():
    images, labels = pictures()
    for mode in vs22.MODES:
        with pytest.raises(ValueError, match=r"epsilons must lie in \[0, 1\], but has 1.1"):
            vs22.fgsm_sweep(mode, TOY, Net(), images, labels, [1.1]).__next__()
        with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], but reach"):
            next(vs22.fgsm_sweep(mode, TOY, Net(), images * 255, labels, [0.1]))


# ---------------------------------------------------------------- scores and curves


@given(st.integers(2, 60), st.integers(1, 60), st.integers(2, 50))
@settings(max_examples=60, deadline=None)
def test_sub_batches_are_disjoint_within_a_split(n, size, least):
    if size > n:
        with pytest.raises(ValueError, match="size must lie between 1"):
            vs22.sub_batches(n, size, np.random.default_rng(0), least)
        return
    batches = vs22.sub_batches(n, size, np.random.default_rng(0), least)
    each = n // size
    assert batches.shape[1] == size and len(batches) >= least and len(batches) % each == 0
    for split in batches.reshape(-1, each * size):
        assert len(set(split.tolist())) == each * size and split.min() >= 0 and split.max() < n


def test_sub_batches_need_two():
    with pytest.raises(ValueError, match="least must be at least 2"):
        vs22.sub_batches(10, 5, RNG, 1)


def brute(reference, queries, k):
    radii = np.sort(cdist(reference, reference), axis=1)[:, k]
    inside = cdist(queries, reference) < radii
    return inside.sum() / (k * len(queries)), inside.any(0).mean()


def test_a_curve_equals_brute_force():
    reference, clean = RNG.random((80, 1, 3, 3)), RNG.random((40, 1, 3, 3))
    moved = [clean + shift for shift in (0.0, 0.1, 0.6)]
    manifold = ReferenceManifold(4).fit(vs22.flat(reference))
    batches = vs22.sub_batches(40, 10, RNG)
    curve = vs22.density_coverage_curve(manifold, clean, iter(moved), [0, 0.1, 0.6], batches, title="toy")
    for queries, found in zip([clean, *moved], [curve.clean, *curve.scores], strict=True):
        assert (found.density, found.coverage) == pytest.approx(brute(vs22.flat(reference), vs22.flat(queries), 4))
        parts = np.array([brute(vs22.flat(reference), vs22.flat(queries[rows]), 4) for rows in batches])
        np.testing.assert_allclose(found.batch_density, parts[:, 0])
        np.testing.assert_allclose(found.batch_coverage, parts[:, 1])
        np.testing.assert_allclose(found.density_quantiles, np.quantile(parts[:, 0], [0.25, 0.5, 0.75]))
    assert curve.n_reference == 80 and curve.n_queries == 40 and curve.batch_size == 10 and curve.k == 4
    assert curve.density_quantiles.shape == curve.coverage_quantiles.shape == (3, 3)
    assert np.isnan(curve.accuracy).all()
    assert curve.expected_coverage == expected_coverage(80, 40, 4)
    assert curve.expected_batch_coverage == expected_coverage(80, 10, 4)
    area, power = curve.decisions("density")
    assert area[0] == 0.5 and power[0] <= 0.05 and area[2] == power[2] == 1


def test_a_decision_is_two_sided():
    """Density far above the clean one's is as suspect as far below."""

    def of(values):
        return vs22.Score(0, 0, np.array(values, float), np.zeros(len(values)), 0)

    clean = of(np.linspace(0.9, 1.1, 21))
    curve = vs22.Curve("", np.arange(3.0), clean, (of([2.0] * 4), of([0.1] * 4), of([1.0] * 4)), 10, 10, 2, 5)
    area, power = curve.decisions("density")
    np.testing.assert_array_equal(power, [1, 1, 0])
    assert area[0] == area[1] == 1 and area[2] < 0.1


def test_density_error_is_the_standard_error_of_the_ball_counts():
    reference, clean = RNG.random((60, 5)), RNG.random((30, 5))
    manifold = ReferenceManifold(3).fit(reference)
    found = vs22.score(manifold, clean, [[0, 1]])
    counts = manifold.ball_counts(clean) / 3
    assert found.density_error == pytest.approx(counts.std(ddof=1) / np.sqrt(30))
    assert vs22.score(manifold, clean[:1], [[0]]).density_error == 0


def test_accuracy_and_success_come_from_the_batch():
    images, labels = pictures()
    manifold = ReferenceManifold(2).fit(vs22.flat(RNG.random((30, 1, 4, 4))))
    (batch,) = vs22.fgsm_sweep(vs22.CORRECTED, TOY, Net(), images, labels, [0.5])
    found = vs22.score(manifold, batch, [[0, 1]])
    assert found.accuracy == batch.adversarial_accuracy
    assert found.success == np.mean(batch.success)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_sets_as_values(count):
    reference = RNG.random((30, 4))
    manifold = ReferenceManifold(2).fit(reference)
    with pytest.raises(ValueError, match="one query set for each of the 2 entries"):
        vs22.density_coverage_curve(manifold, reference, [reference] * count, [0, 1], [[0, 1]])


def test_noise_is_one_toss_for_all_sizes():
    images, _ = pictures()
    one, two = vs22.noise_sweep(images, [0.1, 0.2], np.random.default_rng(0))
    inside = (images > 0.2) & (images < 0.8)
    np.testing.assert_allclose((two - images)[inside], 2 * (one - images)[inside], atol=1e-6)
    np.testing.assert_allclose(np.abs(one - images)[inside], 0.1, atol=1e-6)
    assert two.min() >= 0 and two.max() <= 1


def test_a_file_of_the_readers_own_takes_the_third_place(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    file = tmp_path / "spots.npz"
    labels = np.arange(80) % 2
    images = (rng.integers(0, 90, (80, 28, 28, 3)) + 120 * labels[:, None, None, None]).astype(np.uint8)
    np.savez(file, images=images, labels=labels)
    monkeypatch.setattr(vs22.paths, "CACHE", tmp_path)
    monkeypatch.setitem(vs22.training.RECIPES, "bloodmnist-vs22", vs22.training.Recipe(epochs=1, max_lr=1e-3))
    registries = (vs22.datasets.OWN, vs22.models.SPECS, vs22.training.RECIPES, vs22.SETS)
    before = [dict(registry) for registry in registries]
    try:
        sets, sentence = vs22.image_sets(file)
        own = sets[2]
        assert own.title == "spots" and not own.in_paper and sentence.startswith("spots is used in place of PathMNIST")
        split = vs22.reference_and_holdout(own.name, 0)
        assert (len(split.reference), len(split.images)) == (56, 24)  # 30 % held out, as 400 images are not there
        split = vs22.reference_and_holdout(own.name, 6000, 300, rng)  # more than there are
        assert (len(split.reference), len(split.images)) == (56, 24)
        assert models.card(own.network)["split"]["holdout_size"] == 24
        (batch,) = vs22.fgsm_sweep(vs22.CORRECTED, own, vs22.network(own), split.images, split.labels, [0.1])
        assert batch.linf.max() <= 0.1 + 1e-6
        monkeypatch.setattr(vs22.training, "train", lambda name: pytest.fail("trained twice on the same file"))
        assert vs22.image_sets(file)[0][2] == own
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)


def test_a_file_with_images_of_another_size_is_refused(tmp_path):
    np.savez(tmp_path / "large.npz", images=np.zeros((9, 32, 32), np.uint8), labels=np.arange(9) % 2)
    with pytest.raises(ValueError, match="28 × 28 pixels, as the paper's network reads, but has 32 × 32"):
        vs22.image_sets(tmp_path / "large.npz")


def test_the_colour_set_goes_by_its_own_name(monkeypatch):
    class Found:
        name = "bloodmnist"

    monkeypatch.setattr(vs22.datasets, "rgb_medical", lambda: (Found, "BloodMNIST is used"))
    sets, sentence = vs22.image_sets()
    assert [s.title for s in sets] == ["MNIST", "OrganMNIST", "BloodMNIST"] and sentence
    assert [s.in_paper for s in sets] == [True, True, False]
    Found.name = "pathmnist"
    assert vs22.image_sets()[0][2].title == "PathMNIST"
