"""VS22's two modes: the published one against foolbox itself, the corrected one against plain FGSM."""

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks, models
from advlib.prdc import ReferenceManifold
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


def test_colours_are_normalised_channel_by_channel():
    chosen = vs22.image_set("bloodmnist")
    images = RNG.random((5, 3, 4, 4), dtype=np.float32)
    there = vs22.AS_PUBLISHED.to_attack(chosen, images)
    for c in range(3):
        np.testing.assert_allclose(there[:, c], (images[:, c] - chosen.mean[c]) / chosen.std[c], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vs22.AS_PUBLISHED.to_pixels(chosen, there), images, atol=1e-6)
    assert vs22.AS_PUBLISHED.pixel_size(chosen, 0.5) == 0.5 * max(chosen.std)
    assert chosen.kink == min(np.divide(chosen.mean, chosen.std))


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


def test_noise_is_one_toss_for_all_sizes():
    images, _ = pictures()
    one, two = vs22.noise_sweep(images, [0.1, 0.2], np.random.default_rng(0))
    inside = (images > 0.2) & (images < 0.8)
    np.testing.assert_allclose((two - images)[inside], 2 * (one - images)[inside], atol=1e-6)
    np.testing.assert_allclose(np.abs(one - images)[inside], 0.1, atol=1e-6)
    assert two.min() >= 0 and two.max() <= 1


def test_accuracy_and_success_come_from_the_batch():
    images, labels = pictures()
    manifold = ReferenceManifold(2).fit(vs22.flat(RNG.random((30, 1, 4, 4))))
    (batch,) = vs22.fgsm_sweep(vs22.CORRECTED, TOY, Net(), images, labels, [0.5])
    found = vs22.score(manifold, batch, [[0, 1]])
    assert found.accuracy == batch.adversarial_accuracy
    assert found.success == np.mean(batch.success)
