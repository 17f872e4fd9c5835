"""The report as a site: complete, closed in itself, drawn by a browser at the width of a telephone and of a desk."""

import dataclasses
import re
from html.parser import HTMLParser

import browser
import nbformat
import pytest
from markupsafe import escape

from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import published, record, table
from compendium.site import build, notebook, reference
from compendium.site.markdown import Pages, slug
from compendium.site.maths import FONT, mathml

SHOWN = ("01", "03", "12a")  # pictures and maths; tables; causes
RUN_HERE = "01"
CODE = re.compile(r"```.*?```|`[^`]*`", re.S)
FORMULA = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$[^$]+?(?<!\\)\$", re.S)


def formulas(text):
    """Count formulas in Markdown, by a rule of our own."""
    return len(FORMULA.findall(CODE.sub("", text)))


def markdown_of(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site from three notebooks as the repository holds them, one of them as if it had been run here."""
    folder = tmp_path_factory.mktemp("runs")
    chosen = runner.notebooks(SHOWN)
    (mine,) = runner.notebooks([RUN_HERE])
    run = folder / "quick" / mine.stem
    run.mkdir(parents=True)
    executed = nbformat.read(mine, as_version=4)
    next(cell for cell in executed.cells if cell.cell_type == "code").metadata["papermill"] = {"duration": 12.4}
    nbformat.write(executed, run / mine.name)
    (run / "metrics.json").write_text(record.reference_path(mine.stem, "quick").read_text(encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "RUNS", folder)
        patch.setattr(runner, "notebooks", lambda names=(): chosen)
        stale = folder / "quick" / "report" / "99_gone.html"
        stale.parent.mkdir()
        stale.write_text("of a notebook that is no more")
        index = build.write_site("quick")
    return index.parent


@pytest.fixture(scope="module")
def texts(site):
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(site.glob("*.html"))}


class Links(HTMLParser):
    """Anchors of a page, where its links lead, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loads, self.silent = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.anchors += [values["id"]] if values.get("id") else []
        self.links += [values["href"]] if tag == "a" and "href" in values else []
        self.loads += [values[name] for name in ("src", "data", "poster") if name in values]
        self.loads += [values["href"]] if tag == "link" else []
        if tag == "img" and not values.get("alt"):
            self.silent.append(values["src"][:60])


def test_all_pages_are_there_and_alike(site, texts):
    stems = [path.stem for path in runner.notebooks(SHOWN)]
    named = {"index", "claims", "timings", "docs", "api", "doc-results", "doc-contributing", *stems}
    assert {f"{name}.html" for name in named} | {f"api-{room}.html" for room in ("ulsif", "prdc", "detectors")} <= {
        *texts
    }
    assert "99_gone.html" not in texts
    for name, text in texts.items():
        assert text.startswith("<!doctype html>") and 'name="viewport"' in text, name
        assert "<h1" in text, name
        for address in ("index.html", "index.html#notebooks", "claims.html", "timings.html", "docs.html", "api.html"):
            assert '<nav aria-label="Site">' in text and f'href="{address}"' in text, name
    style = (site / "site.css").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in style and f'font-family: "{FONT}"' in style
    assert "SIL Open Font License" in style


def test_nothing_is_loaded_from_anywhere(site, texts):
    for name, text in texts.items():
        found = Links(text)
        assert [each[:60] for each in found.loads if each != "site.css" and not each.startswith("data:")] == [], name
        assert found.silent == [], f"{name}: pictures without words"
        assert "require" not in text.partition("<script")[2].lower() and "mathjax" not in text.lower(), name
    style = (site / "site.css").read_text(encoding="utf-8")
    assert "@import" not in style and re.findall(r"url\((?!data:)", style) == []


def test_every_link_leads_somewhere(texts):
    pages = {name: Links(text) for name, text in texts.items()}
    broken, doubled = [], []
    for name, page in pages.items():
        doubled += [(name, anchor) for anchor in set(page.anchors) if page.anchors.count(anchor) > 1]
        for link in page.links:
            if re.match(r"https?:|mailto:", link):
                continue
            file, _, anchor = link.partition("#")
            target = pages.get(file or name)
            filtered = file == "claims.html" and "=" in anchor
            if target is None or (anchor and not filtered and anchor not in target.anchors):
                broken.append((name, link))
    assert broken == [] and doubled == []


@pytest.mark.parametrize("path", runner.notebooks(), ids=lambda path: path.stem)
def test_every_formula_of_the_notebooks_is_drawn(path):
    pages = Pages()
    for source in markdown_of(path):
        text, _ = pages.html(source, places.NOTEBOOKS)
        assert text.count("<math") == formulas(source), source
        assert "merror" not in text


def test_every_formula_of_the_documents_is_drawn(texts):
    for name, page in build.documents().items():
        assert texts[page].count("<math") == formulas((paths.HOME / name).read_text(encoding="utf-8")), name


def test_what_is_no_formula_is_named():
    with pytest.raises(ValueError, match=r"formula '\\\\frac\{1' cannot be drawn"):
        mathml(r"\frac{1")
    assert '<mrow class="overline"><mi>R</mi></mrow>' in mathml(r"\overline{R}")
    assert mathml("a < b & c".replace("&", r"\&")).count("alttext") == 1


def test_the_start_says_what_came_out(texts):
    start = texts["index.html"]
    readme = build.sections((paths.HOME / "README.md").read_text(encoding="utf-8"))
    findings = re.findall(r"^\d\. \*\*(.+?)\*\*", readme["What came out"], re.M)
    assert len(findings) == 5
    shown = re.sub(r"<[^>]+>|\s+", " ", start)
    assert all(re.sub(r"\s+", " ", words.replace('"', "&quot;"))[:30] in shown for words in findings)
    for path in runner.notebooks(SHOWN):
        assert f'<a href="{path.stem}.html">' in start
    assert start.count("not run yet") == len(SHOWN) - 1 and f"advlib run {RUN_HERE}" not in start


def test_claims_stand_in_the_table_with_their_verdicts(texts):
    stored = published.read_claims()
    text = texts["claims.html"]
    assert text.count("<tr data-paper") >= len(stored)
    for verdict in {claim.verdict for claim in stored}:
        assert f'<option value="{escape(verdict)}">' in text
    assert 'href="03_sample_size.html">03</a>' in text  # a notebook's page from its row


def test_new_verdicts_and_columns_of_the_claims_need_no_change(tmp_path, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Wider(published.Claim):
        spread: float | None = None

    names = [field.name for field in dataclasses.fields(published.Claim)]
    old = [claim for claim in published.read_claims() if claim.verdict == "reproduced"][:2]
    wider = [Wider(*(getattr(claim, name) for name in names), spread=0.125) for claim in old]
    wider[0] = dataclasses.replace(wider[0], verdict="brand new", notebook="")
    monkeypatch.setattr(published, "VERDICTS", (*published.VERDICTS, "brand new"))
    monkeypatch.setattr(published, "read_claims", lambda path=None: wider)
    monkeypatch.setattr(places, "RUNS", tmp_path)
    monkeypatch.setattr(runner, "notebooks", lambda names=(): [])
    monkeypatch.setattr(build, "documents", dict)
    monkeypatch.setattr(reference, "modules", list)
    text = (build.write_site("paper").parent / "claims.html").read_text(encoding="utf-8")
    assert '<option value="brand new">' in text and "<th>spread</th>" in text and "<td>0.125</td>" in text
    assert {build.tone(verdict) for verdict in published.VERDICTS} == {"good", "half", "bad", "soft"}


def test_claims_show_their_intervals():
    rows = {tuple(row[part] for part in ("paper", "item", "row", "column")): row for row in build.claims_rows()}
    assert len(rows) == len(published.read_claims())
    line = next(line for line in table.read_evidence() if line["mode"] == "as published" and line["low"])
    shown = rows[line["paper"], line["item"], line["row"], line["column"]]["intervals"]["as_published"]
    assert shown == f"{float(line['low']):.3g} to {float(line['high']):.3g}"


def test_timings_say_what_ran_here_and_what_is_stored(texts):
    text = texts["timings.html"]
    assert text.count("not run<") == len(SHOWN) - 1
    slowest = text[text.index('id="cells"') :]
    assert slowest.count("<tr>") >= 2 and '<td class="n">12</td>' in slowest
    assert 'class="scroll"' in text and "benchmarks" in text.lower()


def test_the_interface_has_every_public_name(texts):
    for module in reference.modules():
        text = texts[f"api-{module.__name__.partition('.')[2]}.html"]
        for name, thing in reference.members(module):
            assert f'id="{name}"' in text, f"{module.__name__}.{name}"
            if callable(thing):
                assert thing.__doc__, f"{module.__name__}.{name} has no docstring"
        assert not re.search(r"^-{4,}$", text, re.M), "a docstring's heading was not read"
    assert "ULSIF.fit" in texts["api-ulsif.html"] and "<h5>Parameters</h5>" in texts["api-ulsif.html"]


def test_a_glossary_is_taken_up_and_a_readme_may_be_short(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "docs").mkdir(parents=True)
    (home / "README.md").write_text("# Short\nOne [file](LICENSE), one [page](docs/glossary.md#ball).\n")
    (home / "docs" / "glossary.md").write_text("# Glossary\n\n## Ball\n\nAll points within $r$.\n\n## Ball\n")
    monkeypatch.setattr(paths, "HOME", home)
    monkeypatch.setattr(places, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(runner, "notebooks", lambda names=(): [])
    monkeypatch.setattr(reference, "modules", list)
    folder = build.write_site("quick").parent
    start, glossary = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "glossary.html"))
    assert '<a href="glossary.html">Glossary</a>' in start and 'href="glossary.html#ball"' in start
    assert '<span class="file"' in start and "What came out" not in start
    assert 'id="ball"' in glossary and 'id="ball-1"' in glossary and "<math" in glossary


def test_outputs_of_every_kind_are_shown():
    outputs = [
        nbformat.v4.new_output("stream", text="\x1b[31mred\x1b[0m <tag>"),
        nbformat.v4.new_output("error", ename="E", evalue="bad", traceback=["line <1>"]),
        nbformat.v4.new_output("display_data", {"text/markdown": "$x$ and *this*"}),
        nbformat.v4.new_output("display_data", {"image/png": "AAAA"}, metadata={"alt": 'a "map"'}),
        nbformat.v4.new_output("display_data", {"image/jpeg": "BBBB", "text/plain": "p"}),
        nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg></svg>"}),
        nbformat.v4.new_output("execute_result", {"text/html": "<table><tr><td>1</td></tr></table>"}),
        nbformat.v4.new_output("execute_result", {"text/plain": "array([1])"}),
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# 99 · Toy\n## Part & parcel"),
        nbformat.v4.new_code_cell("x = 1 < 2", outputs=outputs),
        nbformat.v4.new_markdown_cell("## Part & parcel"),
    ]
    body, sections = notebook.body(nbformat.v4.new_notebook(cells=cells), Pages())
    for words in (
        "&lt;tag&gt;",
        "line &lt;1&gt;",
        "<math",
        "<em>this</em>",
        'alt="a &quot;map&quot;"',
        "<svg>",
        "array([1])",
    ):
        assert words in body, words
    assert "Figure of the section “Part &amp; parcel”" in body
    assert body.count('<div class="scroll" tabindex="0"><table>') == body.count("</table></div>") == 1
    assert len({anchor for anchor, _ in sections}) == 2


def test_a_page_carries_the_pictures_of_its_text():
    picture = sorted(places.REFERENCE.glob("*.paper.*.png"))[0].name
    text, _ = Pages().html(f"![speed](../results/reference/{picture})", places.NOTEBOOKS)
    assert 'src="data:image/png;base64,' in text and 'alt="speed"' in text


def test_headings_have_the_anchors_that_hosts_of_repositories_give_them():
    assert slug("Verdicts by item") == "verdicts-by-item"
    assert slug("5 · <code>x</code> &amp; y, z?") == "5--x--y-z"


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if browser.executable() is None:
        pytest.skip("there is no Chromium here: install Debian's package `chromium` to see the site drawn")
    with browser.page(tmp_path_factory.mktemp("browser")) as page:
        yield page


EACH_KIND = [
    "index", "01_intuition", "03_sample_size", "12a_forensics_g17", "claims", "timings", "docs", "doc-results", "api",
    "api-detectors", "api-ulsif",
]  # fmt: skip


@pytest.mark.parametrize("name", EACH_KIND)
def test_a_browser_draws_the_page(site, texts, tab, name):
    for width in (400, 1280):
        tab.width(width)
        tab.open(site / f"{name}.html")
        assert tab.complaints() == [], f"{name} at {width}"
        assert {address.partition(":")[0] for address in tab.asked_for()} == {"file"}
        assert tab.script("document.documentElement.scrollWidth") <= width, f"{name} overflows at {width}"
        assert tab.script("document.body.scrollWidth") <= width
        drawn = tab.script(
            "[...document.querySelectorAll('math')].map(each => each.getBoundingClientRect())"
            ".map(box => [box.width, box.height])"
        )
        assert len(drawn) == texts[f"{name}.html"].count("<math")
        assert all(across > 2 and high > 2 for across, high in drawn)
        if drawn:
            loaded = f"[...document.fonts].some(font => font.family.includes('{FONT}') && font.status === 'loaded')"
            assert tab.script(loaded)


def test_a_browser_sees_an_overflow_and_an_error(tab, tmp_path):
    """What the test above holds against a page, shown on one that has it."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<div style="width: 900px">wide</div><script>console.error("no")</script><img src="http://127.0.0.1:9/">'
    )
    tab.width(400)
    tab.open(page)
    assert tab.script("document.documentElement.scrollWidth") > 400
    assert tab.complaints() and any(address.startswith("http:") for address in tab.asked_for())


def test_a_reader_filters_the_claims(site, tab):
    def rows(condition="true"):
        return tab.script(
            f"[...document.querySelectorAll('#claims tbody tr')].filter(row => !row.hidden && {condition}).length"
        )

    def choose(field, value):
        tab.script(
            f"(() => {{ const field = document.querySelector('[name={field}]'); field.value = {value!r};"
            " field.dispatchEvent(new Event('input', {bubbles: true})) })()"
        )

    tab.width(1280)
    tab.open(site / "claims.html")
    everything = rows()
    assert everything > 200
    choose("verdict", "not reproduced")
    assert 0 < rows() < everything and rows("row.dataset.verdict !== 'not reproduced'") == 0
    choose("paper", "g17")
    assert rows() > 0 and rows("row.dataset.paper !== 'g17'") == 0
    some = rows()
    choose("text", "table 1")
    assert 0 < rows() <= some and rows("!row.textContent.toLowerCase().includes('table')") == 0
    assert tab.script("document.getElementById('shown').textContent") == f"{rows()} of {everything} rows"
    assert "paper=g17" in tab.script("location.hash")
    tab.script("document.querySelector('button[type=reset]').click()")
    tab.script("new Promise(done => setTimeout(done, 50))")
    assert rows() == everything
    tab.open(site / "index.html")
    tab.open(site / "claims.html", "#text=no+such+words+anywhere")
    assert rows() == 0
