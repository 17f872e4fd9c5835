"""Aimed, or only changed: sizes of changes, levels of p-values, and a network that can be followed by hand."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf
from torch import nn

from advlib.detectors import AimTest, DensityTest, load
from advlib.detectors.aim import BETA, FAMILIES, Bank, around, bank, changes, rehearsal, score

RNG = np.random.default_rng(0)


def pictures(n=40, c=1, side=16, seed=0):
    """Smooth blobs with some texture: something that every family can change."""
    rng = np.random.default_rng(seed)
    coarse = changes.field(torch.zeros(n, c, side, side), rng, c, 5)
    fine = torch.from_numpy(rng.standard_normal((n, c, side, side)).astype(np.float32))
    return changes.rounded(0.5 + 0.18 * coarse + 0.06 * fine)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_change_is_as_large_as_asked_and_of_8_bits(family, channels):
    images = pictures(8, channels, 24)
    for size in (0.04, 0.07):
        moved = changes.make(images, family, size, np.random.default_rng(1))
        reached = (moved - images).square().flatten(1).mean(1).sqrt()
        assert reached.median().item() == pytest.approx(size, rel=0.15)
        assert torch.equal(moved, changes.rounded(moved)) and moved.min() >= 0 and moved.max() <= 1
        assert torch.equal(moved, changes.make(images, family, size, np.random.default_rng(1)))


def test_what_a_family_cannot_reach_is_as_large_as_it_can_be():
    images = pictures(6)
    most = changes.make(images, "blur", 5.0, np.random.default_rng(0))
    flat = torch.full_like(images, 0.5)
    assert (most - images).abs().max() > 0.1
    assert torch.equal(changes.make(flat, "blur", 0.1, np.random.default_rng(0)), changes.rounded(flat))
    with pytest.raises(ValueError, match="family must be one of"):
        changes.make(images, "hail", 0.1, RNG)


def test_jpeg_without_quantisation_changes_nothing_and_a_blur_keeps_the_mean():
    images = pictures(5, 3, 18)
    assert torch.allclose(changes.jpeg(images, torch.zeros(5)), images, atol=1e-4)
    circle = changes.blurred(images, torch.full((5,), 1e-3))
    assert torch.allclose(circle, images, atol=1e-4)
    still = torch.zeros(5, 18, 18)
    assert torch.allclose(changes.warped(images, still, still), images, atol=1e-5)


def test_batches_of_one_cell_are_flagged_as_often_as_the_level_says():
    """By the permutations' exactness; the other cells cannot raise it."""
    flags, singles = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores = torch.from_numpy(rng.standard_normal((2, 120)) + np.array([[0.0], [0.3]]))
        signatures = torch.from_numpy(rng.standard_normal((2, 120, 2)))
        known = Bank((("nothing", 0.0), ("blur", 0.1)), scores, signatures)
        mine, own = (
            torch.from_numpy(rng.standard_normal((20, 8)) + 0.3),
            torch.from_numpy(rng.standard_normal((20, 8, 2))),
        )
        flags.append(known.p_values(mine, own, 199, rng).p <= 0.05)
        singles.append(known.p_values(mine[:, :1], own[:, :1], 199, rng).p <= 0.05)
    for found in (flags, singles):
        assert np.mean(found) <= 0.05 + 2.6 * (0.05 * 0.95 / 1200) ** 0.5 * 2


def test_a_cell_that_the_batch_does_not_look_like_is_set_aside():
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.standard_normal((6, 100)) + np.array([[0.0]] * 5 + [[5.0]]))
    signatures = torch.from_numpy(rng.standard_normal((6, 100, 1)) + np.array([0.0] * 5 + [8.0])[:, None, None])
    known = Bank(tuple((f"change {k}", 0.1) for k in range(6)), scores, signatures)
    batch, looks = torch.full((1, 10), 2.0), torch.zeros(1, 10, 1)
    ranked = known.p_values(batch, looks, 199, rng)
    assert ranked.fits[0].tolist() == [True] * 5 + [False]
    assert ranked.p[0] <= 0.05 and ranked.each[0, 5] > 0.9
    far = known.p_values(batch, looks + 8, 199, rng)
    assert far.p[0] > 0.9 and far.among(known.of(("change 5",))).p[0] <= 0.05


def test_a_single_image_is_ranked_among_all():
    scores = torch.arange(19.0).double()[None]
    known = Bank((("nothing", 0.0),), scores, torch.zeros(1, 19, 1).double())
    found = known.p_values(torch.tensor([[30.0], [-1.0], [9.5]]), torch.zeros(3, 1, 1), 99, RNG)
    assert found.p.tolist() == pytest.approx([1 / 20 + BETA, 1.0, 10 / 20 + BETA])


