"""An executed notebook as the body of a page: cells in order, outputs in the richest form without scripts."""

import html
from typing import Any

import nbformat
from markupsafe import Markup
from nbconvert.filters import ansi2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from compendium import paths as places
from compendium.site.markdown import Pages, plain, scrolling_tables

_lexer, _formatter = PythonLexer(), HtmlFormatter()


def title(notebook: nbformat.NotebookNode) -> str:
    """Return a notebook's title: its first line, which is a heading."""
    first = notebook.cells[0].source.splitlines()[0]
    return first.removeprefix("# ").strip()


def code(source: str) -> str:
    """Return Python source as HTML."""
    return highlight(source, _lexer, _formatter)


def _output(output: Any, pages: Pages, heading: str) -> str:
    if output.output_type == "stream":
        return f"<pre>{ansi2html(output.text)}</pre>"
    if output.output_type == "error":
        return f'<pre class="error">{ansi2html(chr(10).join(output.traceback))}</pre>'
    data, about = output.data, output.metadata
    if "text/html" in data:
        return scrolling_tables(data["text/html"])
    if "text/markdown" in data:
        return pages.html(data["text/markdown"], places.NOTEBOOKS)[0]
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            alt = about.get("alt") or about.get(kind, {}).get("alt") or f"Figure of the section “{heading}”"
            return f'<img alt="{html.escape(alt)}" src="data:{kind};base64,{data[kind].strip()}">'
    if "image/svg+xml" in data:
        return f'<div role="img" aria-label="{html.escape(heading)}">{data["image/svg+xml"]}</div>'
    return f"<pre>{ansi2html(data.get('text/plain', ''))}</pre>"


def body(notebook: nbformat.NotebookNode, pages: Pages) -> tuple[Markup, list[tuple[str, str]]]:
    """Convert a notebook.

    Parameters
    ----------
    notebook : NotebookNode
        Version 4, executed.
    pages : Pages
        Where links to files lead.

    Returns
    -------
    (Markup, list of (str, str))
        HTML; anchor and HTML of each section's heading (level 2).
    """
    parts, sections, taken = [], [], set()
    heading = title(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text, headings = pages.html(cell.source, places.NOTEBOOKS, attachments=cell.get("attachments"))
            for level, anchor, words in headings:
                heading = plain(words)
                if anchor in taken:  # the renderer sees one cell at a time
                    fresh = f"{anchor}-{len(taken)}"
                    text = text.replace(f'id="{anchor}"', f'id="{fresh}"').replace(f'"#{anchor}"', f'"#{fresh}"')
                    anchor = fresh
                taken.add(anchor)
                if level == 2:
                    sections.append((anchor, Markup(words)))
            parts.append(f'<section class="text">\n{text}</section>\n')
        elif cell.cell_type == "code" and cell.source.strip():
            outputs = "".join(f'<div class="output">{_output(out, pages, heading)}</div>\n' for out in cell.outputs)
            name = f"In [{cell.execution_count}]" if cell.execution_count else "In [ ]"
            parts.append(
                f'<section class="code" aria-label="{name}">\n<div class="scroll source" tabindex="0">'
                f"{code(cell.source)}</div>\n{outputs}</section>\n"
            )
    return Markup("".join(parts)), sections
