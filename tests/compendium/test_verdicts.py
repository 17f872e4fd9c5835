"""What a notebook records about numbers and sentences."""

import pytest

from compendium.claims import published, table, verdicts
from compendium.claims.rule import Bound

NUMBER = ("g17", "Table 1", "MNIST", "R1 eps=0.1")


class Kept(list):
    """Stands in for a run: keeps what is compared."""

    compare = list.append


@pytest.fixture
def run(monkeypatch):
    bounds = [Bound("margin", at_least=0, reason="nearer")]
    monkeypatch.setattr(table, "criteria", lambda: {("g17", "claim", "real-real-near-one", ""): {"bounds": bounds}})
    monkeypatch.setattr(verdicts, "criteria", table.criteria)
    return Kept()


def test_a_number_is_kept_with_both_ways_of_rerunning(run):
    verdicts.number(run, NUMBER, {"as published": 1.85, "corrected": None}, "no clipping")
    assert run == [dict(zip(("paper", "item", "row", "column"), NUMBER, strict=True))
                   | {"as_published": 1.85, "corrected": None, "cause": "no clipping"}]  # fmt: skip
    found = table.measured([{"notebook": "02a_density_ratio", "comparisons": run}])
    claim = next(c for c in table.claims_table(found)[0] if c.key == NUMBER)
    assert (claim.published, claim.as_published, claim.verdict) == (1.83, 1.85, "undecided")


def test_an_unknown_way_of_rerunning_is_refused(run):
    with pytest.raises(ValueError, match="has as_published"):
        verdicts.number(run, NUMBER, {"as_published": 1.85})
    assert run == []


def test_a_sentence_is_kept_with_its_statistics(run):
    words = {"as published": "12 of 12 rows", "corrected": "11 of 12 rows"}
    statistics = {"as published": {"margin": 0.5}, "corrected": {"margin": -0.1, "share": 0.9}}
    verdicts.sentence(run, "g17", "real-real-near-one", statistics, words, "of ratios")
    (row,) = run
    assert row["item"] == "claim" and row["column"] == "" and row["cause"] == "of ratios"
    assert row["as_published"] == "12 of 12 rows" and row["statistics"] == statistics


@pytest.mark.parametrize(
    ("row", "statistics", "words"),
    [
        ("real-real-far-away", {"corrected": {"margin": 1.0}}, "must have a criterion"),
        ("real-real-near-one", {"corrected": {"share": 1.0}}, "corrected: no statistic margin; there are share"),
    ],
)
def test_a_sentence_without_criterion_or_statistic_is_refused(run, row, statistics, words):
    with pytest.raises(ValueError, match=words):
        verdicts.sentence(run, "g17", row, statistics, {"corrected": "x"})
    assert run == []


def test_the_sentences_of_both_papers_are_known():
    assert {entry.paper for entry in published.load(item="claim")} == set(published.PAPERS)
