"""What `make bench` says of a reference that is fitted by blocks, at a size that takes a second."""

import math

import pytest

from advlib.prdc import ReferenceManifold
from benchmarks import cluster


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cluster, "MILLION", {"n": 600, "d": 24, "rows": 150, "memory_gb": 0.5})


def test_a_whole_fit_is_held_against_all_pairs_and_goes_on_where_it_was_cut_off(small, tmp_path):
    found = cluster.whole(tmp_path / "partial")
    assert found["n"] == 600 and found["counts_equal"] and found["radii_error"] <= 1e-12 and not found["resumed"]
    assert found["density"] == pytest.approx(1, abs=0.2)
    assert cluster.whole(tmp_path / "partial")["resumed"]


def test_a_wrong_radius_is_seen(small, tmp_path, monkeypatch):
    fitted = ReferenceManifold.fit

    def wrong(self, reference):
        fitted(self, reference)
        self.radii_[3] *= 1.01
        return self

    monkeypatch.setattr(ReferenceManifold, "fit", wrong)
    assert cluster.whole(tmp_path / "partial")["radii_error"] == pytest.approx(0.01)


def test_the_page_says_whether_the_whole_fit_was_run():
    tasks = {"check_s": 6.0, "own_s": 4.9, "pair_s": 4.0, "peak_gb": 0.9, "base_gb": 0.6, "memory_gb": 3.5,
             "tasks": 280, "whole_cpu_s": 6000.0}  # fmt: skip
    done = {"n": 1_000_000, "fit_cpu_s": 6600.0, "resumed": False, "score_cpu_s": 12.0, "density": 1.0,
            "coverage": 0.01, "peak_gb": 0.9, "radii_error": 0.0, "counts_equal": True}  # fmt: skip
    assert "was not run" in "".join(cluster._million_words(tasks, None))
    words = "".join(cluster._million_words(tasks, done))
    assert "1.83 hours" in words and "-9.1%" in words and "equal" in words
    assert "not compared" in "".join(cluster._million_words(tasks, done | {"resumed": True}))
    assert "differ from" in "".join(cluster._million_words(tasks, done | {"counts_equal": False}))


def test_tasks_are_timed_as_a_cluster_is_sent_them():
    times = cluster.task_times(16, 60, 3)
    assert {"read_s", "own_s", "pair_s", "rows", "d"} == set(times) and times["rows"] == 60
    assert all(math.isfinite(times[name]) for name in ("read_s", "own_s", "pair_s"))
    found = cluster.simulate(600, 60, 2, {"own_s": 1.0, "pair_s": 1.0, "task_s": 0.0}, 0.0)
    assert found["seconds"] == pytest.approx(50)  # ten blocks of their own, each against nine others, on two workers
