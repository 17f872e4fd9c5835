"""What comes from others: pinned, by hash, under known licences; and nothing here runs what a file says."""

import ast
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from tally import case

from compendium import licences

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    path for package in ("advlib", "compendium", "benchmarks") for path in sorted((ROOT / package).rglob("*.py"))
]


def pins():
    """Requirement → its hashes, in the lock's order."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            words, *hashes = re.split(r"\s+--hash=", line.strip())
            yield Requirement(words), hashes


PINS = list(pins())


def test_every_pin_is_exact_and_has_its_hashes():
    for requirement, hashes in PINS:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, requirement
        assert hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), requirement
        case()
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    assert re.search(r"pip install [^\n]*--no-deps\s+--require-hashes\s+-r requirements\.lock", recipe)


def test_a_wrong_hash_is_refused_by_pip(tmp_path):
    """pip compares before it unpacks: the same file under another digest does not get in."""
    name = "advlib_test_hash-1.0-py3-none-any.whl"
    (tmp_path / name).write_bytes(b"PK")
    lock = tmp_path / "lock"
    lock.write_text(f"advlib-test-hash==1.0 --hash=sha256:{'0' * 64}\n")
    options = "--no-index --no-deps --require-hashes --quiet --disable-pip-version-check --find-links"
    command = [sys.executable, "-m", "pip", "download", *options.split(), str(tmp_path), "-d", str(tmp_path / "out")]
    found = subprocess.run([*command, "-r", str(lock)], capture_output=True, text=True)
    assert found.returncode and "DO NOT MATCH THE HASHES" in found.stderr, found.stderr


def test_the_lock_holds_all_that_its_packages_need():
    """An installation with --no-deps has no second chance."""
    held = {canonicalize_name(requirement.name) for requirement, _ in PINS}
    missing = []
    for name in sorted(held):
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            continue
        for line in map(Requirement, needed):
            if (line.marker is None or line.marker.evaluate({"extra": ""})) and canonicalize_name(
                line.name
            ) not in held:
                missing.append(f"{line.name} for {name}")
        case()
    assert missing == []


def test_what_is_installed_is_what_is_locked_and_fits_together():
    """As `pip check` and an audit do, without asking anyone: versions as pinned, every demand met, nothing yanked."""
    for requirement, _ in PINS:
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            here = Version(version(requirement.name))
        except PackageNotFoundError:
            continue
        (specifier,) = requirement.specifier
        assert here.public == specifier.version, f"{requirement.name} {here} is installed, {specifier} is locked"
        for line in map(Requirement, requires(requirement.name) or []):
            if line.marker is None or line.marker.evaluate({"extra": ""}):
                try:
                    found = distribution(line.name).version
                except PackageNotFoundError:
                    continue
                assert line.specifier.contains(found, prereleases=True), f"{requirement.name} needs {line}, not {found}"
        case()


def test_the_table_of_licences_is_that_of_the_lock():
    table = re.findall(r"^\| ([^ |]+) \| ([^|]+) \| ([^|]+) \|$", licences.PAGE.read_text(encoding="utf-8"), re.M)[1:]
    assert [(name, versions) for name, versions, _ in table] == [
        (name, ", ".join(versions)) for name, versions in licences.pinned().items()
    ]
    assert [name for name, _, words in table if words == "not stated"] == []
    copyleft = [name for name, _, words in table if re.search(r"\bA?GPL", words) and "LGPL" not in words]
    assert copyleft == []
    case(len(table))


# ------------------------------------------------------------------ nothing runs what a file says


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import pickle\npickle.loads(b'')", "S301"),
        ("eval('1')", "S307"),
        ("exec('x = 1')", "S102"),
        ("import marshal\nmarshal.loads(b'')", "S302"),
        ("import yaml\nyaml.load('', Loader=yaml.Loader)", "S506"),
        ("import tarfile\ntarfile.open('a').extractall()", "S202"),
        ("import subprocess\nsubprocess.run('ls', shell=True)", "S602"),
        ("import os\nos.system('ls')", "S605"),
        ("import requests\nrequests.get('https://a', verify=False, timeout=1)", "S501"),
    ],
)
def test_the_linter_refuses_what_runs_a_file(code, rule):
    ruff = [Path(sys.executable).with_name("ruff"), "check", "--output-format", "json", "--stdin-filename"]
    found = subprocess.run([*ruff, "advlib/planted.py", "-"], input=code, cwd=ROOT, capture_output=True, text=True)
    assert rule in {each["code"] for each in json.loads(found.stdout)}
    case()


def unsafe(tree):
    """Lines that load pickles by way of torch or NumPy, or read a module's source as code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if {name.split(".")[0] for name in names} & {
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "marshal",
                "shelve",
            }:
                yield node.lineno
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called == "torch.load" and options.get("weights_only") != "True":
            yield node.lineno
        if called in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
            yield node.lineno
        if called in ("joblib.load", "pd.read_pickle", "pandas.read_pickle", "torch.hub.load"):
            yield node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_pickle_is_loaded_anywhere(path):
    assert list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) == []
    case()


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "from pickle import loads",
        "import cloudpickle as c",
        "joblib.load(f)",
    ],
)
def test_a_planted_pickle_is_noticed(code):
    assert list(unsafe(ast.parse(code)))
    case()
