"""Tables of the notebooks: verdicts of the stored runs beside what the papers print."""

from compendium.claims import published, record
from compendium.common import tables


def test_a_page_shows_the_stored_numbers_and_verdicts(monkeypatch):
    number, sentence = ("g17", "Table 1", "MNIST", "R1 eps=0.3"), ("vs22", "claim", "sensitivity-to-k", "")
    stored = [
        published.Claim(*number, 20.7, 159.75, "never", "not reproduced", "a cause", "02a_density_ratio"),
        published.Claim(*sentence, "words", "long words", None, "reproduced", "", "12b_forensics_vs22"),
    ]
    monkeypatch.setattr(published, "read_claims", lambda: stored)
    monkeypatch.setattr(record, "_stored_verdicts", lambda: {claim.key: claim.verdict for claim in stored})
    run = record.Run("02a_density_ratio", {"profile": "quick", "seed": 0})
    other = ("g17", "Table 1", "MNIST", "R1 eps=0.5")
    shown = tables.learned(run, {number: "a number", sentence: "a sentence", other: "not run"}).data
    assert shown.loc["a number"].tolist()[1:] == ["160", "never", "not reproduced"]
    assert shown.loc["a sentence"].tolist()[1:] == ["long words", "", "reproduced"]
    assert "“" in shown.loc["a sentence", "printed"]
    assert shown.loc["not run"].tolist()[1:] == ["", "", published.NOT_RUN]


def test_metrics_stand_beside_those_at_paper_scale(monkeypatch):
    stored = {"notebook": "02_primary_results", "metrics": {"a": 123.4}}
    monkeypatch.setattr(record, "references", lambda profile: [stored])
    run = record.Run("02_primary_results", {"profile": "quick", "seed": 0})
    run.metric("a", 0.1234), run.metric("b", 99.7)
    shown = tables.learned(run, {"a": "first", "b": "second"}).data
    assert shown.to_dict("index") == {
        "first": {"this run": "0.12", "at paper scale": "123"},
        "second": {"this run": "100", "at paper scale": ""},
    }


R2 = ("g17", "Table 3", "MNIST", "R2 m=9")
SENTENCE = ("g17", "claim", "single-adversarial-sample", "")


def test_what_was_learned_is_what_the_claims_hold(monkeypatch):
    claims = [
        published.Claim(*R2, 1.55, 1.584, 121.4, "not reproduced", "", "05_real_life_m"),
        published.Claim(*SENTENCE, "“…”", "found", None, "reproduced", "", "05_real_life_m"),
    ]
    monkeypatch.setattr(published, "read_claims", lambda: claims)
    monkeypatch.setattr(record, "_stored_verdicts", lambda: {claim.key: claim.verdict for claim in claims})
    run = record.Run("05_real_life_m", {"profile": "quick", "seed": 0})
    frame = tables.learned(run, {R2: "R2", SENTENCE: "one suspect"}).data
    assert list(frame.columns) == ["printed", "as the papers' code did it", "as the paper describes it", "verdict"]
    assert list(frame.loc["R2"]) == ["1.6 (1.4 to 1.7)", "1.6", "121", "not reproduced"]
    assert frame.loc["one suspect", "printed"] == published.lookup(*SENTENCE).source
    assert list(frame.loc["one suspect"])[1:] == ["found", "", "reproduced"]
