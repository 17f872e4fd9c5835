"""Comparisons and verdicts: the three-way rule, and the papers' sentences as data."""

import ast
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
import yaml

from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import published, verdicts
from compendium.claims.verdicts import Finding

SENTENCES = sorted((places.PUBLISHED / "sentences").glob("*.yaml"))
JUDGED = [claim for claim in published.read_claims() if claim.item == "claim" and claim.verdict != "not run here"]
REQUIRED, CAUSES = {"paper", "row", "predicate", "criterion"}, {"cause", "corrected_only", "cause_if_not", "not_run"}
NUMBER = ("g17", "Table 1", "MNIST", "R1 eps=0.1")


def holds(as_published, corrected):
    return {"as published": as_published, "corrected": corrected}


def finding(as_published, corrected, **numbers):
    return Finding(holds(as_published, corrected), {"as published": "a", "corrected": "b"}, numbers)


class Kept(list):
    """Stands in for a run: keeps what is compared."""

    notebook = "99_toy"
    compare = list.append


@pytest.mark.parametrize(
    ("as_published", "corrected", "word"),
    [
        (True, True, "reproduced"),
        (False, True, "reproduced"),
        (True, False, "reproduced as published only"),
        (False, False, "not reproduced"),
    ],
)
def test_the_three_way_verdict(as_published, corrected, word):
    assert verdicts.verdict(holds(as_published, corrected)) == word
    assert word in published.VERDICTS


def test_a_sentence_about_what_is_not_there_is_not_run():
    assert verdicts.verdict({}) == "not run here"
    row = verdicts.compare(NUMBER, {}, {}, "no file", corrected_only="corrected only")
    assert (row["verdict"], row["cause"]) == ("not run here", "no file")


def test_a_comparison_is_what_a_record_keeps():
    row = verdicts.compare(NUMBER, {"as published": 1.85, "corrected": 2.0}, holds(True, False), "no clipping")
    names = ["paper", "item", "row", "column", "as_published", "corrected", "verdict", "cause"]
    assert list(row) == names
    assert list(row.values()) == [*NUMBER, 1.85, 2.0, "reproduced as published only", "no clipping"]
    (claim,) = [c for c in published.claims_table([{"notebook": "x", "comparisons": [row]}]) if c.notebook]
    assert (claim.key, claim.published, claim.verdict) == (NUMBER, 1.83, "reproduced as published only")


def test_a_number_that_was_not_measured_is_left_empty():
    row = verdicts.compare(NUMBER, {"corrected": 2.0}, holds(False, True))
    assert row["as_published"] is None and row["cause"] == ""


@pytest.mark.parametrize(("as_published", "corrected"), list(itertools.product([True, False], repeat=2)))
def test_that_only_the_corrected_rerun_agrees_is_said(as_published, corrected):
    def cause(text):
        return verdicts.compare(NUMBER, {}, holds(as_published, corrected), text, corrected_only="corrected only")[
            "cause"
        ]

    alone = corrected and not as_published
    assert cause("why") == ("corrected only; why" if alone else "why")
    assert cause("") == ("corrected only" if alone else "")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "sentences").mkdir()
    entries = [
        {"paper": "g17", "row": "transferable", "predicate": "moves_far", "criterion": "x", "cause": "by {l2:.1f}"},
        {"paper": "vs22", "row": "model-agnostic", "predicate": "asks_no_network", "criterion": "x", "cause": "",
         "corrected_only": "corrected only"},
    ]  # fmt: skip
    (tmp_path / "sentences" / "99_toy.yaml").write_text(yaml.safe_dump(entries), encoding="utf-8")
    monkeypatch.setattr(places, "PUBLISHED", tmp_path)
    return entries


def test_sentences_are_judged_by_their_predicates(toy):
    run = Kept()
    verdicts.judge_sentences(run, {"moves_far": finding(True, False, l2=2.34), "asks_no_network": finding(False, True)})
    first, second = run
    assert [first[name] for name in ("paper", "item", "row", "column")] == ["g17", "claim", "transferable", ""]
    assert (first["as_published"], first["corrected"]) == ("a", "b")
    assert (first["verdict"], first["cause"]) == ("reproduced as published only", "by 2.3")
    assert (second["verdict"], second["cause"]) == ("reproduced", "corrected only")


def test_one_papers_sentences_alone_need_findings_of_that_paper_alone(toy):
    run = Kept()
    found = Finding.of({"as published": (True, "a"), "corrected": (True, "b")})
    verdicts.judge_sentences(run, {"asks_no_network": found}, "vs22")
    assert [(row["row"], row["as_published"], row["verdict"]) for row in run] == [("model-agnostic", "a", "reproduced")]


