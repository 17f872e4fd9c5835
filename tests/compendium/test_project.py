"""The project's own files agree with each other: pins, layout, profiles, README."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from scipy import stats

import advlib
from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import parameters as kinds
from compendium.claims import published, record, report, table
from compendium.nb07_boundary_attack import pathmnist_tiles

ROOT = Path(__file__).resolve().parents[2]

# The rooms of the library, from the drawing in its docstring ("    room  words"), the ground first.
ROOMS = re.findall(r"^    (\w+)  +\S", advlib.__doc__, re.M)
TEXTS = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "docs/results.md", "docs/glossary.md",
    "docs/teaching.md", "docs/cluster.md",
]  # fmt: skip


def modules(package):
    return sorted(path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))


def imported(path):
    """Dotted names of what a file imports from this tree, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written from the package on"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("advlib", "compendium")}


def room(path):
    return path.parts[1].removesuffix(".py")


def pins(lines):
    """Lines NAME==VERSION with their markers; in the lock hashes follow them."""
    return {line.strip().removesuffix(" \\") for line in lines if re.match(r"^[A-Za-z0-9]", line.strip())}


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


def test_the_citation_names_the_version_of_the_package():
    """`advlib.__version__` is the one place; CITATION.cff is read by programs that import nothing."""
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == advlib.__version__


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
    there = {room(path) for path in modules("advlib")} - {"__init__", "__main__"}
    assert len(ROOMS) == len(set(ROOMS)) and set(ROOMS) == there


@pytest.mark.parametrize("path", modules("advlib"), ids=str)
def test_a_room_imports_only_rooms_above_it(path):
    names = {name.split(".")[1] for name in imported(path) if name.startswith("advlib.")} & set(ROOMS)
    allowed = ROOMS if room(path).startswith("__") else ROOMS[: ROOMS.index(room(path)) + 1]
    assert names <= set(allowed), f"{path} imports {sorted(names - set(allowed))}, which stand below it"


@pytest.mark.parametrize("path", modules("advlib"), ids=str)
def test_the_library_imports_nothing_of_the_compendium(path):
    assert not [name for name in imported(path) if name.startswith("compendium")]


@pytest.mark.parametrize("path", [*modules("advlib"), *modules("compendium")], ids=str)
def test_a_private_name_stays_in_its_folder(path):
    private = [name.split(".") for name in imported(path) if re.search(r"\._[a-z]", name)]
    assert not [name for name in private if tuple(name[:-2]) != path.parent.parts]


@pytest.mark.parametrize("path", modules("compendium"), ids=str)
def test_no_notebook_imports_another_and_nothing_imports_a_notebook(path):
    names = {name.split(".")[1] for name in imported(path) if name.startswith("compendium.")}
    notebooks = {name for name in names if name.startswith("nb")}
    # `authors` reruns several notebooks' experiments with other networks, and stands above them all.
    assert notebooks <= {room(path)} or room(path) == "authors"
    assert "authors" not in names or room(path) == "authors"


def test_every_notebook_has_its_room_and_every_room_its_notebook():
    rooms = {room(path) for path in modules("compendium") if room(path).startswith("nb")}
    assert rooms == {f"nb{path.stem}" for path in runner.notebooks()}


def test_the_package_runs_from_any_folder(tmp_path):
    code = "from advlib import paths; print(paths.HOME)"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == ROOT


@pytest.mark.parametrize("profile", kinds.PROFILE_NAMES)
def test_profiles_hold_only_parameters_that_a_notebook_has(profile):
    values = record.profile_parameters(profile)
    kinds.validate(values)
    known = set().union(*(runner.defaults(path) for path in runner.notebooks()))
    assert set(values) <= known
    assert values["profile"] == profile


def test_quick_profile_and_notebook_defaults_agree():
    quick = record.profile_parameters("quick")
    for path in runner.notebooks():
        for name, value in runner.defaults(path).items():
            assert name not in quick or quick[name] == value, f"{path.stem}: {name}"


def test_readme_results_and_claims_are_what_the_references_say(tmp_path):
    claims, evidence = table.claims_table(table.stored_runs())
    fresh = published.write_claims(claims, tmp_path / "claims.csv").read_text(encoding="utf-8")
    assert fresh == published.CLAIMS.read_text(encoding="utf-8"), "run `advlib report --readme`"
    stored = places.RESULTS / "evidence.csv"
    assert table.evidence_csv(evidence) == stored.read_text(encoding="utf-8"), "run `advlib report --readme`"
    text = report.README.read_text(encoding="utf-8")
    assert report.readme_with(report.readme_block(), text) == text, "run `advlib report --readme`"
    assert report.results_page() == report.RESULTS_PAGE.read_text(encoding="utf-8"), "run `advlib report --readme`"


