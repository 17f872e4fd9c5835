"""What was tried, as a table: every row of `rows.yaml` with the outcome of its test, into `docs/reliability.md`."""

import datetime as dt
import json
import platform
from dataclasses import asdict
from pathlib import Path

import pytest
import tally
from reliability import Result, document, rows

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "results" / "runs" / "abuse.json"
_results: dict[str, Result] = {}


def pytest_addoption(parser):
    parser.addoption("--reliability", action="store_true", help="write docs/reliability.md from this run")


class _Recorder:
    """A plugin of its own: hooks in this file would see the tests of this folder alone."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        before = tally.cases
        try:
            return (yield)
        finally:
            item.user_properties.append(("cases", tally.cases - before))

    def pytest_runtest_logreport(self, report):
        """Add up the parameters of a test; runs in the process that writes, whichever one did the test."""
        if report.when != "call" and report.outcome == "passed":
            return
        name = report.nodeid.split("[")[0]
        cases = sum(value for key, value in report.user_properties if key == "cases")
        _results[name] = _results.get(name, Result()).plus(report.outcome, cases if report.when == "call" else 0)


def pytest_configure(config):
    config.pluginmanager.register(_Recorder())


def pytest_sessionfinish(session):
    if not session.config.getoption("--reliability") or hasattr(session.config, "workerinput"):
        return
    # Parts of a long run may be run apart; `make abuse` begins with an empty file.
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    kept |= {name: asdict(result) for name, result in _results.items()}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    _results.update({name: Result(**numbers) for name, numbers in kept.items()})
    missing = [row.test for row in rows() if row.test not in _results]
    failed = [row.test for row in rows() if row.test in _results and _results[row.test].failed]
    if missing or failed:
        session.config.pluginmanager.get_plugin("terminalreporter").write_line(
            f"docs/reliability.md is left as it is: not run {missing}, failed {failed}", red=True
        )
        session.exitstatus = session.exitstatus or 1
        return
    form = "at length" if tally.FULL else "in the short form of `make test`"
    when = f"{form}, {dt.date.today().isoformat()}, Python {platform.python_version()} on {platform.system()}"
    (ROOT / "docs" / "reliability.md").write_text(document(_results, when), encoding="utf-8")
