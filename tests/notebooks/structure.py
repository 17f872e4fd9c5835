"""What a committed notebook must be so that its checks are live; used by the tests, imported by nothing else."""

import ast
import configparser
import re
from pathlib import Path

import nbformat

from compendium import runner

MARKER = "# NBVAL_CHECK_OUTPUT"
# nbval's other words switch checks off; none of them is used here.
SWITCHES = ("NBVAL_IGNORE_OUTPUT", "NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "NBVAL_VARIABLE_OUTPUT")


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """List everything that would let a check of this notebook pass without checking."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"execution counts are {counts}: the notebook was not executed once, top to bottom")
    marked = [cell for cell in code if MARKER in cell.source.splitlines()]
    if not marked:
        found.append("no cell is checked")
    for cell in marked:
        texts = [output.get("text", "") for output in cell.outputs if output.output_type == "stream"]
        if not "".join(texts).strip():
            found.append(f"a marked cell has no stored output: {cell.source[:60]!r}")
    for cell in notebook.cells:
        for line in cell.source.splitlines():
            looks_like_one = re.search(r"nbval|check[_ ]output", line, re.I) and line.lstrip().startswith("#")
            if cell.cell_type == "code" and looks_like_one and line != MARKER:
                found.append(f"not nbval's marker, or not alone on its line: {line!r}")
        if any(switch in cell.source for switch in SWITCHES):
            found.append(f"a cell switches a check off: {cell.source[:60]!r}")
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"a stored output is an error: {output.ename}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"a stored output went to stderr: {output.text[:80]!r}")
    found += parameter_problems(notebook)
    stamp = notebook.metadata.get("advlib", {}).get("source_digest")
    if stamp != runner.source_digest(notebook):
        found.append("the stored outputs belong to other cells than these: run `make notebooks`")
    return found


def parameter_problems(notebook: nbformat.NotebookNode) -> list[str]:
    """List what is wrong with the parameters cell: flat literals, each explained, each handed to `record.start`."""
    try:
        cell = runner.parameters_cell(notebook)
    except ValueError as error:
        return [str(error)]
    found, names = [], []
    for statement in ast.parse(cell.source).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
            found.append(f"the parameters cell holds more than assignments: {ast.unparse(statement)}")
            continue
        names.append(statement.targets[0].id)
        try:
            ast.literal_eval(statement.value)
        except ValueError:
            found.append(f"parameter {names[-1]} is not a literal")
        if "#" not in cell.source.splitlines()[statement.lineno - 1]:
            found.append(f"parameter {names[-1]} has no comment")
        # papermill reads the cell by a regular expression of its own, and such a comment hides the parameter from it.
        if "=" in cell.source.splitlines()[statement.lineno - 1].partition("#")[2]:
            found.append(f"the comment of parameter {names[-1]} holds a '=', which papermill cannot read")
    starts = [c.source for c in notebook.cells if c.cell_type == "code" and "record.start(" in c.source]
    handed = {
        keyword.arg
        for source in starts
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
    }
    if set(names) != handed:
        found.append(f"record.start is given {sorted(handed)}, but the parameters are {sorted(names)}")
    return found


def sanitizer_problems(path: Path) -> list[str]:
    """List rules of an nbval sanitize file that nbval would drop or that cannot be read as meant."""
    parser = configparser.RawConfigParser()
    parser.read(path, encoding="utf-8")
    written = len(re.findall(r"^\[", path.read_text(encoding="utf-8"), re.M))
    found = []
    if written == 0 or len(parser.sections()) != written:
        found.append(f"{written} sections are written, {len(parser.sections())} are parsed")
    for section in parser.sections():
        rule = dict(parser.items(section))
        if set(rule) != {"regex", "replace"} or not rule["regex"] or not rule["replace"]:
            found.append(f"[{section}] needs a regex and a replacement, neither empty")
            continue
        try:
            re.compile(rule["regex"])
        except re.error as error:
            found.append(f"[{section}] is no regular expression: {error}")
    return found
