"""What a reader may count on in every notebook: its answer first, its method in view, few words, true numbers."""

import re

import nbformat
import prose
import pytest

from advlib import paths
from compendium import paths as places
from compendium import runner

# Still in its older shape: whoever rewrites it takes it out of this list.
OLDER = ("13_hypothesis_tests",)
NOTEBOOKS = [path for path in runner.notebooks() if path.stem not in OLDER]
WORDS = 1200
ROWS = 8
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path, kind="markdown"):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def without_exercises(path):
    """Text cells before the exercises, and the closing ones."""
    return [cell for cell in cells(path) if "exercise" not in cell.metadata.get("tags", [])]


@EACH
def test_it_opens_with_its_question_and_its_answer(path):
    first = cells(path)[0].source
    question, answer = (re.search(rf"\*\*{word}\.\*\* (.+)", first) for word in ("Question", "Answer"))
    assert question and question[1].strip().endswith("?")
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", answer[1].strip())
    assert 1 <= len(sentences) <= 3, sentences


@EACH
def test_it_has_no_more_words_than_a_reader_takes(path):
    assert sum(len(cell.source.split()) for cell in without_exercises(path)) <= WORDS


@EACH
def test_it_ends_with_what_was_learned_limits_and_exercises(path):
    text = "\n".join(cell.source for cell in cells(path))
    learned, limits, references = (text.index(f"## {word}") for word in ("What we learned", "Limits", "References"))
    assert learned < limits < references and learned < text.index("## Exercises")


@EACH
def test_every_stored_figure_of_paper_scale_is_shown(path):
    stored = {p.name for p in places.REFERENCE.glob(f"{path.stem}.paper.*.png")}
    shown = set(re.findall(r"\(\.\./results/reference/([\w.]+\.png)\)", "\n".join(c.source for c in cells(path))))
    assert stored <= shown


@EACH
def test_no_table_is_longer_than_a_reader_reads(path):
    for cell in cells(path, "code"):
        for output in cell.outputs:
            html = output.get("data", {}).get("text/html", "")
            body = html.partition("<tbody>")[2]
            assert body.count("<tr>") + body.count("<tr ") <= ROWS, cell.source[:80]


@EACH
def test_every_number_in_the_text_is_in_a_record(path):
    assert prose.unexplained(path) == []


@EACH
def test_links_to_the_glossary_lead_somewhere(path):
    glossary = (paths.HOME / "docs" / "glossary.md").read_text(encoding="utf-8")
    linked = re.findall(r"glossary\.md#([\w-]+)", "\n".join(cell.source for cell in cells(path)))
    assert linked, "no term is linked to the glossary"
    for anchor in linked:
        assert f'id="{anchor}"' in glossary or f"#{anchor}" in glossary, anchor


@pytest.mark.parametrize(
    ("text", "values", "right"),
    [
        ("R1 is 1.85 here", {1.8512}, True),
        ("R1 is 1.85 here", {1.8}, False),
        ("44 % of the pixels", {0.4371}, True),
        ("44 % of the pixels", {0.5}, False),
        ("two of 9 digits in Table 13 and `k = 77`", set(), True),
        ("$x = 0.123$, see arXiv:1705.02224 and 2017", set(), True),
    ],
)
def test_a_number_without_a_record_is_noticed(text, values, right):
    assert all(prose.holds(number, values) for number in prose.numbers(text)) is right