def readme_facts():
    """What README says by hand in numbers, written anew from the records: (notebook, words)."""
    claims = {claim.key: claim for claim in published.read_claims()}
    evidence = list(table.read_evidence())

    def statistic(row, mode, name):
        """Return the centre of a sentence's statistic, from what its evidence says."""
        (why,) = [line["why"] for line in evidence if (line["row"], line["mode"]) == (row, mode)]
        return float(re.search(rf"{name} (-?[\d.e-]+)", why)[1])

    ratios = Counter(c.verdict for c in claims.values() if c.paper == "g17" and c.column.startswith("R1 "))
    yield "02a", f"Of the {ratios.total()} ratios of real against adversarial"
    yield "02a", f"the method as the paper describes it gives {ratios['reproduced']}"
    by_code = published.VERDICTS[1]
    yield "02a", f"the code of its time {ratios[by_code]} more"
    for notebook in ("04", "05"):
        yield notebook, f"{ratios['fitted']} rest on a setting that had to be fitted"
    yield "02a", f"{ratios['not reproduced']} come out in no way"
    least = "least power with the smallest batches"
    ten = [statistic("ten-samples-suffice", mode, least) for mode in ("as published", "corrected")]
    words = f"{ten[0]:.0%} of attacked batches of 10 are flagged as published and {ten[1]:.0%} corrected"
    yield "03", words.replace("%", " %")
    one = [statistic("single-adversarial-sample", m, "power with one suspect") for m in ("as published", "corrected")]
    yield "05", f"of single MNIST images {one[0]:.0%} and {one[1]:.0%}".replace("%", " %")
    apart = statistic("density-rises-for-geometry", "as published", "at the peak, as a share of the clean density")
    yield "02b", f"to within {apart:.0%} of the clean density".replace("%", " %")
    tiles = json.loads((places.REFERENCE / "pathmnist_tiles.json").read_text(encoding="utf-8"))["movements"]
    ends = {line["name"]: (line["density"][0], line["density"][-1]) for line in tiles["own statistics"]}
    yield "07", "FGSM raises density from {:.1f} to {:.1f}".format(*ends["FGSM as published"])
    yield "07", "the clip alone raises density from {:.1f} to {:.1f}".format(*ends["clipped alone"])
    own = {name: f"{density:.1f}" for name, density in pathmnist_tiles.stored()["authors"].items()}
    printed = [
        claims["vs22", "§5.2", "PathMNIST", f"{kind} density"].published for kind in ("reference", "adversarial")
    ]
    words = "takes density from {} to {} (printed: from {:.2f} to {}), and in pixels to {}"
    yield "07", words.format(own["untouched"], own["as published"], float(printed[0]), printed[1], own["corrected"])
    metrics = json.loads(record.reference_path("13_hypothesis_tests", "paper").read_text(encoding="utf-8"))["metrics"]
    sets = {"mnist": "MNIST", "cifar10": "CIFAR-10", "organamnist": "OrganAMNIST", "bloodmnist": "BloodMNIST"}
    flagged = [
        f"{metrics[f'power.{name}.density · pixels']['FGSM 0.05']['25']:.0%} on {title}".replace("%", " %")
        for name, title in sets.items()
    ]
    yield "13", f"flags {', '.join(flagged[:3])} and {flagged[3]}"
    assert all(metrics[f"power.{name}.nearest ball · texture"]["FGSM 0.05"]["25"] == 1 for name in sets)
    rates = {name: kept for name, kept in metrics.items() if name.startswith("calibration.")}
    alphas = [float("0." + name.rpartition(".")[2]) for name in rates]
    bands = [stats.binom.interval(0.99, kept["n"], a) for kept, a in zip(rates.values(), alphas, strict=True)]
    counts = [round(kept["rejected"] * kept["n"]) for kept in rates.values()]
    outside = sum(not low <= count <= high for count, (low, high) in zip(counts, bands, strict=True))
    yield "13", f"of {len(rates)} rejection rates of clean batches, {outside} lie outside their 99 % band"
    league = json.loads(record.reference_path("14_league", "paper").read_text(encoding="utf-8"))["metrics"]
    aimed, changed = (
        [league[f"{title}.{detector}.25.attack"] for title in sets.values()]
        for detector in ("aim · verdict", "default: balls on four maps, mean of scales")
    )
    words = "flags {:.0%} on MNIST and {:.0%} on OrganAMNIST, {:.0%} on BloodMNIST and {:.0%} on CIFAR-10"
    yield "14", words.format(aimed[0], aimed[2], aimed[3], aimed[1]).replace("%", " %")
    assert min(changed) == 1
    yield "14", "flags every batch of 25 under every attack of the league"
    speed_up = claims["vs22", "Appendix D", "all", "speed-up over prdc"].corrected
    yield "11", f"{speed_up:.3g} times as fast as `prdc` at 25,000 points on 2 CPU threads"


