"""The site, put together: start, notebooks, claims, timings, documents, the library's interface."""

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

from advlib import __version__, paths
from compendium import paths as places
from compendium.claims import published, record, table
from compendium.claims.published import PARTS, four_digits
from compendium.site import notebook, reference, runs
from compendium.site.markdown import Pages
from compendium.site.maths import font_face

_SOFT = ("not run", "no evidence", "setting")
_BAD = ("not ", "contradicted")


def tone(verdict: str) -> str:
    """Name the colour of a verdict: good, bad, half or soft, by its first words, whatever verdicts there are."""
    if verdict == published.VERDICTS[0] or verdict.startswith("confirmed"):
        return "good"
    if verdict.startswith(_SOFT):
        return "soft"
    return "bad" if verdict.startswith(_BAD) else "half"


def sections(text: str) -> dict[str, str]:
    """Split Markdown at its headings of level 2: heading → text; what stands before the first under ""."""
    parts = re.split(r"^## (.+)\n", re.sub(r"<!--.*?-->\n?", "", text, flags=re.S), flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def notebook_table(text: str) -> dict[str, tuple[str, str]]:
    """Read README's table of notebooks: name → (what it shows, what it reruns), both Markdown."""
    rows = re.findall(r"^\| \[[^\]]+\]\(notebooks/(\w+)\.ipynb\) \| (.*?) \| (.*?) \|$", text, re.M)
    return {name: (shows, reruns) for name, shows, reruns in rows}


def claims_rows() -> list[dict[str, Any]]:
    """Return the stored claims, each with the intervals of `results/evidence.csv` under "as_published" and "corrected".

    Returns
    -------
    list of dict
        The fields of `Claim`, and intervals: way of rerunning → "low to high", where there is one.
    """
    intervals = table.intervals()
    rows = []
    for claim in published.read_claims():
        ends = {column: intervals.get((*claim.key, mode)) for mode, column in table.MODES.items()}
        shown = {column: f"{found[0]:.3g} to {found[2]:.3g}" for column, found in ends.items() if found}
        rows.append(asdict(claim) | {"intervals": shown})
    return rows


def documents() -> dict[str, str]:
    """List the texts that the site holds: path in the repository → page."""
    named = sorted(path.relative_to(paths.HOME).as_posix() for path in (paths.HOME / "docs").glob("*.md"))
    named += ["CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"]
    pages = {name: f"doc-{name.removesuffix('.md').removeprefix('docs/').replace('/', '-').lower()}" for name in named}
    pages["docs/glossary.md"] = "glossary"
    return {name: f"{page}.html" for name, page in pages.items() if (paths.HOME / name).is_file()}


class _Site:
    """The pages written so far, and what all of them share."""

    def __init__(self, profile: str):
        self.profile = profile
        self.folder = places.RUNS / profile / "report"
        self.found = runs.collect(profile)
        self.documents = documents()
        self.written: set[str] = set()
        where = {f"notebooks/{run.name}.ipynb": run.page for run in self.found if run.page}
        where |= {"README.md": "index.html", "results/claims.csv": "claims.html", **self.documents}
        self.pages = Pages(where)
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("compendium", "site/templates"),
            autoescape=jinja2.select_autoescape(["html.j2"]),
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.globals.update(
            profile=profile, version=__version__, found=self.found, documents=self.documents, number=four_digits,
            tone=tone, hardware=record.hardware, smaller_settings=record.smaller_settings,
        )  # fmt: skip
        self.environment = environment

    def write(self, name: str, template: str, **values: Any) -> None:
        text = self.environment.get_template(template).render(page_name=name, **values)
        paths.write_atomically(self.folder / name, text)
        self.written.add(name)

    def text(self, markdown: str, folder: Path | None = None, depth: int = 0) -> Markup:
        return Markup(self.pages.html(markdown, folder, depth=depth)[0])


def _write_start(site: _Site) -> None:
    readme = sections((paths.HOME / "README.md").read_text(encoding="utf-8"))
    findings = readme.get("What came out")
    described = notebook_table("\n".join(readme.values()))
    site.write(
        "index.html",
        "index.html.j2",
        intro=site.text(readme[""]),
        findings=findings and site.text(findings),
        described={name: tuple(map(site.text, words)) for name, words in described.items()},
        counts=Counter(row["verdict"] for row in claims_rows()),
        verdicts=published.VERDICTS,
    )


def _write_notebooks(site: _Site) -> None:
    shown = [run for run in site.found if run.page]
    for before, run, after in zip([None, *shown], shown, [*shown[1:], None], strict=False):
        body, headings = notebook.body(run.executed, site.pages)
        neighbours = {"before": before, "after": after}
        site.write(run.page, "notebook.html.j2", run=run, body=body, sections=headings, **neighbours)


def _write_claims(site: _Site) -> None:
    rows = claims_rows()
    known = (*PARTS, "published", "as_published", "corrected", "verdict", "cause", "notebook", "intervals")
    site.write(
        "claims.html",
        "claims.html.j2",
        rows=rows,
        further=[name for name in dict.fromkeys(name for row in rows for name in row) if name not in known],
        pages={run.name: run.page for run in site.found},
        filters={
            "paper": sorted({row["paper"] for row in rows}),
            "item": list(dict.fromkeys(row["item"] for row in rows)),
            "verdict": [verdict for verdict in published.VERDICTS if any(row["verdict"] == verdict for row in rows)],
            "notebook": sorted({row["notebook"] for row in rows if row["notebook"]}),
        },
    )


def _write_timings(site: _Site) -> None:
    stored = {(run["notebook"], run["profile"]): run for run in record.references()}
    # One file a kind of processor.
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(places.REFERENCE.glob("benchmarks*.md")))
    site.write(
        "timings.html",
        "timings.html.j2",
        stored=stored,
        longest=max((run.record["duration_s"] for run in site.found if run.record and not run.stored), default=0.0),
        slowest=sorted(((*cell, run) for run in site.found for cell in run.slowest), key=lambda row: -row[0])[:15],
        benchmarks=text and site.text(text, places.REFERENCE, depth=1),
    )


