import importlib
import itertools
import os
import signal
import subprocess
import sys
import textwrap
import warnings

import foolbox
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advlib import attacks, models, progress
from advlib.attacks.stored import stored_attack

boundary_module = importlib.import_module("advlib.attacks.boundary")  # the package's attribute is the attack
SHAPE = (1, 4, 4)
D = 16


class Plane(nn.Module):
    """Class 1 where w·(x − 1/2) > threshold, else 0: how far the nearest point of the other class is, is known."""

    def __init__(self, threshold=0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(D, generator=generator)
        self.register_buffer("weight", weight / weight.norm())
        self.threshold = threshold
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        margin = (images.flatten(1) - 0.5) @ self.weight - self.threshold
        return torch.stack([-margin, margin], 1)

    def distance(self, images):
        return np.abs((images.reshape(len(images), -1) - 0.5) @ self.weight.double().numpy() - self.threshold)


class Stubborn(Plane):
    """As the plane, but images whose first pixel is above 0.9 are always read as class 0, and noise seldom is."""

    def forward(self, images):
        logits = super().forward(images)
        logits[:, 0] += 1e3 * (images[:, 0, 0, 0] > 0.9)
        return logits


class Constant(nn.Module):
    """Always class 2."""

    def forward(self, images):
        return nn.functional.one_hot(torch.full((len(images),), 2), 3).float() + 0 * images.flatten(1)[:, :1]


def inner_images(n=20, seed=0):
    """Images well inside the range, so that the nearest point on the plane is an image too."""
    return np.random.default_rng(seed).uniform(0.3, 0.7, (n, *SHAPE)).astype(np.float32)


def read(model, images):
    return models.predict(model, images)


def run(model, images, labels, steps=300, seed=0, **options):
    return attacks.boundary(model, images, labels, steps, rng=np.random.default_rng(seed), **options)


def test_comes_as_near_as_the_nearest_point_of_the_other_class_and_never_nearer():
    model = Plane(threshold=0.02)
    images = inner_images()
    labels = read(model, images)
    assert len(set(labels.tolist())) == 2
    steps = [0, 300, 3000, 12000]
    sweep = attacks.boundary_sweep(model, images, labels, steps, rng=np.random.default_rng(0))
    truth = model.distance(images)
    for batch in sweep:
        assert batch.success.all() and batch.adversarial_accuracy == 0 and batch.clean_accuracy == 1
        assert (batch.l2 >= truth * (1 - 1e-5)).all()
        assert batch.images.min() >= 0 and batch.images.max() <= 1
    medians = [np.median(batch.l2 / truth) for batch in sweep]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > 2 and medians[-1] < 1.05


def test_is_foolboxs_attack_to_the_bit():
    model, images = Plane(), inner_images(12)
    labels = read(model, images)
    ours = attacks.boundary_sweep(model, images, labels, [0, 37, 400], rng=np.random.default_rng(5))
    # The same starts and the same seed of the walk, given to foolbox itself.
    walk_seed = np.random.default_rng(5).integers(2**63, size=2).tolist()[1]
    theirs = foolbox.PyTorchModel(model.eval(), bounds=(0, 1))
    for batch, steps in zip(ours[1:], (37, 400), strict=True):
        torch.manual_seed(walk_seed)
        raw, _, _ = foolbox.attacks.BoundaryAttack(steps=steps)(
            theirs, torch.from_numpy(images), torch.from_numpy(labels), epsilons=None,
            starting_points=torch.from_numpy(ours[0].images),
        )  # fmt: skip
        np.testing.assert_array_equal(batch.images, raw.clamp(0, 1).numpy())


def test_intermediate_states_are_those_of_shorter_runs():
    model, images = Plane(), inner_images(12)
    labels = read(model, images)
    steps = [0, 1, 9, 10, 11, 250]
    sweep = attacks.boundary_sweep(model, images, labels, steps, rng=np.random.default_rng(1), batch_size=5)
    for count, batch in zip(steps, sweep, strict=True):
        np.testing.assert_array_equal(batch.images, run(model, images, labels, count, seed=1, batch_size=5).images)


def test_a_walk_that_converges_before_its_last_step_gives_its_last_state_from_there_on(monkeypatch):
    class Impatient(boundary_module.BoundaryAttack):
        def __init__(self, **options):
            super().__init__(**options, source_step_convergance=1e9)

    monkeypatch.setattr(boundary_module, "BoundaryAttack", Impatient)
    model, images = Plane(), inner_images(5)
    labels = read(model, images)
    start, later, last = attacks.boundary_sweep(model, images, labels, [0, 5, 10], rng=np.random.default_rng(1))
    np.testing.assert_array_equal(later.images, start.images)
    np.testing.assert_array_equal(last.images, start.images)


def test_one_image_without_a_start_does_not_cost_the_batch():
    """foolbox's issue 541: it raises for all of them."""
    model = Stubborn(threshold=-2.0)  # noise is class 1 nearly always, and class 0 only by its first pixel
    images = inner_images(10)
    images[3, 0, 0, 0] = 0.95
    labels = read(model, images)
    assert labels[3] == 0 and (np.delete(labels, 3) == 1).all()
    # Here the others' start is what is rare: one noise image of ten has its first pixel above 0.9.
    with pytest.raises(ValueError, match="init_attack failed for"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        init = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=1, steps=50)
        torch.manual_seed(0)
        foolbox.attacks.BoundaryAttack(init, steps=5)(
            foolbox.PyTorchModel(model.eval(), bounds=(0, 1)), torch.from_numpy(images), torch.from_numpy(labels),
            epsilons=None,
        )  # fmt: skip
    with pytest.warns(UserWarning, match=r"no start was found for \d+ of 10 images in 2 random directions"):
        few = run(model, images, labels, 100, directions=2)
    missed = ~few.success
    assert 0 < missed.sum() < 10
    np.testing.assert_array_equal(few.images[missed], images[missed])
    assert (few.l2[missed] == 0).all() and (few.l2[few.success] > 0).all()
    assert few.adversarial_accuracy == missed.mean()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(model, images, labels, 100, directions=1000).success.all()


def test_a_network_that_always_says_the_same_gives_images_back_and_says_so():
    images = inner_images(4)
    with pytest.warns(UserWarning, match="no start was found for 4 of 4 images in 7 random directions"):
        result = run(Constant(), images, np.full(4, 2), directions=7)
    assert not result.success.any() and result.clean_accuracy == result.adversarial_accuracy == 1
    np.testing.assert_array_equal(result.images, images)


def test_images_misread_already_are_left_alone_and_are_no_adversarial_examples():
    model, images = Plane(), inner_images(10)
    labels = read(model, images)
    wrong = np.arange(10) % 3 == 0
    labels[wrong] = 1 - labels[wrong]
    result = run(model, images, labels)
    np.testing.assert_array_equal(result.images[wrong], images[wrong])
    np.testing.assert_array_equal(result.success, ~wrong)
    np.testing.assert_array_equal(result.clean_correct, ~wrong)
    assert result.clean_accuracy == pytest.approx(0.6) and result.adversarial_accuracy == 0
    # They do not even influence the others.
    np.testing.assert_array_equal(result.images[~wrong], run(model, images[~wrong], labels[~wrong]).images)
    all_wrong = run(model, images, 1 - read(model, images))
    assert not all_wrong.success.any() and all_wrong.l2.max() == 0


def test_same_seed_same_result_other_seed_another_and_global_generators_stay():
    model, images = Plane(), inner_images(6)
    labels = read(model, images)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    first = run(model, images, labels, seed=0)
    np.testing.assert_array_equal(torch.rand(3), expected)
    torch.manual_seed(99)
    np.testing.assert_array_equal(run(model, images, labels, seed=0).images, first.images)
    assert (run(model, images, labels, seed=1).images != first.images).any()


def test_batches_are_runs_of_their_own_with_directions_of_their_own():
    model = Plane()
    images = np.repeat(inner_images(1), 4, axis=0)
    labels = read(model, images)
    result = run(model, images, labels, 50, batch_size=2)
    moved = result.images.reshape(4, -1)
    assert all((moved[a] != moved[b]).any() for a, b in itertools.combinations(range(4), 2))


def test_queries_are_what_the_documentation_says():
    model, images = Plane(), inner_images(10)
    labels = read(model, images)
    counts = []
    for steps in (100, 1100):
        model.asked = 0
        run(model, images, labels, steps)
        counts.append(model.asked)
    assert counts[1] - counts[0] == 1.1 * 1000 * 10


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 7), low=st.floats(-2, 0.2), width=st.floats(0.9, 3))
def test_result_lies_in_the_range_and_is_never_further_than_the_start(seed, n, low, width):
    clip = (low, low + width)
    images = np.random.default_rng(seed).uniform(*clip, (n, *SHAPE)).astype(np.float32).clip(*np.float32(clip))
    model = Plane(threshold=float(low))
    labels = read(model, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start, end = attacks.boundary_sweep(
            model, images, labels, [0, 60], clip, rng=np.random.default_rng(seed), directions=3
        )
    for batch in (start, end):
        assert batch.images.min() >= np.float32(clip[0]) and batch.images.max() <= np.float32(clip[1])
    assert (end.l2 <= start.l2 * (1 + 1e-6)).all()
    np.testing.assert_array_equal(end.success, end.l2 > 0)


def test_images_outside_the_range_are_refused_unless_that_is_what_is_wanted():
    model = Plane()
    images = inner_images(6) * 4 - 1.5
    labels = read(model, images)
    with pytest.raises(ValueError, match=r"images must lie in \[0, 1\], but reach from -0\.\d+ to 1\.\d+"):
        run(model, images, labels)
    result = run(model, images, labels, 500, outside=True)
    assert result.success.all() and (result.l2 >= model.distance(images) * (1 - 1e-5)).all()


def test_published_use_of_foolbox_on_images_outside_the_bounds_is_replayed(monkeypatch):
    """foolbox before 3.3.3 did not check the bounds: the same result, with the check taken out."""
    model, images = Plane(), inner_images(6) * 4 - 1.5
    labels = read(model, images)
    start, end = attacks.boundary_sweep(model, images, labels, [0, 200], rng=np.random.default_rng(2), outside=True)
    monkeypatch.setattr(foolbox.attacks.boundary_attack, "verify_input_bounds", lambda *_: None)
    torch.manual_seed(np.random.default_rng(2).integers(2**63, size=2).tolist()[1])
    attack = foolbox.attacks.BoundaryAttack(steps=200)
    raw = attack.run(
        foolbox.PyTorchModel(model.eval(), bounds=(0, 1)), torch.from_numpy(images), torch.from_numpy(labels),
        starting_points=torch.from_numpy(start.images),
    )  # fmt: skip
    np.testing.assert_array_equal(end.images, raw.numpy())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": []}, "steps must hold at least one number, but is empty"),
        ({"steps": [10, 10]}, "steps must be at least 0 and, if several, increase"),
        ({"steps": [-1]}, "steps must be at least 0"),
        ({"clip": None}, r"clip must be a range \(low, high\)"),
        ({"clip": (1.0, 0.0)}, r"clip must be a range \(low, high\)"),
        ({"directions": 0}, "directions must be at least 1, but is 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, but is 0"),
        ({"labels": np.full(6, 2)}, "labels must be below the model's 2 classes, but reach 2"),
        ({"labels": np.zeros(5, dtype=int)}, "labels must be one an image"),
        ({"images": np.full((6, *SHAPE), np.nan, dtype=np.float32)}, "images must be finite"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = {"images": inner_images(6), "labels": np.zeros(6, dtype=int), "steps": [5], "clip": (0.0, 1.0)} | change
    with pytest.raises(ValueError, match=message):
        attacks.boundary_sweep(Plane(), **arguments, rng=np.random.default_rng(0))


def test_model_is_left_as_it_was_and_dropout_is_off():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(D, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    images = inner_images(5)
    labels = read(model, images)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first, second = (run(model, images, labels, 20) for _ in range(2))
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    np.testing.assert_array_equal(first.images, second.images)


def test_tensors_give_tensors():
    model, images = Plane(), inner_images(3)
    labels = read(model, images)
    result = run(model, torch.from_numpy(images), torch.from_numpy(labels), 20)
    assert isinstance(result.images, torch.Tensor)
    np.testing.assert_array_equal(result.images, run(model, images, labels, 20).images)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_runs_where_the_model_lives():
    model, images = Plane().cuda(), inner_images(6)
    labels = read(model, images)
    result = run(model, images, labels, 200)
    assert result.success.all() and isinstance(result.images, np.ndarray)


def test_progress_says_the_median_distance(tmp_path, monkeypatch):
    status = tmp_path / "status"
    seen = []
    monkeypatch.setenv(progress.STATUS_FILE, str(status))
    monkeypatch.setattr(progress.time, "monotonic", itertools.count().__next__)

    class Reporting(Plane):
        def forward(self, images):
            if status.exists():
                seen.append(status.read_text())
            return super().forward(images)

    model, images = Reporting(), inner_images(4)
    run(model, images, read(model, images), 30)
    told = [words for words in seen if words]
    assert told[0].startswith("boundary attack, 4 images, median L2 ") and told[-1].endswith("29/30")
    distances = [float(words.split()[6].rstrip(",")) for words in told]
    assert all(np.isfinite(distances)) and distances == sorted(distances, reverse=True)
    assert status.read_text() == ""


def test_a_killed_run_goes_on_with_the_chunk_that_it_was_at(tmp_path):
    """Chunks are kept as they finish: the second process computes the last chunk only, and gets the same."""
    script = textwrap.dedent("""
        import importlib, os, signal, sys
        import numpy as np
        from pathlib import Path
        from advlib import attacks
        from advlib.attacks.stored import stored_attack
        boundary = importlib.import_module("advlib.attacks.boundary")
        images = np.random.default_rng(0).random((6, 1, 28, 28), dtype=np.float32)
        from advlib import models
        labels = models.predict(models.load_trained("mnist-vs22"), images)
        runs, whole = [], boundary.walk
        def counted(*a, **k):
            runs.append(1)
            if len(runs) == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*a, **k)
        boundary.walk = counted
        sets = stored_attack(attacks.boundary_sweep, "mnist-vs22", images, labels, seed=3, chunk=2, steps=[0, 20],
                             directions=1, folder=Path(sys.argv[1]))
        np.save(sys.argv[3], np.stack([s.images for s in sets]))
        print("computed", len(runs))
    """)
    environment = {k: v for k, v in os.environ.items() if k != progress.STATUS_FILE}

    def start(folder, kill_at, out):
        arguments = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / folder), str(kill_at), str(out)]
        return subprocess.run(arguments, capture_output=True, text=True, env=environment)

    killed = start("a", 3, tmp_path / "killed.npy")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = start("a", 99, tmp_path / "resumed.npy")
    assert "computed 1\n" in resumed.stdout, resumed.stderr
    whole = start("b", 99, tmp_path / "whole.npy")
    assert "computed 3\n" in whole.stdout, whole.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "resumed.npy"), np.load(tmp_path / "whole.npy"))


def test_stored_sets_keep_all_states(tmp_path):
    images = np.random.default_rng(1).random((3, 1, 28, 28), dtype=np.float32)
    labels = np.array([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"seed": 0, "chunk": 2, "steps": [0, 5], "directions": 1, "folder": tmp_path}
        first = stored_attack(attacks.boundary_sweep, "mnist-vs22", images, labels, **options)
    again = stored_attack(attacks.boundary_sweep, "mnist-vs22", images, labels, **options)
    assert len(first) == len(again) == 2
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.images, b.images)
