"""The claims table: kinds, references, criteria and causes as data, and what the table makes of runs."""

import json
from collections import Counter

import pytest

from compendium import paths as places
from compendium.claims import published, rule, table
from compendium.claims.published import NotPublishedError

NUMBERS = [entry for entry in published.load() if entry.value is not None and entry.item != "setting"]
SENTENCES = published.load(item="claim")
KEY = ("g17", "Table 1", "MNIST", "R1 eps=0.1")
R2 = ("g17", "Table 1", "MNIST", "R2 eps=0.1")


def comparison(key=KEY, **changes):
    names = dict(zip(("paper", "item", "row", "column"), key, strict=True))
    return {**names, "as_published": 1.85, "corrected": 2.5, "cause": ""} | changes


def measured(*comparisons, spread=(), authors=None):
    return table.measured([{"notebook": "02a_density_ratio", "comparisons": list(comparisons)}], spread, authors)


def spread(key, as_published, corrected):
    """Return a spread of five networks and three seeds around two values."""
    runs = []
    for network in range(5):
        for seed in range(3):
            off = 0.002 * network - 0.004 + 0.001 * seed
            row = comparison(key, as_published=as_published + off, corrected=corrected + off)
            runs.append({"network": network, "seed": seed, "comparisons": [row]})
    return {"notebook": "02a_density_ratio", "runs": runs}


def test_every_printed_number_has_a_kind_and_its_reference_is_printed_too():
    keys = {entry.key for entry in published.load()}
    for entry in NUMBERS:
        kind = table.kind(entry)
        assert kind.name in ("number", "label", "setting", "fitted") and kind.source in ("printed", "stored")
        assert kind.reference is not None or kind.name != "number", entry.key
        assert not isinstance(kind.reference, tuple) or kind.reference in keys, entry.key
        assert kind.reference != entry.key
        assert kind.why or kind.name not in ("setting", "fitted")


def test_numbers_that_are_no_results_are_settings_or_fitted():
    kinds = Counter((entry.paper, table.kind(entry).name) for entry in NUMBERS)
    assert kinds["g17", "fitted"] == 11 + 2  # R1 of Table 2; m = 1 of Table 3
    assert kinds["vs22", "setting"] == 10 + 6 + 9 + 9 + 15  # §4.1, Tables 1 to 3, Figure 13


def test_constants_are_those_of_exchangeable_images():
    constants = {entry.key[1:]: table.kind(entry).constant for entry in NUMBERS}
    assert constants["§5.1", "MNIST", "reference coverage"] == pytest.approx(0.393, abs=1e-3)
    assert constants["§5.1", "PathMNIST", "reference coverage"] == pytest.approx(0.554, abs=1e-3)  # 0.49 is printed
    assert constants["Table 1", "MNIST", "R2 eps=0.1"] == constants["Table 4", "MNIST", "share=0"] == 1
    assert constants["Table 1", "MNIST", "R1 eps=0.1"] is None


def test_without_records_nothing_is_run_and_settings_are_settings():
    claims, evidence = table.claims_table(measured())
    assert [claim.key for claim in claims] == [entry.key for entry in published.load() if entry.item != "setting"]
    stored = {"confirmed by stored data", "contradicted by stored data"}
    assert {claim.verdict for claim in claims} - stored == {"not run here", "setting"}
    assert {line.mode for line in evidence} <= {"stored"}


def find(found, key=KEY):
    claims, evidence = table.claims_table(found)
    (claim,) = [claim for claim in claims if claim.key == key]
    return claim, [line for line in evidence if (line.paper, line.item, line.row, line.column) == key]


def test_a_single_run_decides_nothing():
    claim, (first, second) = find(measured(comparison(), comparison(R2, as_published=1.3, corrected=1.0)))
    assert claim.verdict == "undecided" and claim.notebook == "02a_density_ratio"
    assert (claim.as_published, claim.corrected) == (1.85, 2.5)
    assert first.says == second.says == rule.UNDECIDED and (first.networks, first.runs) == (1, 1)


def test_runs_with_several_networks_and_seeds_decide():
    rows = comparison(), comparison(R2, as_published=1.3, corrected=1.0)
    found = measured(*rows, spread=[spread(KEY, 1.84, 2.5), spread(R2, 1.3, 1.0)])
    claim, (first, second) = find(found)
    assert claim.verdict == "reproduced by the papers' code only"
    assert (first.says, first.networks, first.runs) == (rule.AGREES, 5, 15) and second.says == rule.DISAGREES
    assert first.low < claim.as_published < first.high
    assert find(found, R2)[0].verdict == "reproduced by the papers' code only"  # 1.30, beyond the constant 1
    below = measured(*rows, spread=[spread(KEY, 1.84, 1.84), spread(R2, 1.9, 1.9)])
    assert find(below)[0].verdict == "not reproduced"  # R1 below R2, where the paper has it above


def test_phrases_disagree_with_a_number():
    claim, (line, _) = find(measured(comparison(as_published="never"), comparison(R2)))
    assert claim.as_published == "never" and line.says == rule.DISAGREES


def test_the_authors_network_is_a_line_of_its_own():
    key = ("vs22", "§5.1", "MNIST", "adversarial coverage peak")
    name = " | ".join(key)
    authors = {"values": {name: {"as published": {str(s): 0.46 + 0.001 * s for s in range(5)}}}}
    found = measured(comparison(key, as_published=0.4, corrected=0.4), authors=authors)
    claim, lines = find(found, key)
    assert claim.verdict == "undecided"  # the retrained networks were run once
    assert [line.says for line in lines if line.mode == "authors' network, as published"] == [rule.AGREES]


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([comparison(("g17", "Table 1", "MNIST", "R1 eps=0.2"))], NotPublishedError, r"R1 eps=0.2; near are"),
        ([comparison(), comparison()], ValueError, "compared twice"),
        ([{"paper": "g17"}], ValueError, "lacks item, row, column"),
    ],
)
def test_a_faulty_record_is_refused(rows, error, words):
    with pytest.raises(error, match=words):
        measured(*rows)


