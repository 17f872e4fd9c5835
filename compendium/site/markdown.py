"""Markdown as pages of the site hold it: maths drawn, pictures inside, links to pages of the site or to the web."""

import base64
import html
import mimetypes
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from advlib import paths
from compendium.site.maths import mathml

_CODE = re.compile(r"^\s*(?:javascript|vbscript|data:(?!image/))", re.I)
_OUTSIDE = re.compile(r"^(?:https?:|mailto:|doi:)")


def plain(heading: str) -> str:
    """Return a heading's text without its HTML."""
    return html.unescape(re.sub(r"<[^>]+>", "", heading)).strip()


def slug(heading: str) -> str:
    """Return a heading's anchor as hosts of repositories name it: lower case, words joined by hyphens."""
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain(heading).lower()).strip())


def scrolling_tables(text: str) -> str:
    """Put every table of a piece of HTML into a box of its own, which scrolls where the page must not."""
    text = re.sub(r"<table\b", '<div class="scroll" tabindex="0"><table', text)
    return text.replace("</table>", "</table></div>")


def picture(path: Path) -> str:
    """Return a picture's content as an address, so that a page needs no other file."""
    kind, _ = mimetypes.guess_type(path.name)
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"


class _Renderer(IPythonRenderer):
    """Write HTML, asking `link` where a link of the text leads, and note the headings."""

    def __init__(self, folder: Path, link: Callable[[Path, str], str | None], attachments: Mapping, depth: int):
        super().__init__(escape=False, attachments=attachments)
        self.folder, self.lead, self.depth = folder, link, depth
        self.headings: list[tuple[int, str, str]] = []

    def block_math(self, body):
        return f'<div class="scroll formula">{mathml(body, display=True)}</div>\n'

    def inline_math(self, body):
        return mathml(body)

    def latex_environment(self, name, body):
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def heading(self, text, level, **attrs):
        level = min(level + self.depth, 6)
        own = re.match(r'<a id="([\w-]+)"></a>', text)  # a heading may name its anchor itself
        text = text[own.end() :] if own else text
        anchor = own[1] if own else slug(text)
        taken = [name for _, name, _ in self.headings]
        if anchor in taken:
            anchor = next(name for n in range(1, len(taken) + 2) if (name := f"{anchor}-{n}") not in taken)
        self.headings.append((level, anchor, text))
        return f'<h{level} id="{anchor}">{text} <a class="anchor" href="#{anchor}" aria-label="Link">¶</a></h{level}>\n'

    def link(self, text, url, title=None):
        address = self.lead(self.folder, url)
        if address is None:
            return f'<span class="file" title="{html.escape(url)}: a file of the repository">{text}</span>'
        return super().link(text, address, title)

    def image(self, text, url, title=None):
        path = self.folder / url
        if _CODE.match(url):
            return html.escape(text)
        if not url.startswith(("attachment:", "data:")) and path.is_file():
            url = picture(path)
        return super().image(text, url, title)


class Pages:
    """Where the site keeps what files of the repository hold: file → page.

    Parameters
    ----------
    places : dict
        Path in the repository, as "docs/results.md" → name of a page of the site.
    """

    def __init__(self, places: Mapping[str, str] = {}):
        self.places = dict(places)

    def link(self, folder: Path, url: str) -> str | None:
        """Return where a link in a text of `folder` leads: the web, a page, an anchor; None for any other file."""
        if _OUTSIDE.match(url) or url.startswith("#"):
            return url
        file, mark, anchor = url.partition("#")
        page = self.places.get(paths.shown((folder / file).resolve()))
        return page and f"{page}{mark}{anchor}"

    def html(
        self, text: str, folder: Path | None = None, *, attachments: Mapping | None = None, depth: int = 0
    ) -> tuple[str, list[tuple[int, str, str]]]:
        """Convert a text.

        Parameters
        ----------
        text : str
            Markdown.
        folder : Path, optional
            Where the text lies, from which its links and pictures count; the repository itself by default.
        attachments : dict, optional
            Pictures of a notebook's cell.
        depth : int
            How many levels its headings go down.

        Returns
        -------
        (str, list of (int, str, str))
            HTML; level, anchor and HTML of each heading.
        """
        renderer = _Renderer(folder or paths.HOME, self.link, attachments or {}, depth)
        body = MarkdownWithMath(renderer=renderer).render(text)
        return scrolling_tables(body), renderer.headings
