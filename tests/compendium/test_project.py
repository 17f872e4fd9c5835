"""The project's own files agree with each other: pins, layout, profiles, README."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import advlib
from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import record, report

ROOT = Path(__file__).resolve().parents[2]

# Data flows one way: a module may import only what stands to its left.
# The drawing in the package's own docstring: one line a group, its modules after the group's name.
FLOW = [
    name
    for line in advlib.__doc__.splitlines()
    if line.startswith("    ")
    for name in re.findall(r"\w+", line if line.lstrip().startswith("·") else line[17:])
]


def pins(lines):
    return {line.strip() for line in lines if re.match(r"^[A-Za-z0-9]", line.strip())}


def test_conda_and_pip_install_the_same_versions():
    lock = pins((ROOT / "requirements.lock").read_text().splitlines())
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict)]
    assert len(lock) > 100 and set(pip) == lock


def test_every_declared_dependency_is_pinned_and_installed():
    project = (ROOT / "pyproject.toml").read_text()
    declared = re.findall(r'^    "([A-Za-z0-9_.-]+)[>=]=', project, re.M)
    lock = {line.split("==")[0].lower() for line in pins((ROOT / "requirements.lock").read_text().splitlines())}
    assert len(declared) > 20
    assert {name.lower() for name in declared} <= lock


def test_torch_and_torchvision_belong_together():
    """A torchvision of another build imports no operators: `torchvision::nms does not exist`."""
    from importlib.metadata import requires, version

    import torch
    from packaging.requirements import Requirement
    from packaging.version import Version
    from torchvision.ops import nms

    (needed,) = [r for r in map(Requirement, requires("torchvision")) if r.name == "torch"]
    assert needed.specifier.contains(Version(version("torch")).base_version)
    assert nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5).tolist() == [0]


def test_every_module_is_in_the_drawing():
    assert sorted(FLOW) == sorted(p.stem for p in (ROOT / "advlib").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("module", sorted(p.stem for p in (ROOT / "advlib").glob("*.py") if p.stem != "__init__"))
def test_imports_follow_the_flow(module):
    tree = ast.parse((ROOT / "advlib" / f"{module}.py").read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "advlib":
            imported |= {alias.name for alias in node.names if not alias.name.startswith("_")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("advlib."):
            imported.add(node.module.split(".")[1])
    against = [name for name in imported if FLOW.index(name) >= FLOW.index(module)]
    assert not against, f"{module} imports {against}, which stand to its right"


def test_the_package_runs_from_any_folder(tmp_path):
    code = "from advlib import paths; print(paths.HOME)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == ROOT


@pytest.mark.parametrize("profile", record.PROFILE_NAMES)
def test_profiles_hold_only_parameters_that_a_notebook_has(profile):
    values = record.profile_parameters(profile)
    record.validate(values)
    known = set().union(*(runner.defaults(path) for path in runner.notebooks()))
    assert set(values) <= known
    assert values["profile"] == profile


def test_quick_profile_and_notebook_defaults_agree():
    quick = record.profile_parameters("quick")
    for path in runner.notebooks():
        for name, value in runner.defaults(path).items():
            assert name not in quick or quick[name] == value, f"{path.stem}: {name}"


def test_readme_and_claims_are_what_the_references_say(tmp_path):
    fresh = report.write_claims(tmp_path / "claims.csv").read_text(encoding="utf-8")
    assert fresh == report.CLAIMS.read_text(encoding="utf-8"), "run `advlib report --readme`"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert report.readme_with(report.readme_block(), text) == text, "run `advlib report --readme`"


def test_readme_without_marks_is_refused():
    with pytest.raises(ValueError, match="must hold the lines"):
        report.readme_with("x", "# no marks")


def test_every_file_that_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(((?!https?:|#|mailto:)[^)]+)\)", text))
    assert named
    missing = [name for name in named if not (ROOT / name.split("#")[0]).exists()]
    assert not missing


def test_paths_can_be_moved_by_the_environment(tmp_path):
    code = "from advlib import paths; print(paths.DOWNLOADS, paths.RUNS)"
    environment = {"ADVLIB_DATA": str(tmp_path / "d"), "ADVLIB_RUNS": str(tmp_path / "r"), "PATH": "/usr/bin:/bin"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(tmp_path / "d"), str(tmp_path / "r")]


def test_light_repository():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    total = sum((ROOT / name).stat().st_size for name in tracked.stdout.split("\0") if name and (ROOT / name).exists())
    assert total < 30e6


def test_results_paths_are_inside_home():
    assert places.REFERENCE.is_relative_to(paths.HOME) and places.NOTEBOOKS.is_relative_to(paths.HOME)


def test_pictures_that_texts_show_are_there():
    shown = [
        (path.name, link)
        for path in [ROOT / "README.md", *runner.notebooks()]
        for link in re.findall(r"\((?:\.\./)?(results/reference/[^)]*\.png)\)", path.read_text(encoding="utf-8"))
    ]
    assert len(shown) > 3
    assert [(name, link) for name, link in shown if not (ROOT / link).is_file()] == []


def test_pages_carry_the_pictures_of_their_text(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    (path,) = runner.notebooks(["11"])
    folder = tmp_path / "quick" / path.stem
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(record.reference_path(path.stem, "quick").read_text(encoding="utf-8"))
    notebook = nbformat.v4.new_notebook()
    picture = sorted(places.REFERENCE.glob("*.paper.*.png"))[0].name
    notebook.cells = [nbformat.v4.new_markdown_cell(f"# 11\n![speed](../results/reference/{picture})")]
    nbformat.write(notebook, folder / path.name)
    report.write_html("quick")
    html = (tmp_path / "quick" / "report" / f"{path.stem}.html").read_text(encoding="utf-8")
    assert 'alt="speed" src="data:image/png;base64,' in html
