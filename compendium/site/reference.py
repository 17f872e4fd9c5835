"""The library's public interface as pages, from its docstrings.

A linter holds them to one style (numpydoc), so forty lines read it; a generator brings a look and scripts of its own.
"""

import html
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


def modules() -> list[ModuleType]:
    """Import the rooms of the library, what one calls first before what it stands on, without the command line."""
    return [importlib.import_module(f"advlib.{room}") for room in reversed(ROOMS) if room != "cli"]


def members(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield public names with their objects: those of `__all__`, else what the module itself defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, thing in vars(module).items()
        if inspect.isroutine(thing) or inspect.isclass(thing)
        if thing.__module__ == module.__name__
    ]
    yield from ((name, getattr(module, name)) for name in names if not name.startswith("_"))


def _sections(docstring: str) -> list[tuple[str, str]]:
    """Split a docstring into (heading, text); the first heading is empty."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.M)
    return [("", parts[0]), *zip(parts[1::2], parts[2::2], strict=True)]


def _plain(text: str) -> str:
    """Turn the little reStructuredText that docstrings hold into Markdown."""
    text = re.sub(r"(\[\d+\])_", r"\1", re.sub(r":math:`([^`]+)`", r"$\1$", text))
    text = re.sub(r"^\.\. (\[\d+\]) ", r"- \1 ", text, flags=re.M)
    return text.replace("``", "`")


def _entries(text: str, pages: Pages) -> str:
    """Convert "name : type" lines, each with an indented description, into a list."""
    rows = []
    for head, rest in re.findall(r"^(\S.*)\n((?:(?: {4}.*)?\n?)*?)(?=^\S|\Z)", text, re.M):
        name, _, kind = html.escape(head.replace("`", ""), quote=False).partition(" : ")
        rows.append(f"<dt><code>{name}</code>{f' <i>{kind}</i>' if kind else ''}</dt>")
        rows.append(f"<dd>{pages.html(_plain(inspect.cleandoc(rest)), depth=3)[0]}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


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
        text = re.sub(r"^\(self(?:, )?", "(", str(inspect.signature(thing)))
    except (TypeError, ValueError):
        return name
    return name + re.sub(r"(?:\w+\.)+(?=[A-Z])", "", text)  # types by their last name


def entry(name: str, thing: Any, pages: Pages) -> dict[str, Any]:
    """Describe a public object: name, kind, signature and text as HTML, methods of a class likewise."""
    if not callable(thing):
        value = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", repr(thing))
        return {"name": name, "kind": "constant", "signature": code(f"{name} = {value}"), "text": "", "methods": []}
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