def test_every_sentence_has_a_criterion_with_bounds_and_reasons():
    criteria = table.criteria()
    assert set(criteria) == {entry.key for entry in SENTENCES}
    for key, entry in criteria.items():
        assert entry["criterion"].strip() and entry["bounds"], key
        assert (places.NOTEBOOKS / f"{entry['notebook']}.ipynb").is_file(), key


@pytest.mark.parametrize("key", sorted(table.criteria()), ids=lambda key: f"{key[0]}, {key[2]}")
def test_no_verdict_is_a_constant(key):
    """Values on the other side of any one bound turn what a sentence's runs say, and so its verdict."""
    bounds = table.criteria()[key]["bounds"]
    (entry,) = [entry for entry in SENTENCES if entry.key == key]

    def verdict(values):
        return table.judge(entry, measured(comparison(key, statistics={"corrected": values})))[0]

    beyond = {bound.statistic: bound.at_least + 1 if bound.at_most is None else bound.at_most - 1 for bound in bounds}
    assert verdict(beyond) == "reproduced"
    for bound in bounds:
        short = bound.at_least - 1 if bound.at_most is None else bound.at_most + 1
        assert verdict(beyond | {bound.statistic: short}) == "not reproduced"


JUDGED = table.stored_runs().statistics


@pytest.mark.parametrize("key", sorted(JUDGED), ids=lambda key: f"{key[0][2]}, {key[1]}")
def test_stored_runs_have_every_statistic_that_decides(key):
    assert {bound.statistic for bound in table.criteria()[key[0]]["bounds"]} <= set(JUDGED[key])


def test_what_is_not_reproduced_has_a_cause():
    for claim in published.read_claims():
        if claim.verdict in ("not reproduced", "reproduced by the papers' code only"):
            assert table.cause(claim.key), f"data/published/causes.yaml says nothing about {claim.key}"


def test_a_cause_names_metrics_of_records_that_show_it_or_is_a_conjecture():
    metrics = {}
    for path in [*places.REFERENCE.glob("*.paper.json"), *places.REFERENCE.glob("*.quick.json")]:
        record = json.loads(path.read_text(encoding="utf-8"))
        metrics.setdefault(record["notebook"], set()).update(record["metrics"], record["verdicts"])
    for about in table._yaml("causes.yaml"):
        assert ("shown_by" in about) != ("conjecture" in about), about
        for place in about["shown_by"].split("; ") if "shown_by" in about else ():
            notebook, _, name = place.partition(": ")
            shown = any(metric == name or metric.startswith(f"{name}.") for metric in metrics.get(notebook, ()))
            assert shown or (places.REFERENCE / name).is_file(), f"{about['cause']}: no metric {place}"


def test_what_the_authors_stored_stands_beside_a_rerun_and_says_where_it_is_not_the_print():
    key = ("vs22", "§5.1", "MNIST", "density crossing eps")
    claim, lines = find(measured(comparison(key, as_published=0.27, corrected=0.1)), key)
    assert claim.verdict == "undecided" and claim.cause == "stored: 0.2759, not as printed"
    assert [line.says for line in lines if line.mode == "stored"] == [table.CONTRADICTED]
    unrun, _ = find(measured(), ("vs22", "§5.1", "PathMNIST", "reference density"))
    assert (unrun.verdict, unrun.cause) == (table.CONFIRMED, "stored: 0.8319")
    drawn, (line,) = find(measured(), ("vs22", "Table 4", "PathMNIST", "share=0.5"))
    assert drawn.verdict == table.CONFIRMED and line.low < drawn.published < line.centre < line.high


@pytest.mark.parametrize(
    ("theirs", "ours", "word"),
    [(103, 28, table.CONFIRMED), (50, 28, table.CONTRADICTED), (50, 95, "reproduced"), (103, 95, "reproduced")],
)
def test_seconds_that_were_only_stored_are_no_rerun(theirs, ours, word):
    key = ("vs22", "claim", "runtime-100x", "")
    name = "speed-up over prdc at the largest size"
    statistics = {"as published": {name: theirs}, "corrected": {name: ours}}
    claim, lines = find(measured(comparison(key, statistics=statistics)), key)
    assert claim.verdict == word and [line.mode for line in lines] == ["stored", "corrected"]


def test_printed_numbers_are_widened_by_their_rounding():
    entry = published.lookup("vs22", "§5.1", "MNIST", "density crossing eps")
    interval = table.printed_interval(entry)
    assert (interval.low, interval.high) == pytest.approx((0.375, 0.39))  # VS22 cuts digits off in places
    entry = published.lookup(*KEY)
    interval = table.printed_interval(entry)
    assert (interval.low, interval.high, interval.centre) == pytest.approx((1.745, 1.915, 1.83))


def test_evidence_can_be_read_back(tmp_path):
    _, evidence = table.claims_table(measured(comparison(), spread=[spread(KEY, 1.84, 2.5)]))
    path = table.write_evidence(evidence, tmp_path / "evidence.csv")
    lines = [line for line in table.read_evidence(path) if line["column"] == KEY[3] and line["row"] == "MNIST"]
    assert [line["mode"] for line in lines] == ["as published", "corrected"]
    assert float(lines[0]["low"]) < 1.84 < float(lines[0]["high"]) and lines[0]["runs"] == "15"
