"""The papers' printed numbers: transcription, the papers' own arithmetic, lookups, and the claims table."""

import csv
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compendium import paths as places
from compendium.claims import published
from compendium.claims.published import Claim, NotPublishedError

CHANNELS = ("red", "green", "blue")


def printed(item, row, column, field="value", paper="g17"):
    """Return a cell as the file has it, trailing zeros included."""
    with (places.PUBLISHED / f"{paper}.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            if (line["item"], line["row"], line["column"]) == (item, row, column):
                return line[field]
    raise AssertionError(f"{item} {row} {column} is not in {paper}.csv")


def half_unit(text):
    """Return the largest rounding error of a printed number."""
    return 0.5 * 10.0 ** -len(text.partition(".")[2])


# A second transcription, typed apart from the data files: R1 and R2 of each row in the paper's order.
G17_TABLE_1 = {
    "MNIST": "1.83 1.32  20.70 1.30  33.43 1.32  34.15 1.30",
    "CIFAR-10 (grey)": "1.37 1.02  30.21 0.99  52.03 1.00  51.28 1.01",
    "CIFAR-10 (red)": "2.15 0.99  30.28 1.00  41.73 1.02  41.76 1.00",
    "CIFAR-10 (green)": "1.90 1.00  28.52 1.00  45.65 1.00  45.68 1.00",
    "CIFAR-10 (blue)": "1.66 1.00  19.07 1.01  38.0 1.04  36.59 1.03",
    "CIFAR-10 (combined)": "1.90 1.00  25.96 1.00  41.79 1.02  41.34 1.00",
}
G17_TABLE_2 = {
    ("MNIST", "JSMA"): "2.34 1.10",
    ("CIFAR-10 (red)", "JSMA"): "2.83 1.00",
    ("CIFAR-10 (green)", "JSMA"): "2.27 1.00",
    ("CIFAR-10 (blue)", "JSMA"): "2.25 1.03",
    ("CIFAR-10 (combined)", "JSMA"): "2.45 1.01",
    ("MNIST", "TGSM eps=0.1"): "12.84 1.06",
    ("MNIST", "TGSM eps=0.05"): "6.87 1.09",
    ("CIFAR-10 (red)", "TGSM eps=0.05"): "9.07 1.03",
    ("CIFAR-10 (green)", "TGSM eps=0.05"): "11.62 1.02",
    ("CIFAR-10 (blue)", "TGSM eps=0.05"): "9.34 1.03",
    ("CIFAR-10 (combined)", "TGSM eps=0.05"): "10.00 1.03",
}
G17_TABLE_3 = (
    "19.24 1.55  19.84 1.77  20.40 1.99  19.46 1.79  18.90 1.87  17.53 1.80  17.59 2.15  19.90 2.42  22.16 6.48"
)
VS22_TABLES = {
    ("Table 4", "MNIST"): "1.007 0.80 0.59 0.39",
    ("Table 4", "PathMNIST"): "0.83 3.002 4.92 7.91",
    ("Table 4", "OrganMNIST"): "1.01 1.41 1.86 2.29",
    ("Table 5", "MNIST"): "0.14 0.11 0.07 0.04",
    ("Table 5", "PathMNIST"): "0.49 0.51 0.56 0.59",
    ("Table 5", "OrganMNIST"): "0.34 0.30 0.27 0.25",
}


def second_transcription():
    for row, numbers in G17_TABLE_1.items():
        columns = [f"{ratio} eps={eps}" for eps in ("0.1", "0.3", "0.5", "1") for ratio in ("R1", "R2")]
        yield from (
            ("g17", "Table 1", row, column, text) for column, text in zip(columns, numbers.split(), strict=True)
        )
    for (row, attack), numbers in G17_TABLE_2.items():
        columns = [f"{ratio} {attack}" for ratio in ("R1", "R2")]
        yield from (
            ("g17", "Table 2", row, column, text) for column, text in zip(columns, numbers.split(), strict=True)
        )
    columns = [f"{ratio} m={m}" for m in range(9, 0, -1) for ratio in ("R1", "R2")]
    for column, text in zip(columns, G17_TABLE_3.split(), strict=True):
        yield "g17", "Table 3", "MNIST", column, text
    for (item, row), numbers in VS22_TABLES.items():
        columns = [f"share={share}" for share in ("0", "0.25", "0.5", "0.75")]
        yield from (("vs22", item, row, column, text) for column, text in zip(columns, numbers.split(), strict=True))


def test_every_table_is_whole():
    for paper, item, count in (
        ("g17", "Table 1", 48),
        ("g17", "Table 2", 22),
        ("g17", "Table 3", 18),
        ("vs22", "Table 4", 12),
        ("vs22", "Table 5", 12),
        ("vs22", "Table 3", 9),
        ("vs22", "Figure 13", 15),
    ):
        assert len(published.load(paper, item)) == count, (paper, item)


def test_files_agree_with_a_second_transcription():
    typed = list(second_transcription())
    assert len(typed) == 48 + 22 + 18 + 24
    for paper, item, row, column, text in typed:
        assert printed(item, row, column, paper=paper) == text, (paper, item, row, column)


def test_number_stands_in_the_source_it_was_read_from():
    percent = {0.25: "25%", 0.5: "50%", 0.75: "75%", 0.95: "95%"}
    for entry in published.load():
        if entry.value is None:
            assert re.search("“.+”", entry.source), entry.key
            continue
        text = printed(entry.item, entry.row, entry.column, paper=entry.paper)
        whole_numbers = re.findall(r"\d+(?:\.\d+)?", entry.source)
        assert text in whole_numbers or percent.get(entry.value, "-") in entry.source, entry.key


def test_every_interval_holds_its_value():
    intervals = [entry for entry in published.load() if entry.low is not None]
    assert {entry.item for entry in intervals} == {"Table 1", "Table 2", "Table 3"}
    assert len(intervals) == 48 + 22 + 18
    for entry in intervals:
        assert entry.low <= entry.value <= entry.high, entry.key


def test_intervals_that_are_not_symmetric_are_the_papers_own():
    # A normal 95 % interval is symmetric about its mean; four printed ones are not, beyond rounding (checked twice).
    known = {
        ("Table 1", "CIFAR-10 (red)", "R1 eps=1"),
        ("Table 2", "MNIST", "R2 JSMA"),
        ("Table 2", "CIFAR-10 (red)", "R1 TGSM eps=0.05"),
        ("Table 3", "MNIST", "R1 m=1"),
    }
    skewed = set()
    for entry in published.load("g17"):
        if entry.low is None:
            continue
        value, low, high = (half_unit(printed(*entry.key[1:], field=field)) for field in ("value", "low", "high"))
        if abs((entry.low + entry.high) / 2 - entry.value) > value + (low + high) / 2 + 1e-9:
            skewed.add(entry.key[1:])
    assert skewed == known


def test_combined_is_the_mean_of_the_channels():
    # Equation 4 of G17; holds for all twelve printed values within what rounding of the four numbers allows.
    combined = [entry for entry in published.load("g17") if entry.row == "CIFAR-10 (combined)"]
    assert len(combined) == 8 + 4
    for entry in combined:
        keys = [(entry.item, f"CIFAR-10 ({channel})", entry.column) for channel in CHANNELS]
        mean = sum(published.value("g17", *key) for key in keys) / 3
        slack = half_unit(printed(*entry.key[1:])) + sum(half_unit(printed(*key)) for key in keys) / 3
        assert abs(mean - entry.value) <= slack + 1e-9, entry.key


def test_published_r1_and_r2_intervals_never_overlap():
    # "All comparisons are statistically significantly different": true of the printed intervals of all three tables.
    adversarial = [entry for entry in published.load("g17") if entry.column.startswith("R1 ")]
    assert len(adversarial) == 44
    for entry in adversarial:
        real = published.lookup("g17", entry.item, entry.row, entry.column.replace("R1", "R2"))
        assert entry.low > real.high, entry.key


def test_where_vs22_contradicts_itself_both_numbers_are_kept():
    assert published.value("vs22", "§4.1", "MNIST", "model images") == 67900
    assert published.value("vs22", "Table 3", "MNIST", "model images") == 67000
    for name in ("PathMNIST", "OrganMNIST"):
        total, model, held_out = (
            published.value("vs22", "Table 3", name, column)
            for column in ("images", "model images", "validation images")
        )
        assert total == model + held_out
    # Two experiments, two reference sets: coverage under FGSM and under the boundary attack.
    assert published.value("vs22", "§5.1", "MNIST", "reference coverage") == 0.39
    assert published.value("vs22", "§5.2", "MNIST", "reference coverage") == 0.14
    assert published.value("vs22", "Table 5", "MNIST", "share=0") == 0.14


def test_stored_timings_are_named_as_such_and_give_the_speed_up():
    timings = published.load("vs22", "Figure 13")
    assert all("n2gem" in entry.source and "not printed in the paper" in entry.source for entry in timings)
    ratio = published.value("vs22", "Figure 13", "prdc", "seconds n=50000") / published.value(
        "vs22", "Figure 13", "n2gem GPU", "seconds n=50000"
    )
    assert ratio == pytest.approx(102.6, abs=0.05)


def test_keys_are_unique_and_sources_given():
    entries = published.load()
    assert len({entry.key for entry in entries}) == len(entries)
    assert all(entry.source and entry.paper in published.PAPERS for entry in entries)
    assert all(cell == cell.strip() for entry in entries for cell in (*entry.key, entry.source))


def test_claims_are_sentences():
    assert {"transferable", "ten-samples-suffice", "single-adversarial-sample"} <= {
        c.row for c in published.load("g17", "claim")
    }
    assert {"model-agnostic", "runtime-100x", "class-8-dominates"} <= {c.row for c in published.load("vs22", "claim")}
    assert len(published.load(item="claim")) == len(published.load("g17", "claim")) + len(
        published.load("vs22", "claim")
    )
    assert all(claim.value is None and claim.column == "" for claim in published.load(item="claim"))


def test_lookup():
    assert published.value("g17", "Table 1", row="MNIST", column="R1 eps=0.1") == 1.83
    entry = published.lookup("g17", "Table 2", "CIFAR-10 (red)", "R1 TGSM eps=0.05")
    assert (entry.value, entry.low, entry.high) == (9.07, 8.74, 9.71)
    for eps in (0.1, 0.3, 0.5, 1.0):
        published.value("g17", "Table 1", "CIFAR-10 (grey)", f"R2 eps={eps:g}")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (("g17", "Table 1", "MNIST", "R1 eps=0.2"), "near are: .*R1 eps=0.3"),
        (("g17", "Table 1", "CIFAR-10 gray", "R1 eps=0.1"), r"CIFAR-10 \(grey\)"),
        (("g17", "Table 9"), "there are Table 1, Table 2, Table 3"),
        (("g18", "Table 1"), "paper must be one of g17, vs22, but is 'g18'"),
        (("vs22", "claim", "model-agnostc"), "model-agnostic"),
    ],
)
def test_lookup_of_what_is_not_there_names_what_is(key, words):
    with pytest.raises(NotPublishedError, match=words):
        published.lookup(*key)
    with pytest.raises(KeyError):
        published.value(*key)


