"""docs/reliability.md: every row has a test that exists, and the page is that of a run at length."""

import ast
import re
from pathlib import Path

from reliability import Result, document, rows
from tally import case

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


def test_every_row_names_a_test_that_exists():
    listed = rows()
    assert len(listed) >= 60
    for row in listed:
        path, name = row.test.split("::")
        functions = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))) if
                     isinstance(node, ast.FunctionDef)}  # fmt: skip
        assert name in functions, row.test
        assert row.tried and row.happened and not {"|", "\n"} & set(row.tried + row.happened), row
        case()


def test_the_page_has_these_rows_and_ten_thousand_cases():
    text = PAGE.read_text(encoding="utf-8")
    count, cases = (
        int(word.replace(",", "")) for word in re.search(r"^(\d+) things .* in ([\d,]+) ", text, re.M).groups()
    )
    assert count == len(rows()) and cases >= 10_000
    for row in rows():
        assert f"| {row.tried} | {row.happened}" in text, "run `make abuse` again"


def test_a_failed_or_missing_test_is_counted_as_such():
    result = Result().plus("passed", 3).plus("failed", 2).plus("skipped", 0)
    assert result == Result(passed=1, skipped=1, failed=1, cases=5)
    done = {row.test: Result().plus("passed", 200) for row in rows()}
    assert f"{200 * len(done):,} generated cases" in document(done, "today")