def test_contradictions_are_those_of_brute_force(monkeypatch):
    """T² of the difference between batch and rest, in units of the spread within cells, among all permutations."""
    rng = np.random.default_rng(4)
    mixed = rng.standard_normal((4, 4))
    signatures = torch.from_numpy(rng.standard_normal((5, 40, 4)) @ mixed + np.arange(5)[:, None, None] / 3)
    known = Bank(tuple((f"change {k}", 0.1) for k in range(5)), torch.zeros(5, 40).double(), signatures)
    batch = torch.from_numpy(rng.standard_normal((1, 6, 4)) @ mixed)
    mine, theirs = bank._memberships(40, 6, 299, rng, torch.device("cpu"))
    monkeypatch.setattr(bank, "_memberships", lambda *_: (mine, theirs))
    ranked = known.p_values(torch.zeros(1, 6), batch, 299, rng)
    inside = (signatures - signatures.mean(1, keepdim=True)).flatten(0, 1).numpy()
    covariance = LedoitWolf(assume_centered=True).fit(inside / inside.std(0)).covariance_
    inverse = np.linalg.inv(covariance * np.outer(inside.std(0), inside.std(0)))
    chosen = np.vstack([np.eye(46)[:6].sum(0), torch.cat([mine, theirs], 1).numpy()]).astype(bool)
    for cell in range(5):
        rows = np.concatenate([batch[0], signatures[cell]])
        apart = np.stack([rows[one].mean(0) - rows[~one].mean(0) for one in chosen])
        square = np.einsum("bi,ij,bj->b", apart, inverse, apart)
        expected = (1 + (square[1:] >= square[0]).sum()) / 300 <= BETA
        assert ranked.contradicted[0, cell] == expected
        assert ranked.apart[0, cell] == pytest.approx(square[0], rel=1e-4)
    assert 0 < ranked.contradicted.sum() < 5


def test_the_true_cell_is_set_aside_as_seldom_as_promised():
    """Though its signatures have many and dependent columns, more than images."""
    rng = np.random.default_rng(1)
    mixed = rng.standard_normal((50, 50))
    wrong = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        signatures = torch.from_numpy(rng.standard_normal((6, 40, 50)) @ mixed)
        known = Bank(tuple((f"change {k}", 0.1) for k in range(6)), torch.zeros(6, 40).double(), signatures)
        batches = torch.from_numpy(rng.standard_normal((10, 12, 50)) @ mixed)
        wrong.append(known.p_values(torch.zeros(10, 12), batches, 199, rng).contradicted)
    most = stats.binom.ppf(0.999, 40, BETA)  # batches share their cells, and cells their batches: forty at least
    assert 0 < np.mean(wrong) <= most / 40


def test_memberships_have_the_batch_s_size():
    mine, theirs = bank._memberships(30, 7, 50, RNG, torch.device("cpu"))
    assert (mine.sum(1) + theirs.sum(1)).unique().tolist() == [7]


class Plain(nn.Module):
    """Reads whether the left half is brighter than the right, in three logits; what an attack does to it is known."""

    def __init__(self):
        super().__init__()
        weight = torch.zeros(3, 256)
        columns = torch.arange(256) % 16
        texture = torch.from_numpy(np.random.default_rng(3).choice([-1.0, 1.0], 256).astype(np.float32))
        weight[0] = torch.where(columns < 8, 1.0, -1.0) + 3 * texture
        weight[1] = -weight[0]
        self.linear = nn.Linear(256, 3)
        self.linear.weight.data, self.linear.bias.data = 0.3 * weight, torch.tensor([0.0, 0.0, -9.0])
        self.eval().requires_grad_(False)

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_looks_have_names_and_slopes():
    model, images = Plain(), pictures(3)
    for mirror in (True, False):
        looks = around.look(model, images, mirror=mirror, second=model)
        assert looks.shape == (3, len(around.names(3, mirror, True))) and looks.isfinite().all()
    x = images.clone().requires_grad_()
    around.look(model, x, mirror=False, differentiable=True).sum().backward()
    assert x.grad.abs().sum() > 0


def test_rehearsed_attacks_turn_answers_within_their_bounds():
    model, images = Plain(), pictures(30)
    found = rehearsal.rehearse(model, images, np.random.default_rng(0), mirror=False)
    assert set(found) == set(rehearsal.KINDS) and len(found["PGD"]) > 15
    assert all(len(moved) <= 30 for moved in found.values())
    moved = rehearsal.ascend(lambda x: x.mean((1, 2, 3)), images, torch.full((30, 1, 1, 1), 0.1), smooth=4)
    assert (moved - images).abs().max() <= 0.1 + 1e-6
    even = rehearsal.ascend(lambda x: x.mean((1, 2, 3)), images, torch.full((30, 1, 1, 1), 0.1), euclidean=True)
    assert (even - images).square().mean((1, 2, 3)).sqrt().max() <= 0.1 + 1e-6


def test_an_image_that_was_not_turned_is_attacked_once_more_with_the_largest_bound(monkeypatch):
    seen = []

    def attack(model, images, labels, epsilon, rng, mirror):
        seen.append((len(images), epsilon.unique().tolist()))
        toward = model.linear.weight[0].reshape(1, 16, 16)  # towards class 0, or away from it
        return (images + torch.where((labels == 0)[:, None, None, None], -1, 1) * epsilon * toward.sign()).clamp(0, 1)

    monkeypatch.setattr(rehearsal, "KINDS", {"straight": attack})
    monkeypatch.setattr(rehearsal, "SIZES", (1e-6, 0.3))
    found = rehearsal.rehearse(Plain(), pictures(40), np.random.default_rng(0), mirror=False)
    (first, drawn), (second, largest) = seen
    assert first == 40 and len(drawn) == 2 and 10 < second < 30 and largest == pytest.approx([0.3])
    assert len(found["straight"]) == 40