def test_the_numbers_in_readme_are_those_of_the_records():
    """Each stands in the paragraph that names its notebook."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\n|\n(?=\d\. )", report.README.read_text("utf-8"))]
    for notebook, words in readme_facts():
        assert any(words in part and f"[{notebook}](" in part for part in paragraphs), f"{notebook}: {words}"


def test_readme_is_short_and_without_marks_is_refused():
    assert len(report.README.read_text(encoding="utf-8").splitlines()) <= 200
    with pytest.raises(ValueError, match="must hold the lines"):
        report.readme_with("x", "# no marks")


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_that_a_text_names_is_there(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    named = set(re.findall(r"\]\(((?!https?:|#|mailto:)[^)]+)\)", text))
    missing = [link for link in named if not ((ROOT / name).parent / link.split("#")[0]).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_path_and_module_that_a_guide_names_is_there(name):
    """`folder/file` and `package.module` in code marks; what git ignores and what a reader makes is left out."""
    text = (ROOT / name).read_text(encoding="utf-8")
    paths_named = re.findall(r"`((?:advlib|compendium|tests|notebooks|params|results|docs|data)/[\w./*-]+)`", text)
    ignored = ("data/downloads", "results/runs", "results/cache")
    missing = [path for path in paths_named if not path.startswith(ignored) and not list(ROOT.glob(path.rstrip("/")))]
    for module in re.findall(r"`((?:advlib|compendium)(?:\.\w+)+)`", text):
        *package, last = module.split(".")
        stem = ROOT.joinpath(*package)
        home = stem.with_suffix(".py") if stem.with_suffix(".py").is_file() else stem / "__init__.py"
        inside = (stem / f"{last}.py").is_file() or (stem / last).is_dir()
        if not inside and not (home.is_file() and re.search(rf"\b{last}\b", home.read_text(encoding="utf-8"))):
            missing.append(module)
    assert paths_named and not missing


@pytest.mark.parametrize("path", modules("advlib") + modules("compendium"), ids=str)
def test_modules_have_at_most_500_lines_and_functions_60(path):
    """CONTRIBUTING.md asks for it, docstrings included."""
    text = (ROOT / path).read_text(encoding="utf-8")
    sizes = {
        node.name: node.end_lineno - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef)
    }
    assert len(text.splitlines()) <= 500 and not {name: lines for name, lines in sizes.items() if lines > 60}


def test_paths_can_be_moved_by_the_environment(tmp_path):
    code = "from advlib import paths; from compendium.paths import RUNS; print(paths.DOWNLOADS, RUNS)"
    moved = {"ADVLIB_DATA": str(tmp_path / "d"), "ADVLIB_RUNS": str(tmp_path / "r")}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=os.environ | moved, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [str(tmp_path / "d"), str(tmp_path / "r")]


def test_every_test_is_run():
    """`make test` names folders, for the notebooks must run before their numbers are read."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"tests/[\w/.]+", recipe))
    assert recipe.index("$(PYTEST) notebooks") < recipe.index("$(PYTEST) $(NUMBERS)")
    files = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert not [path for path in files if not any(path.is_relative_to(name) for name in named)]
    assert len({path.name for path in files}) == len(files), "pytest needs names that are unique over all folders"


def test_light_repository():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    total = sum((ROOT / name).stat().st_size for name in tracked.stdout.split("\0") if name and (ROOT / name).exists())
    assert total < 36e6  # half of it are trained weights and stored results


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


def test_containers_and_hooks_stand_on_the_same_pins():
    """Dev container, Binder and pre-commit name no version of their own."""
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
    wanted = tuple(
        map(int, re.search(r'requires-python = ">=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text()).groups())
    )
    offered = tuple(map(int, re.fullmatch(r"python:(\d+)\.(\d+)-\w+", container["image"]).groups()))
    assert container["postCreateCommand"] == "make data" and offered >= wanted
    binder = ROOT / ".binder" / "environment.yml"
    assert binder.read_text(encoding="utf-8") == (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert f"python={offered[0]}.{offered[1]}" in binder.read_text(encoding="utf-8")
    assert os.access(ROOT / ".binder" / "postBuild", os.X_OK)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    commands = [hook["entry"].split()[0] for repo in hooks for hook in repo["hooks"]]
    assert set(commands) == {".venv/bin/ruff"}
    assert any("jupyter" in hook["types_or"] for repo in hooks for hook in repo["hooks"])