@pytest.mark.parametrize(
    ("found", "verdict", "cause"),
    [
        (finding(True, True), "reproduced", "always"),
        (finding(False, False, n=3), "not reproduced", "only 3"),
        (verdicts.NOT_RUN, "not run here", "no file"),
    ],
)
def test_the_cause_follows_from_what_was_found(toy, found, verdict, cause):
    entry = toy[1] | {"cause": "always", "cause_if_not": "only {n}", "not_run": "no file"}
    (places.PUBLISHED / "sentences" / "99_toy.yaml").write_text(yaml.safe_dump([entry]), encoding="utf-8")
    run = Kept()
    verdicts.judge_sentences(run, {"asks_no_network": found})
    assert [(row["verdict"], row["cause"]) for row in run] == [(verdict, cause)]


def test_a_sentence_without_a_finding_is_refused_before_anything_is_recorded(toy):
    run = Kept()
    with pytest.raises(ValueError, match="no finding for asks_no_network; there are moves_far"):
        verdicts.judge_sentences(run, {"moves_far": finding(True, True, l2=1.0)})
    assert run == []


def test_a_cause_that_names_a_number_without_one_is_refused(toy):
    with pytest.raises(KeyError, match="l2"):
        verdicts.judge_sentences(Kept(), {"moves_far": finding(True, True), "asks_no_network": finding(True, True)})


def test_numbers_are_judged_by_what_agrees_and_a_missing_one_does_not():
    asked, run = [], Kept()

    def agrees(value, printed):
        asked.append((value, printed.value))
        return abs(value - printed.value) < 0.1

    ours = {NUMBER: {"as published": 1.85, "corrected": None}}
    verdicts.judge_numbers(run, ours, agrees, lambda printed, mine: f"{mine['as published']} beside {printed.value}")
    (row,) = run
    assert asked == [(1.85, 1.83)]
    assert (row["verdict"], row["cause"]) == ("reproduced as published only", "1.85 beside 1.83")


def test_rows_of_one_item_or_all():
    kept = [verdicts.compare(("g17", item, "x", ""), {}, holds(True, True)) for item in ("claim", "Table 1")]
    run = SimpleNamespace(comparisons=dict(enumerate(kept)), shown=lambda entry: entry["verdict"])
    assert list(verdicts.rows(run)["item"]) == ["claim", "Table 1"]
    assert list(verdicts.rows(run, "claim")["item"]) == ["claim"]


def defined_names(notebook):
    """Functions and texts in the code of one notebook's room: a predicate is one or the other."""
    room = paths.HOME / "compendium" / f"nb{notebook}"
    names = set()
    for path in [*room.rglob("*.py"), *paths.HOME.glob(f"compendium/nb{notebook}.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names |= {node.name, node.name.lstrip("_")}
            elif isinstance(node, ast.keyword) and node.arg:
                names.add(node.arg)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


@pytest.mark.parametrize("path", SENTENCES, ids=lambda p: p.stem)
def test_a_file_of_sentences_is_whole(path):
    known = {entry.key for entry in published.claims()}
    entries = verdicts.sentences(path.stem)
    assert path.stem in [notebook.stem for notebook in runner.notebooks()] and entries
    for entry in entries:
        assert set(entry) >= REQUIRED, entry
        assert set(entry) <= REQUIRED | CAUSES, entry
        assert (entry["paper"], "claim", entry["row"], "") in known, entry["row"]
        assert entry["criterion"].strip(), entry["row"]
        assert all(isinstance(entry[name], str) for name in CAUSES & set(entry)), entry["row"]
    without = {entry["predicate"] for entry in entries} - defined_names(path.stem)
    assert not without, f"predicates without a function in nb{path.stem}: {sorted(without)}"


def test_a_sentence_is_judged_in_one_place_and_where_the_claims_table_says():
    homes = {claim.key[::2]: claim.notebook for claim in JUDGED}
    found = [
        ((entry["paper"], entry["row"]), path.stem) for path in SENTENCES for entry in verdicts.sentences(path.stem)
    ]
    assert not [key for key, count in Counter(key for key, _ in found).items() if count > 1]
    assert not [(key, stem) for key, stem in found if homes.get(key, stem) != stem]


def test_every_judged_sentence_is_data_or_is_named_in_its_notebooks_code():
    """What no YAML file holds is judged by hand, under its short name, in the room of the notebook that shows it."""
    moved = {(path.stem, entry["paper"], entry["row"]) for path in SENTENCES for entry in verdicts.sentences(path.stem)}
    by_hand = [claim for claim in JUDGED if (claim.notebook, claim.paper, claim.row) not in moved]
    words = {notebook: defined_names(notebook) for notebook in {claim.notebook for claim in by_hand}}
    assert not [(claim.notebook, claim.row) for claim in by_hand if claim.row not in words[claim.notebook]]
