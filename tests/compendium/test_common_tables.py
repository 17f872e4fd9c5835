"""Tables of notebooks: what the stored runs say, in few digits."""

from compendium.claims import published, record
from compendium.common import tables

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
