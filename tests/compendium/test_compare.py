"""Two runs side by side: what moved, what moved beyond its band, and what is refused with a sentence."""

import copy
import json

import pytest
import yaml
from typer.testing import CliRunner

from advlib import cli
from compendium import compare
from compendium import paths as places
from compendium.claims import record

cli.load_plug_ins()


def a_run(metrics, notebook="99_toy", profile="quick", **parameters):
    return {
        "notebook": notebook, "profile": profile, "parameters": {"profile": profile, "seed": 0, **parameters},
        "metrics": metrics, "verdicts": {"it holds": True}, "comparisons": [],
        "duration_s": 3.0, "environment": {"threads": 2, "cpu": "a processor", "gpu": None},
    }  # fmt: skip


METRICS = {"power": 0.5, "curve": [1.0, 2.0], "by_name": {"fgsm 0.1": {"25": 0.25}}, "seconds": 4.0, "word": "x"}


@pytest.fixture
def house(tmp_path, monkeypatch):
    """Bands for `power` and the curve, and the stored run that they belong to."""
    for name in ("RUNS", "REFERENCE"):
        monkeypatch.setattr(places, name, tmp_path / name.lower())
        (tmp_path / name.lower()).mkdir()
    monkeypatch.setattr(compare, "BANDS", tmp_path / "expected")
    (tmp_path / "expected").mkdir()
    wanted = {"power": 0.5, "curve[0]": 1.0, "curve[1]": 2.0}
    entries = [{"metric": name, "value": v, "atol": 0.1, "rtol": 0.0, "why": "test"} for name, v in wanted.items()]
    (tmp_path / "expected" / "99_toy.yaml").write_text(yaml.safe_dump({"metrics": entries}))
    record.reference_path("99_toy", "quick").write_text(json.dumps(a_run(METRICS)))
    return tmp_path


def moved(**changes):
    return {**copy.deepcopy(METRICS), **changes}


def test_the_same_run_twice_moved_nothing(house):
    found = compare.compare(a_run(METRICS), a_run(METRICS))
    assert found.compared == 5 and found.banded and not (found.moved or found.differs)


def test_a_number_beyond_its_band_is_told_from_one_within(house):
    found = compare.compare(a_run(METRICS), a_run(moved(power=0.58, curve=[1.0, 2.2], seconds=40.0)))
    assert [change.metric for change in found.moved] == ["curve[1]", "seconds", "power"]
    (beyond,) = found.beyond
    assert (beyond.first, beyond.second, beyond.expected, beyond.half_width) == (2.0, 2.2, 2.0, 0.1)
    assert found.differs


def test_both_outside_at_the_same_place_moved_nothing(house):
    away = moved(power=0.9)
    assert not compare.compare(a_run(away), a_run(away)).differs
    assert compare.outside(a_run(away)) == (1, 3) and compare.outside(a_run(METRICS)) == (0, 3)


def test_bands_hold_whatever_the_seed_but_for_no_other_parameters(house):
    other_seed = a_run(METRICS)
    other_seed["parameters"]["seed"] = 5
    assert compare.compare(a_run(METRICS), other_seed).banded
    found = compare.compare(a_run(METRICS, draws=7), a_run(moved(power=0.52), draws=7))
    assert not found.banded and not found.differs
    found = compare.compare(a_run(METRICS, draws=7), a_run(moved(by_name={"fgsm 0.1": {"25": 0.5}}), draws=7))
    assert [change.metric for change in found.beyond] == ["by_name[fgsm 0.1][25]"]
    assert not compare.compare(a_run(METRICS, draws=7), a_run(moved(power=0.4), draws=7), tolerance=0.3).differs
    assert compare.outside(a_run(METRICS, draws=7)) is None


def test_statements_parameters_and_names_that_differ_are_listed(house):
    second = a_run({"power": 0.5, "fresh": 1}, draws=3)
    second["verdicts"] = {"it holds": False, "new": True}
    found = compare.compare(a_run(METRICS), second)
    assert found.statements == {"it holds": (True, False), "new": (None, True)}
    assert found.parameters == {"draws": (None, 3)}
    assert found.only_second == ["fresh"] and "curve[0]" in found.only_first


def store(folder, content):
    path = folder / content["notebook"] / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def two(house):
    """Two profile folders: one notebook in both, one in the second alone."""
    first, second = house / "a" / "quick", house / "b" / "quick"
    store(first, a_run(METRICS))
    store(second, a_run(moved(power=0.9)))
    store(second, a_run(METRICS, notebook="98_other"))
    return first, second


def call(*arguments):
    result = CliRunner().invoke(cli.app, ["compare", *map(str, arguments)], env={"COLUMNS": "200"})
    assert not isinstance(result.exception, (ValueError, KeyError)), result.exception
    return result


def test_files_folders_and_profiles_are_taken(two):
    first, second = two
    for place in (first, first / "99_toy", first / "99_toy" / "metrics.json"):
        result = call(place, second)
        assert result.exit_code == 0 and "power: 0.5 → 0.9" in result.output and "band 0.5 ± 0.1" in result.output
        assert "In one place only: 98_other" in result.output
    assert call(first, places.REFERENCE, "--strict").exit_code == 0
    assert call(first, second, "--strict").exit_code == 1


def test_json_holds_the_same(two):
    result = call(*two, "--json", "--strict")
    content = json.loads(result.stdout)
    (pair,) = content["pairs"]
    assert result.exit_code == 1 and content["differs"] and content["unmatched"] == ["98_other"]
    assert pair["beyond"] == 1 and pair["moved"][0]["metric"] == "power" and pair["moved"][0]["beyond"]


def test_what_cannot_be_compared_is_refused_with_a_sentence(two, house):
    first, second = two
    (house / "empty").mkdir()
    (house / "text.json").write_text("{")
    (house / "list.json").write_text("[1]")
    (house / "some.json").write_text('{"notebook": "99_toy"}')
    for arguments, words in [
        ((first, house / "none"), "there is no"),
        ((first, house / "empty"), "holds no run: no metrics.json"),
        ((first, house / "text.json"), "text.json is damaged"),
        ((first, house / "list.json"), "must be a JSON object, but is a list"),
        ((first, house / "some.json"), "it has no profile, parameters"),
        ((first, second / "98_other"), "no run of the same notebook: 99_toy against 98_other"),
        ((first, second, "--tolerance", "-1"), "tolerance must be a number of at least 0"),
    ]:
        result = call(*arguments)
        assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1, words
        assert words in result.stderr


def test_the_stored_records_compare_with_themselves():
    matched, alone = compare.pairs(places.REFERENCE, places.REFERENCE)
    assert len(matched) > 20 and not alone
    found = [compare.compare(*pair) for pair in matched]
    assert not any(each.differs for each in found)
    assert {each.banded for each in found if each.profiles[0] == "quick"} == {True}
