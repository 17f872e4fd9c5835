"""Run records: parameters checked, numbers kept as they are, files whole or absent."""

import json

import numpy as np
import pytest
import torch

from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import parameters as kinds
from compendium.claims import record


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "RUNS", tmp_path)
    return tmp_path


def start(**more):
    return record.start("99_test", profile="quick", seed=3, **more)


def test_a_run_leaves_one_complete_file(runs, capsys):
    run = start(draws=5, epsilons=[0.1, 1])
    run.metric("a.b", np.float32(0.5))
    run.metric("array", torch.arange(3))
    run.verdict("water is wet", np.bool_(True))
    comparison = {
        "paper": "g17", "item": "Table 1", "row": "MNIST", "column": "R1 eps=0.1", "as_published": 1.8,
        "corrected": 2.0, "cause": "",
    }  # fmt: skip
    run.compare(comparison)
    run.compare(comparison)  # a cell that is run twice
    run.finish()
    content = json.loads((run.folder / "metrics.json").read_text(encoding="utf-8"))
    assert content["metrics"] == {"a.b": 0.5, "array": [0, 1, 2]}
    assert content["verdicts"] == {"water is wet": True}
    assert len(content["comparisons"]) == 1 and content["comparisons"][0]["notebook"] == "99_test"
    assert content["parameters"]["draws"] == 5 and content["duration_s"] >= 0
    assert content["environment"]["packages"]["numpy"] == np.__version__
    assert "water is wet: True" in capsys.readouterr().out
    assert [p.name for p in (runs / "quick" / "99_test").iterdir()] == ["metrics.json"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"draws": 1}, "draws must be a whole number ≥ 2"),
        ({"draws": True}, "draws"),
        ({"epsilons": []}, "epsilons"),
        ({"epsilons": [0.1, 7]}, "epsilons"),
        ({"epsilon": "0.1"}, "epsilon must be a number"),
        ({"batchsize": 3}, "unknown notebook parameter 'batchsize'"),
        ({"seed": -1}, "seed"),
        ({"images": 1}, "images must be a whole number ≥ 2, or 0 for all"),
        ({"gammas": [0.2, 0.1]}, r"gammas must be a rising list of numbers in \(0, 1\]"),
        ({"mixed_shares": [0.1, 0.2]}, r"a rising list of numbers in \[0, 1\] that begins with 0"),
        ({"boundary_steps": [0]}, "that begins with 0"),
        ({"power_epsilons": [0.05]}, r"a list of numbers in \(0, 1\], with 0.05 and 0.1"),
        ({"tolerances": [0]}, "a list of numbers above 0"),
        ({"image_sets": ["imagenet"]}, "a list of mnist, cifar10"),
        ({"calibrated_tests": ["density"]}, "names of tests, such as density · pixels"),
        ({"image_file": None}, "a path, or empty"),
    ],
)
def test_impossible_parameters_are_named(parameters, words):
    with pytest.raises(ValueError, match=words):
        record.start("99_test", **({"profile": "quick", "seed": 0} | parameters))


def test_profile_and_seed_are_required_and_known():
    with pytest.raises(ValueError, match="seed is missing"):
        record.start("99_test", profile="quick")
    with pytest.raises(ValueError, match="one of quick, paper"):
        record.start("99_test", profile="fast", seed=0)


def test_sections_have_their_own_reproducible_generators():
    first, again = start(), start()
    assert first.rng("a").random() == again.rng("a").random() != first.rng("b").random()
    other = record.start("99_test", profile="quick", seed=4)
    assert other.rng("a").random() != first.rng("a").random()


@pytest.mark.parametrize("value", [float("nan"), np.inf, object(), [1.0, float("nan")]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"finite|cannot record"):
        start().metric("x", value)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    paths.write_atomically(path, "old")

    def full(self, *args, **kwargs):
        with open(self, "w") as handle:
            handle.write("ne")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        paths.write_atomically(path, "new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_committed_references_are_complete():
    for content in record.references():
        assert content["notebook"] and content["profile"] in kinds.PROFILE_NAMES
        assert {"metrics", "verdicts", "comparisons", "environment", "duration_s", "parameters"} <= set(content)


def test_every_kind_of_parameter_accepts_what_it_says():
    kinds.validate(
        {
            "images": 0, "gammas": [0.1, 0.2], "mixed_shares": [0, 0.5, 1.0], "boundary_steps": [0, 10],
            "power_epsilons": [0.1, 0.05], "tolerances": [5, 0.1], "image_sets": ["mnist"], "image_file": "",
            "calibrated_tests": ["density · pixels"], "profile": "paper", "epsilons": [0, 1],
        }
    )  # fmt: skip


def test_every_kind_of_parameter_has_a_notebook():
    """A rule for a parameter that no notebook has any more is no rule."""
    known = set().union(*(runner.defaults(path) for path in runner.notebooks()))
    assert set(kinds.PARAMETERS) == known


def test_a_page_shows_the_verdict_of_all_stored_runs(monkeypatch):
    row = {"paper": "g17", "item": "Table 1", "row": "MNIST", "column": "R1 eps=0.1"}
    monkeypatch.setattr(record, "_stored_verdicts", lambda: {tuple(row.values()): "not reproduced"})
    quick, paper = (record.start("99_test", profile=profile, seed=0) for profile in ("quick", "paper"))
    assert quick.shown(row) == paper.shown(row) == "not reproduced"
    assert quick.shown({**row, "row": "CIFAR-10 (red)"}) == "not run here"


def test_a_run_with_another_network_draws_others():
    runs = [record.Run("99_test", {"profile": "quick", "seed": 3}, network) for network in ("0", "1", "1")]
    shipped, one, again = (run.rng("draws").random(4) for run in runs)
    np.testing.assert_array_equal(shipped, start().rng("draws").random(4))
    np.testing.assert_array_equal(one, again)
    assert not np.isin(one, shipped).any()
