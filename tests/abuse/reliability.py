"""The table of abuse: its rows are data, what came of each is what its test found."""

from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One thing that was tried: under which heading, in words; what happened; its test, file::function."""

    heading: str
    tried: str
    happened: str
    test: str


@dataclass(frozen=True)
class Result:
    """What came of a test, its parameters added up."""

    passed: int = 0
    skipped: int = 0
    failed: int = 0
    cases: int = 0

    def plus(self, outcome: str, cases: int) -> "Result":
        return Result(
            self.passed + (outcome == "passed"),
            self.skipped + (outcome == "skipped"),
            self.failed + (outcome == "failed"),
            self.cases + max(cases, outcome == "passed"),
        )


def rows() -> list[Row]:
    """Read the rows, in their order."""
    listed = yaml.safe_load((HERE / "rows.yaml").read_text(encoding="utf-8"))
    return [Row(heading, *entry) for heading, entries in listed.items() for entry in entries]


def others() -> list[str]:
    """Tests outside this folder that rows name: what `make abuse` runs besides."""
    return sorted({row.test for row in rows() if not row.test.startswith("tests/abuse/")})


def document(results: dict[str, Result], when: str) -> str:
    """Write the table from the results of a run that had all its tests."""
    listed = rows()
    tests = {row.test for row in listed}
    cases = sum(results[test].cases for test in tests)
    lines = [
        "# What goes wrong, tried",
        "",
        "<!-- Written by `make abuse`; change tests/abuse/rows.yaml and the tests, and run that instead. -->",
        "",
        f"{len(listed)} things were tried in {cases:,} generated cases by {len(tests)} tests ({when}). Each row names "
        "the test that does it; all of them passed in the run that wrote this page, or it would not have been written. "
        "A case is one damaged file, one moment of a kill, one drawn input. `make test` runs these tests in a short "
        "form, `make abuse` at length.",
    ]
    for heading in dict.fromkeys(row.heading for row in listed):
        lines += ["", f"## {heading}", "", "| tried | what happens | cases | test |", "|---|---|---:|---|"]
        for row in listed:
            if row.heading == heading:
                result = results[row.test]
                path, name = row.test.split("::")
                skipped = "" if result.passed else " (skipped here)"
                lines.append(
                    f"| {row.tried} | {row.happened}{skipped} | {result.cases or ''} | "
                    f"`{path.rpartition('/')[2]}::{name}` |"
                )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(" ".join(others()))
