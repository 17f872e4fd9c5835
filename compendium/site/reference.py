"""The library's public interface as pages, from its docstrings.

A linter holds the docstrings to one style (numpydoc), so a parser of forty lines reads them, with the site's own maths
and look. A generator would bring pages, styles and scripts of its own for styles that nobody here writes.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import advlib
from compendium.site.markdown import Pages
from compendium.site.notebook import code

ROOMS = re.findall(r"^    (\w+)  +\S", advlib.__doc__, re.M)
_TABLES = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Warns", "Other Parameters")
_INTERNAL = ("cli",)  # its interface is `advlib --help`


def modules() -> list[ModuleType]:
    """Import the rooms of the library, in the order of its drawing, without the command line."""
    return [importlib.import_module(f"advlib.{room}") for room in ROOMS if room not in _INTERNAL]


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield public names with their objects: those of `__all__`, else what the module itself defines."""
    names = getattr(module, "__all__", None) or [
        name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__
    ]
    yield from ((name, getattr(module, name)) for name in names if not name.startswith("_"))


def _sections(docstring: str) -> list[tuple[str, str]]:
    """Split a docstring into (heading, text); the first heading is empty."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.M)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def _plain(text: str) -> str:
    """Turn the little reStructuredText that docstrings hold into Markdown."""
    text = re.sub(r":math:`([^`]+)`", r"$\1$", text)
    text = re.sub(r"(\[\d+\])_", r"\1", text)
    text = re.sub(r"^\.\. (\[\d+\]) ", r"- \1 ", text, flags=re.M)
    return text.replace("``", "`")


def _entries(text: str, pages: Pages) -> str:
    """Convert "name : type" lines, each with an indented description, into a list."""
    rows = []
    for head, rest in re.findall(r"^(\S.*)\n((?:(?: {4}.*)?\n?)*?)(?=^\S|\Z)", text, re.M):
        name, _, kind = head.partition(" : ")
        rows.append(f"<dt><code>{_escape(name)}</code>{f' <i>{_escape(kind)}</i>' if kind else ''}</dt>")
        rows.append(f"<dd>{pages.html(_plain(inspect.cleandoc(rest)), depth=3)[0]}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("`", "")


def docstring(thing: Any, pages: Pages) -> str:
    """Return an object's docstring as HTML; "" where it has none of its own."""
    parts = []
    for heading, text in _sections(inspect.getdoc(thing) or ""):
        if heading:
            parts.append(f"<h5>{heading}</h5>")
        if heading in _TABLES:
            parts.append(_entries(text.strip() + "\n", pages))
        elif heading == "Examples":
            parts.append(f'<div class="scroll source" tabindex="0">{code(text.strip())}</div>')
        else:
            parts.append(pages.html(_plain(text), depth=3)[0])
    return "\n".join(parts)


def _signature(name: str, thing: Any) -> str:
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return name
    return name + re.sub(r"(?:\w+\.)+(?=[A-Z])", "", text)  # types by their last name


def entry(name: str, thing: Any, pages: Pages) -> dict[str, Any]:
    """Describe one public object.

    Returns
    -------
    dict
        name, kind, signature and text (HTML), methods (of a class: entries likewise).
    """
    if not callable(thing):
        return {"name": name, "kind": "constant", "signature": code(f"{name} = {thing!r}"), "text": "", "methods": []}
    kind = "class" if inspect.isclass(thing) else "function"
    methods = [
        entry(method, function, pages)
        for method, function in (inspect.getmembers(thing, inspect.isroutine) if kind == "class" else ())
        if not method.startswith("_")
        and str(getattr(function, "__module__", "")).startswith("advlib")
        and function.__doc__
    ]
    return {
        "name": name, "kind": kind, "signature": code(_signature(name, thing)),
        "text": docstring(thing, pages), "methods": methods,
    }  # fmt: skip