@pytest.fixture(scope="module")
def fitted():
    test = AimTest(Plain(), families=["white noise", "blur"], sizes=(0.02, 0.06), learned=80, calibrated=100, draws=199)
    return test.fit(pictures(80, seed=1).numpy(), pictures(100, seed=2).numpy())


def test_an_attack_is_aimed_and_noise_is_not(fitted):
    images = pictures(40, seed=4)
    labels = fitted.model_(images).argmax(1)
    loss = rehearsal.against(fitted.model_, labels, 1.0)
    attacked = changes.rounded(rehearsal.ascend(loss, images, torch.full((40, 1, 1, 1), 0.04)))
    turned = fitted.model_(attacked).argmax(1) != labels
    assert turned.float().mean() > 0.5
    assert fitted.test(attacked[turned].numpy()).reject()
    for family in ("white noise", "blur"):
        verdict = fitted.test(changes.make(images, family, 0.04, np.random.default_rng(5)).numpy())
        assert not verdict.reject() and 0 < len(verdict.fitting) <= 5
    clean = fitted.test(images.numpy())
    assert not clean.reject() and ("nothing", 0.0) in clean.fitting
    assert clean.sample_p_values.shape == clean.sample_scores.shape == (40,)
    assert "white noise, blur" in clean.assumed[0]


def test_wrong_input_is_named(fitted):
    with pytest.raises(ValueError, match="families must be"):
        AimTest(Plain(), families=["hail"]).fit(pictures(30).numpy())
    with pytest.raises(ValueError, match="sizes must be positive"):
        AimTest(Plain(), sizes=(0.0,)).fit(pictures(30).numpy())
    with pytest.raises(ValueError, match="images"):
        AimTest(Plain()).fit(np.zeros((30, 5), np.float32))
    with pytest.raises(ValueError, match="batch"):
        fitted.test(np.zeros((3, 1, 8, 8), np.float32))
    with pytest.raises(ValueError, match="name"):
        fitted.state({})


def test_it_is_saved_with_the_first_question(tmp_path):
    images = pictures(60, side=28).numpy()
    aim = AimTest("mnist-vs22-official", families=["blur"], sizes=(0.04,), learned=20, calibrated=20, draws=99)
    density = DensityTest(check=False).fit(images[:40], images[40:])
    density.aim_ = aim.fit(images[:40], images[40:])
    density.save(tmp_path / "detector.safetensors")
    again = load(tmp_path / "detector.safetensors").aim_
    assert again.bank_.cells == aim.bank_.cells and again.assumed() == aim.assumed()
    mine, its = aim.test(images[:10]), again.test(images[:10])
    assert mine.p_value == its.p_value and np.allclose(mine.sample_scores, its.sample_scores, atol=1e-5)
    older: dict[str, np.ndarray] = {}
    stated = aim.state(older)
    older["aim.signatures"] = older["aim.signatures"][:, : -2 * 20]
    with pytest.raises(ValueError, match="by another version: fit it again"):
        AimTest.restored(stated, older)


def test_a_score_tells_what_it_was_taught():
    rng = torch.Generator().manual_seed(0)
    aimed, aimless = torch.randn(200, 4, generator=rng) + 2, torch.randn(300, 4, generator=rng)
    weights = score.learn(aimed, aimless, 0)
    assert (score.score(weights, aimed) > 0).float().mean() > 0.95
    assert (score.score(weights, aimless) < 0).float().mean() > 0.9
    back = score.from_arrays(score.as_arrays(weights))
    assert torch.equal(score.score(back, aimed), score.score(weights, aimed))
    with pytest.raises(ValueError, match="by another version: fit it again"):
        score.from_arrays({name: array[:1] for name, array in score.as_arrays(weights).items()})


def test_a_score_is_the_mean_of_its_fits():
    rng = torch.Generator().manual_seed(0)
    aimed, aimless = torch.randn(60, 4, generator=rng) + 2, torch.randn(60, 4, generator=rng)
    weights = score.learn(aimed, aimless, 7)
    columns = []
    for k in range(score._FITS):
        x = ((aimed - weights["centre"]) / weights["spread"]).clamp(-6, 6)
        for layer in range(3):
            x = nn.functional.linear(x, weights[f"weight{layer}"][k], weights[f"bias{layer}"][k])
            x = nn.functional.silu(x) if layer < 2 else 6 * torch.tanh(x / 6)
        columns.append(x[:, 0])
    torch.testing.assert_close(score.score(weights, aimed), torch.stack(columns).mean(0))
    assert torch.stack(columns).std(0).max() > 0.01  # they are not the same fit