def test_a_sentence_has_no_number():
    with pytest.raises(NotPublishedError, match="sentence"):
        published.value("g17", "claim", "transferable")


GOOD = "g17,Table 1,MNIST,R1,1.5,1,2,cell"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([GOOD, GOOD], "line 3: the key g17 | Table 1 | MNIST | R1 is there twice"),
        (["g17,Table 1,MNIST,R1,x,,,cell"], "line 2: value, low and high must be numbers"),
        (["g17,Table 1,MNIST,R1,nan,,,cell"], "must be finite"),
        (["g17,Table 1,MNIST,R1,1,0,,cell"], "both"),
        (["g17,Table 1,MNIST,R1,,,,cell"], "a claim has no value"),
        (["g17,claim,short,,1,,,“words”"], "a claim has no value"),
        (["g17,Table 1,MNIST,R1,1,,,"], "source"),
        (["vs22,Table 1,MNIST,R1,1,,,cell"], "paper must be 'g17'"),
        (["g17,Table 1,MNIST,R1,1,,"], "8 cells"),
    ],
)
def test_a_damaged_file_is_refused_by_line(tmp_path, monkeypatch, lines, words):
    monkeypatch.setattr(places, "PUBLISHED", tmp_path)
    header = "paper,item,row,column,value,low,high,source"
    (tmp_path / "g17.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)):
        published.load("g17")


def test_a_wrong_header_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "PUBLISHED", tmp_path)
    (tmp_path / "g17.csv").write_text("# note\n" + GOOD + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must start with the columns paper,item"):
        published.load("g17")


CLAIM = Claim("g17", "Table 1", "MNIST", "R1 eps=0.1", 1.83, 1.85, None, "not reproduced", "why", "02a_density_ratio")


def test_claims_file_round_trip(tmp_path):
    sentence = replace(CLAIM, item="claim", row="transferable", column="", published="“a, b”", as_published="AUROC 0.7")
    path = published.write_claims([CLAIM, sentence], tmp_path / "deep" / "claims.csv")
    assert published.read_claims(path) == [CLAIM, sentence]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "paper,item,row,column,published,as_published,corrected,verdict,cause,notebook"
    assert len(lines) == 3  # one line a row: line tools and diffs stay usable
    assert [entry.name for entry in path.parent.iterdir()] == ["claims.csv"]


@given(
    number=st.floats(allow_nan=False, allow_infinity=False),
    phrase=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
)
def test_any_number_and_phrase_survive_the_round_trip(tmp_path_factory, number, phrase):
    text = published.one_line(phrase)
    table = [replace(CLAIM, as_published=number, corrected=published.number_or_text(phrase), cause=text)]
    path = tmp_path_factory.mktemp("claims") / "claims.csv"
    assert published.read_claims(published.write_claims(table, path)) == table


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = published.write_claims([CLAIM], tmp_path / "claims.csv")
    before = path.read_bytes()

    def breaks_off():
        yield CLAIM
        raise RuntimeError("cut off")

    with pytest.raises(RuntimeError, match="cut off"):
        published.write_claims(breaks_off(), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["claims.csv"]


@pytest.mark.parametrize(("verdict", "copies", "words"), [("maybe", 1, "verdict must be"), ("reproduced", 2, "twice")])
def test_a_damaged_claims_file_is_refused(tmp_path, verdict, copies, words):
    claim = Claim("g17", "Table 1", "MNIST", "R1", 1.0, 1.0, 1.0, verdict, "", "")
    path = published.write_claims([claim] * copies, tmp_path / "claims.csv")
    with pytest.raises(ValueError, match=words):
        published.read_claims(path)
