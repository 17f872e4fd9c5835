"""Glossary and teaching guide agree with the notebooks that they speak of."""

import re
from pathlib import Path

import nbformat
import pytest

from compendium import paths as places
from compendium import runner
from compendium.exercises import feedback

DOCS = Path(__file__).resolve().parents[2] / "docs"
GLOSSARY = (DOCS / "glossary.md").read_text(encoding="utf-8")
TEACHING = (DOCS / "teaching.md").read_text(encoding="utf-8")
ANCHORS = re.findall(r'<a id="([^"]+)"></a>', GLOSSARY)
EXERCISE = r"\b\d\d[a-z]?\.\d\b"


def entries():
    """Title and text of each term."""
    parts = re.split(r"^### ", GLOSSARY, flags=re.M)[1:]
    return {re.sub(r"<a[^>]*></a>", "", part.split("\n")[0]).strip(): part.split("\n", 1)[1] for part in parts}


def linked(text, inside=False):
    """Anchors of the glossary that a text links to; the glossary itself links without its name."""
    return re.findall(r"\]\(#([^)]+)\)" if inside else r"glossary\.md#([^)\s\"\\]+)", text)


def test_every_term_that_is_linked_exists():
    texts = {path.name: path.read_text(encoding="utf-8") for path in places.NOTEBOOKS.rglob("*.ipynb")}
    texts |= {
        path.name: path.read_text(encoding="utf-8")
        for path in [*DOCS.glob("*.md"), places.NOTEBOOKS.parent / "README.md"]
    }
    links = {(name, anchor) for name, text in texts.items() for anchor in linked(text)}
    links |= {("glossary.md", anchor) for anchor in linked(GLOSSARY, inside=True)}
    assert len(links) > 30
    assert {link for link in links if link[1] not in ANCHORS} == set()


def test_anchors_are_unique_and_terms_in_order():
    assert len(ANCHORS) == len(set(ANCHORS)) >= len(entries()) > 35
    firsts = re.findall(r'^### <a id="([^"]+)"', GLOSSARY, re.M)
    assert len(firsts) == len(entries()), "each term has an anchor"
    names = [name.lower() for name in entries() if name.isascii()]
    assert names == sorted(names)


@pytest.mark.parametrize(("name", "text"), entries().items(), ids=lambda x: x[:20])
def test_a_term_is_said_in_few_plain_sentences(name, text):
    plain = re.sub(
        r"\$[^$]*\$|\([^()]*(arXiv|doi|JMLR|VS22|G17)[^()]*(\([^()]*\)[^()]*)*\)", "", " ".join(text.split())
    )
    assert 1 <= len(re.findall(r"[.!?](?=\s|$)", plain)) <= 6 and len(plain.split()) <= 80


def minutes(title):
    """Minutes in the heading that a format begins with, and in each row of its table."""
    heading, body = re.search(rf"^##+ ({title}[^\n]*)\n(.*?)(?=^##|\Z)", TEACHING, re.M | re.S).groups()
    return int(re.search(r"(\d+) minutes", heading)[1]), [int(x) for x in re.findall(r"^\| (\d+) \|", body, re.M)]


@pytest.mark.parametrize("title", ["A lesson", "A lab", "Week 1", "Week 2", "Week 3", "Week 4"])
def test_the_minutes_of_a_plan_add_up(title):
    whole, rows = minutes(title)
    assert len(rows) >= 4 and sum(rows) == whole


def test_sections_and_exercises_that_the_guide_names_exist():
    named = re.findall(r"\[(\d\d[a-z]?) §(\d+)\]\(\.\./notebooks/(\d\d[a-z]?)_", TEACHING)
    assert len(named) > 20
    for number, section, link in named:
        (path,) = runner.notebooks([number])
        text = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
        assert number == link and re.search(rf"^## {section} · ", text, re.M), f"{number} §{section}"
    exercises = set(re.findall(EXERCISE, TEACHING))
    assert len(exercises) > 15
    for name in exercises:
        number, _, place = name.partition(".")
        assert 1 <= int(place) <= len(feedback.checks_of(number)), name
