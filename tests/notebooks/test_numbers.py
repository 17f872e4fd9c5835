"""The numbers of a fresh run lie in their bands (`tests/expected/*.yaml`); `make test` runs the notebooks first."""

import copy
import importlib.util
import json
import os
from pathlib import Path

import pytest
import yaml

from compendium import paths as places
from compendium import runner
from compendium.claims import record

EXPECTED = Path(__file__).parents[1] / "expected"
FILES = sorted(EXPECTED.glob("*.yaml"))


def bands(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))["metrics"]


def at(metrics, name):
    """Find "a.b[2]": metric "a.b", element 2. A metric's own name may hold brackets as well."""
    if name in metrics:
        return metrics[name]
    key, _, index = name.rpartition("[")
    return metrics[key][int(index.rstrip("]"))]


def failures(metrics, wanted):
    found = []
    for band in wanted:
        value = at(metrics, band["metric"])
        allowed = band["atol"] + band["rtol"] * abs(band["value"])
        if not abs(value - band["value"]) <= allowed:
            found.append(
                f"{band['metric']} is {value:.6g}, expected {band['value']:.6g} ± {allowed:.3g} ({band['why']})"
            )
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_statement_came_out_the_same_in_every_run(path):
    """A statement that flips with a seed, a rounding or a processor is not one that the page may print."""
    assert yaml.safe_load(path.read_text(encoding="utf-8")).get("undecided", []) == []


def test_every_notebook_has_bands():
    assert [path.stem for path in FILES] == [path.stem for path in runner.notebooks()]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_bands_are_complete_and_reasoned(path):
    wanted = bands(path)
    assert wanted
    for band in wanted:
        assert set(band) == {"metric", "value", "atol", "rtol", "why"}
        assert len(band["why"]) > 20 and band["atol"] >= 0 and band["rtol"] >= 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_fresh_run_lies_in_its_bands(path):
    run = places.RUNS / "quick" / path.stem / "metrics.json"
    if "ADVLIB_RUNS" not in os.environ:
        pytest.skip("only `make test` runs the notebooks before this")
    metrics = json.loads(run.read_text(encoding="utf-8"))["metrics"]
    assert failures(metrics, bands(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_committed_reference_lies_in_its_bands(path):
    reference = json.loads(record.reference_path(path.stem, "quick").read_text(encoding="utf-8"))
    assert failures(reference["metrics"], bands(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_number_outside_its_band_is_noticed(path):
    """Move every expected value by twice its band: each of them must be reported."""
    reference = json.loads(record.reference_path(path.stem, "quick").read_text(encoding="utf-8"))
    moved = copy.deepcopy(bands(path))
    for band in moved:
        band["value"] += 2.1 * (band["atol"] + band["rtol"] * abs(band["value"])) + 1e-9
        band["atol"], band["rtol"] = band["atol"] * 0.99, 0
    assert len(failures(reference["metrics"], moved)) == len(moved)


@pytest.fixture
def derive():
    spec = importlib.util.spec_from_file_location("derive", EXPECTED / "derive.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_new_derivation_keeps_what_another_processor_said(derive, tmp_path):
    """A width from arithmetic that was met elsewhere cannot be met again here, so that it is never narrowed."""
    reasons = {"a": "arithmetic: 4 settings beside seed 0", "b": "4 standard deviations over seeds 0 to 4"}
    rows = [{"metric": name, "value": 1.0, "atol": 0.2, "rtol": 0, "why": why} for name, why in reasons.items()]
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"settings": ["native, all threads", "Intel", "AMD"], "metrics": rows}))
    elsewhere, known = derive.earlier_bands(path, "AMD")
    assert elsewhere == ["Intel"] and set(known) == {"a"}
    new = {"metric": "a", "value": 1.1, "atol": 0.01, "rtol": 0, "why": "4 standard deviations over seeds 0 to 4"}
    assert derive.not_narrower(new, known["a"]) == new | {"atol": 0.2, "why": reasons["a"]}
    assert derive.not_narrower(new, None) == new and derive.not_narrower(new | {"atol": 0.3}, known["a"])["atol"] == 0.3
    assert derive.not_narrower(new | {"value": 1.5}, known["a"])["atol"] == 0.01  # another number by now
    assert derive.earlier_bands(path, "Intel")[0] == ["AMD"]
    path.write_text(yaml.safe_dump({"settings": ["native, all threads"], "metrics": rows}))
    assert derive.earlier_bands(path, "AMD") == ([], {}) == derive.earlier_bands(tmp_path / "none.yaml", "AMD")
