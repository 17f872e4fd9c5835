"""The wheel, installed apart from the repository and without any extra: what works, and what says why it does not."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = {
    "IPython", "cleverhans", "eagerpy", "faiss", "foolbox", "hypothesis", "jinja2", "jupyterlab", "medmnist",
    "nbconvert", "nbformat", "pandas", "papermill", "pymde", "pytest", "seaborn", "torchvision", "yaml",
}  # fmt: skip
"""Imports of the extras, refused in any case (jinja2 comes with torch, but is not for us)."""

BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


def dependencies(*names: str) -> set[str]:
    """Return these distributions and all that they need here, extras left out, by their normalised names."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [item.name for item in needed if item.marker is None or item.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build from a copy: setuptools leaves its traces where it works, and would take up old ones."""
    source = tmp_path_factory.mktemp("source") / "advlib"
    source.mkdir()
    for name in ("advlib", "compendium"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", "dist", "."]
    made = subprocess.run(build, cwd=source, capture_output=True, text=True)
    wheels = list((source / "dist").glob("*.whl"))
    if made.returncode or len(wheels) != 1:
        pytest.skip(f"pip cannot build a wheel here: {(made.stderr or made.stdout).strip()[-500:]}")
    return wheels[0]


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """Install the wheel into a folder of its own, beside a `sitecustomize` that refuses all that is no dependency."""
    target = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", target, wheel]
    subprocess.run(install, check=True)
    (metadata,) = importlib.metadata.distributions(name="advlib", path=[str(target)])
    needed = [Requirement(line) for line in metadata.requires]
    core = dependencies(*(item.name for item in needed if item.marker is None)) | {"advlib"}
    owners = {
        module: {re.sub(r"[-_.]+", "-", name).lower() for name in names}
        for module, names in importlib.metadata.packages_distributions().items()
    }
    refused = EXTRAS | {module for module, names in owners.items() if module.isidentifier() and not core & names}
    refused -= {"setuptools", "pip", "advlib", "compendium"}
    assert not {"torch", "numpy", "typer", "joblib", "sympy"} & refused
    (target / "sitecustomize.py").write_text(BLOCKER.format(refused=refused))
    return target


@pytest.fixture
def advlib(installed, tmp_path, monkeypatch):
    """Run `python -m advlib` in an empty folder outside the repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ADVLIB_", "PYTHON", "COV"))}
    environment = kept | {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, module: str = "advlib") -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)

    return run


def pictures(folder: Path, n: int, seed: int, noise: int = 0) -> None:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for number in range(n):
        image = np.kron(rng.integers(0, 256, (3, 3)), np.ones((4, 4))) + noise * rng.choice([-1, 1], (12, 12))
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / f"{number}.png")


def test_what_the_wheel_holds(wheel):
    import advlib

    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "advlib/py.typed",
        "advlib/cli/detection.py",
        "compendium/cli.py",
        "compendium/site/templates/base.html.j2",
    } <= {*names}
    assert {name.partition("/")[0] for name in names} == {
        "advlib",
        "compendium",
        f"advlib-{advlib.__version__}.dist-info",
    }
    text = zipfile.ZipFile(wheel).read(f"advlib-{advlib.__version__}.dist-info/METADATA").decode()
    head, _, description = text.partition("\n\n")
    assert f"\nVersion: {advlib.__version__}\n" in head and "\nProvides-Extra: attacks\n" in head
    assert description.startswith("# advlib\n") and len(description.splitlines()) <= 60


def test_fit_and_detect_need_no_repository_and_no_extra(advlib, tmp_path):
    pictures(tmp_path / "clean", 200, 0)
    pictures(tmp_path / "good", 20, 4)
    pictures(tmp_path / "bad", 20, 2, noise=60)
    fitted = advlib("fit", "clean", "-o", "d.safetensors", "--json")
    assert (fitted.returncode, fitted.stderr) == (0, "")
    stated = json.loads(fitted.stdout)
    assert stated["n_reference"] == 160 and stated["n_calibration"] == 40 and stated["sample_shape"] == [1, 12, 12]
    good, bad = (advlib("detect", "d.safetensors", name, "--json", "--alpha", "0.01") for name in ("good", "bad"))
    assert (good.returncode, good.stderr, bad.returncode, bad.stderr) == (0, "", 1, "")
    assert not json.loads(good.stdout)["flagged"] and json.loads(bad.stdout)["flagged"]
    drawn = advlib("detect", "d.safetensors", "bad")
    assert drawn.returncode == 1 and drawn.stdout.startswith("FLAGGED") and (tmp_path / "bad-verdict.png").is_file()


@pytest.mark.parametrize("command", ["run", "report"])
def test_what_needs_the_repository_says_so_in_one_sentence(advlib, command):
    found = advlib(command)
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    assert "this command needs the repository" in found.stderr


def test_doctor_and_data_do_without_the_repository_too(advlib, tmp_path):
    found = advlib("doctor")
    assert found.returncode == 0 and "networks: none" in found.stdout and "Traceback" not in found.stderr
    assert advlib("data").returncode == 0 and not any(tmp_path.iterdir())


def test_a_missing_extra_is_named(advlib):
    found = advlib("fgsm", module="advlib.attacks")
    assert found.returncode == 1 and "pip install 'advlib[attacks]'" in found.stderr
