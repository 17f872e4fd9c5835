"""Who imports whom: what stays light, and what must not know what."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def imported_modules(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it; of relative imports too."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = [*package[: -node.level], node.module] if node.level else [node.module]
            yield from (".".join([*filter(None, start), alias.name]) for alias in node.names)


def paths_of(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert len(found) > 20
    return found


@pytest.mark.parametrize("names", ["advlib", "advlib.paths, advlib.datasets, advlib.progress", "advlib.cli"])
def test_light_modules_do_not_wait_for_torch(names):
    code = f"import sys, {names}; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"]


def test_the_library_knows_no_paper():
    against = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in paths_of("advlib")
        for name in imported_modules(path)
        if name.split(".")[0] == "compendium"
    }
    assert not against


def test_no_notebook_of_the_compendium_imports_another():
    against = set()
    for path in paths_of("compendium"):
        own = re.match(r"nb\d\d[a-z]?", path.relative_to(ROOT / "compendium").parts[0])
        for name in imported_modules(path):
            other = re.match(r"compendium\.(nb\d\d[a-z]?)", name)
            if own and other and other[1] != own[0]:
                against.add((path.relative_to(ROOT).as_posix(), name))
    assert not against


def test_relative_and_nested_imports_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "compendium" / "nb01_x" / "measure.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from ..nb02_y import g\n    import compendium.nb03_z\nfrom . import judge\n")
    assert set(imported_modules(path)) == {
        "compendium.nb02_y.g", "compendium.nb03_z", "compendium.nb01_x.judge"
    }  # fmt: skip