def _write_documents(site: _Site) -> None:
    titles = {}
    for name, page in site.documents.items():
        path = paths.HOME / name
        text = path.read_text(encoding="utf-8")
        body, headings = site.pages.html(text, path.parent)
        titles[page] = Markup(headings[0][2]) if headings else name
        site.write(
            page, "document.html.j2", title=titles[page], body=Markup(body), source=name,
            sections=[(anchor, Markup(words)) for level, anchor, words in headings if level == 2],
        )  # fmt: skip
    site.write("docs.html", "documents.html.j2", titles=titles, sources={v: k for k, v in site.documents.items()})


def _write_interface(site: _Site) -> None:
    about = []
    for module in reference.modules():
        entries = [reference.entry(name, thing, site.pages) for name, thing in reference.members(module)]
        page = f"api-{module.__name__.partition('.')[2]}.html"
        first = (module.__doc__ or "").strip().splitlines()[0]
        about.append((page, module.__name__, site.text(first), [entry["name"] for entry in entries]))
        text = Markup(reference.docstring(module, site.pages))
        site.write(page, "module.html.j2", module=module.__name__, text=text, entries=entries)
    site.write("api.html", "interface.html.j2", modules=about)


def _style() -> str:
    """Return the site's one style sheet: font, colours of code in both schemes, layout."""
    layout = (Path(__file__).parent / "templates" / "site.css").read_text(encoding="utf-8")
    schemes = (
        f"@media (prefers-color-scheme: {scheme}) {{\n{HtmlFormatter(style=name).get_style_defs('.highlight')}\n}}\n"
        for scheme, name in (("light", "default"), ("dark", "github-dark"))
    )
    return font_face() + "".join(schemes) + layout


def write_site(profile: str) -> Path:
    """Write the site over all runs of a profile; where nothing was run, it shows what the repository stores.

    Parameters
    ----------
    profile : str
        "quick" or "paper".

    Returns
    -------
    Path
        `results/runs/<profile>/report/index.html`.

    Raises
    ------
    ValueError
        For a formula that cannot be drawn, with the formula.
    """
    site = _Site(profile)
    for write in (_write_notebooks, _write_claims, _write_timings, _write_documents, _write_interface, _write_start):
        write(site)
    paths.write_atomically(site.folder / "site.css", _style())
    for path in site.folder.glob("*.html"):
        if path.name not in site.written:
            path.unlink()
    return site.folder / "index.html"
