"""Images that an attack gives do not change unless its version is raised, by which stored images are found again.

Every versioned attack runs on a tiny network and a few images, and the result is compared with `versions.json`. Weights
and pixels are small multiples of powers of two, so that gradients are exact on every processor; that no choice hangs on
rounding is checked by networks whose weights differ by a millionth.

After raising an attack's version: `python tests/advlib/attacks/test_versions.py` writes the file anew. It refuses where
images changed under a version that stayed.
"""

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advlib import attacks, models
from advlib.attacks import AdversarialBatch

FILE = Path(__file__).with_name("versions.json")
UNIT = 4096  # images are kept in whole 1/4096, and may differ by one of them
SHAPE = (1, 4, 4)

CASES = {
    "fgsm": {"epsilon": 1 / 8},
    "fgsm_sweep": {"epsilons": [1 / 16, 1 / 4]},
    "tgsm": {"epsilon": 1 / 16, "steps": 3},
    "tgsm_sweep": {"epsilon": 1 / 32, "steps": [1, 4], "targets": 1, "ball": 1 / 16},
    "pgd": {"epsilon": 1 / 8, "steps": 5},
    "jsma": {"gamma": 0.5},
    "jsma_sweep": {"gammas": [0.2, 0.5], "theta": -0.25, "pairs": False},
    "boundary": {"steps": 20},
    "boundary_sweep": {"steps": [0, 10], "directions": 5},
}
DRAWING = ("pgd", "boundary", "boundary_sweep")


def tiny_network(disturbance: float = 0.0, seed: int = 0) -> nn.Module:
    rng, noise = np.random.default_rng(103), np.random.default_rng(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    for parameter in network.parameters():
        values = rng.integers(-31, 32, parameter.shape) / 32
        values = values * (1 + disturbance * noise.uniform(-1, 1, values.shape))
        parameter.data = torch.from_numpy(values.astype(np.float32))
    with torch.no_grad():  # a grey image has no class, so that noise is read as any of them
        network[3].bias.copy_(network[3].bias - network(torch.full((1, *SHAPE), 0.5))[0])
    return network


def crafted(name: str, network: nn.Module) -> list[list[int]]:
    """Images of an attack, one list a result, in whole 1/4096."""
    images = (np.random.default_rng(4).integers(0, 257, (5, *SHAPE)) / 256).astype(np.float32)
    labels = models.predict(network, images)
    rng = {"rng": np.random.default_rng(5)} if name in DRAWING else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # images without a start are said, and are part of what is kept
        result = getattr(attacks, name)(network, images, labels, **CASES[name], **rng)
    results = [result] if isinstance(result, AdversarialBatch) else list(result)
    return [np.rint(one.images.ravel().astype(float) * UNIT).astype(int).tolist() for one in results]


def agree(first: list[list[int]], second: list[list[int]]) -> bool:
    return np.shape(first) == np.shape(second) and int(np.abs(np.subtract(first, second)).max()) <= 1


def problem(name: str, version: int, images: list[list[int]], kept: dict[str, list[list[int]]]) -> str | None:
    """What is wrong with an attack's images or version, in words; None if nothing is."""
    if f"{name} {version}" not in kept:
        return f"no images of {name} version {version} are kept: run python {FILE.parent.name}/{Path(__file__).name}"
    if not agree(images, kept[f"{name} {version}"]):
        return f"{name} gives other images than before: raise its version, or stored ones stay in use"
    return None


def kept_images() -> dict[str, list[list[int]]]:
    return json.loads(FILE.read_text(encoding="utf-8"))["images"]


def test_every_versioned_attack_is_watched():
    assert set(CASES) == {name for name in attacks.__all__ if hasattr(getattr(attacks, name), "version")}
    assert len(kept_images()) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_images_change_only_with_the_version(name):
    assert problem(name, getattr(attacks, name).version, crafted(name, tiny_network()), kept_images()) is None


@pytest.mark.parametrize("name", CASES)
def test_kept_images_hang_on_no_rounding_and_are_no_clean_ones(name):
    kept = kept_images()[f"{name} {getattr(attacks, name).version}"]
    for seed in range(3):
        assert agree(crafted(name, tiny_network(1e-6, seed)), kept)
    clean = np.random.default_rng(4).integers(0, 257, (5, *SHAPE)).ravel() * (UNIT // 256)
    assert (np.abs(np.array(kept[-1]) - clean).reshape(5, -1).max(1) > 16).sum() >= 3


def test_changed_images_and_raised_versions_are_noticed():
    kept = kept_images()
    version, images = attacks.fgsm.version, crafted("fgsm", tiny_network())
    changed = [[images[0][0] + 2, *images[0][1:]]]
    assert "raise its version" in problem("fgsm", version, changed, kept)
    assert "raise its version" in problem("fgsm", version, images * 2, kept)
    assert "no images of fgsm version" in problem("fgsm", version + 1, images, kept)
    other = crafted("fgsm", tiny_network(0.5))
    assert "raise its version" in problem("fgsm", version, other, kept)


def write() -> None:
    before = kept_images() if FILE.exists() else {}
    now = {}
    for name in CASES:
        key, images = f"{name} {getattr(attacks, name).version}", crafted(name, tiny_network())
        if key in before and not agree(images, before[key]):
            sys.exit(problem(name, getattr(attacks, name).version, images, before))
        now[key] = before.get(key, images)
    about = f"Written by python tests/advlib/attacks/{Path(__file__).name}: images after each attack and version, " + (
        f"one list a result, in units of 1/{UNIT}."
    )
    entries = ",\n".join(f"  {json.dumps(key)}: {json.dumps(images)}" for key, images in now.items())
    FILE.write_text(f'{{\n "about": {json.dumps(about)},\n "images": {{\n{entries}\n }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    write()
