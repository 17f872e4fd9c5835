"""The page "Which test do I use?" of notebook 13, its stored powers, and its streams."""

import numpy as np
import pandas
import pytest

from compendium.nb13_hypothesis_tests import advice, perturbations, streaming, tables


@pytest.fixture
def rng():
    return np.random.default_rng(0)


class Run:
    """Keeps metrics, as `record.Run` does."""

    def __init__(self):
        self.metrics = {}

    def metric(self, name, value):
        self.metrics[name] = value


def powers(rows):
    columns = ["dataset", "test", "perturbation", "kind", "size", "m", "share", "power"]
    table = pandas.DataFrame(rows, columns=columns)
    return table.assign(success=1.0, ms=2.0, feature_ms=0.1)


ROWS = [
    ("mnist", "density · pixels", "FGSM", "attack", 0.05, 5, 1.0, 0.9),
    ("mnist", "density · pixels", "FGSM", "attack", 0.05, 25, 1.0, 1.0),
    ("mnist", "density · pixels", "FGSM", "attack", 0.05, 25, 0.25, 0.3),
    ("mnist", "density · pixels", "JSMA", "attack", np.nan, 25, 1.0, 0.1),
    ("mnist", "density · pixels", "random noise", "control", 0.05, 25, 1.0, 0.2),
    ("mnist", "density · pixels", "shift by 1.5 pixels", "control", np.nan, 25, 1.0, 0.4),
    ("cifar10", "density · pixels", "FGSM", "attack", 0.05, 5, 1.0, 0.7),
    ("cifar10", "density · pixels", "FGSM", "attack", 0.05, 25, 1.0, 0.8),
    ("cifar10", "density · pixels", "random noise", "control", 0.05, 25, 1.0, 0.6),
]


def recorded_run(rows=ROWS):
    run, table = Run(), powers(rows)
    calibrated = pandas.DataFrame(
        columns=["dataset", "test", "m", "alpha", "rejected", "low", "high", "n", "uniform_p"]
    )
    tables.record_metrics(run, table, calibrated)
    return run, table


def test_powers_come_back_from_a_record_as_they_went_in():
    run, table = recorded_run()
    columns = ["dataset", "test", "perturbation", "kind", "size", "m", "share", "power"]
    back, put = (
        frame[columns].sort_values(columns).reset_index(drop=True) for frame in (tables.recorded(run.metrics), table)
    )
    pandas.testing.assert_frame_equal(back, put, check_dtype=False)
    assert list(tables.recorded({}).columns) == columns


def test_an_image_set_a_row_and_a_change_a_column():
    _, table = recorded_run()
    changes = [("FGSM", 0.05), ("shift by 1.5 pixels", None)]
    found = tables.by_image_set(table, "density · pixels", 25, changes)
    assert found.loc["MNIST"].tolist() == [1.0, 0.4] and found.loc["CIFAR-10", "FGSM, ε = 0.05"] == 0.8


def test_the_page_says_what_a_test_needs_and_misses():
    run, _ = recorded_run()
    smallest = pandas.DataFrame({"references": [100.0], "calibration": [np.nan]}, index=["density · pixels"])
    row = advice.page(run.metrics, smallest).loc["density · pixels"]
    assert row["smallest batch, ε = 0.05"] == "25" and row["misses most"] == "JSMA on MNIST: power 0.1"
    assert row["flags noise, ε = 0.05"] == "20% to 60%" and row["guarantee"] == "exact level"
    assert row["smallest reference"] == "100" and row["smallest calibration"] == "–" and row["ms a batch"] == "4.5"
    weak = [(*row[:-1], min(row[-1], 0.5)) for row in ROWS]
    assert advice.page(recorded_run(weak)[0].metrics, smallest)["smallest batch, ε = 0.05"].tolist() == ["over 25"]
    assert advice.page({}, smallest) is smallest
    newer = pandas.concat([smallest, smallest.rename(index={"density · pixels": "not in the record"})])
    assert advice.page(run.metrics, newer).index.tolist() == ["density · pixels"]


@pytest.mark.parametrize(
    ("powers", "smallest"),
    [({30: 1.0, 100: 0.9}, 30), ({30: 1.0, 100: 0.5, 300: 0.9}, 300), ({30: 1.0, 100: 0.5}, None), ({}, None)],
)
def test_a_number_is_enough_if_all_larger_ones_are(powers, smallest):
    found = advice._enough_from(powers)
    assert found == smallest or (smallest is None and np.isnan(found))


def test_few_images_do_where_all_moved_far_and_none_do_where_nothing_moved(monkeypatch, rng):
    def images(count):
        return rng.random((count, 1, 9, 9), dtype=np.float32)

    labels = np.zeros(100, dtype=np.int64)
    split = perturbations.ImageSplit("mnist", "mnist-vs22", images(120), images(150), images(100), labels, labels)
    monkeypatch.setattr(advice, "REFERENCES", (30, 100, 500))
    monkeypatch.setattr(advice, "CALIBRATIONS", (20, 100))
    options = {"batches": 20, "rng": rng, "tests": ["density · pixels", "nearest ball · texture", "MMD · texture"]}
    for moved, enough in ((np.clip(split.clean / 10, 0, 1), True), (split.clean, False)):
        made = {"mnist": [perturbations.Perturbation("FGSM", "attack", 0.1, moved.astype(np.float32))]}
        found = advice.smallest_sets({"mnist": split}, made, **options)
        assert found.loc["nearest ball · texture"].notna().all() == enough
        assert found.loc["MMD · texture"].isna().all()
        if enough:
            assert found.loc["nearest ball · texture"].tolist() == [30, 20]


def test_one_calibration_set_breaks_the_bound_that_all_earlier_batches_keep(rng):
    found = streaming.clean_streams(streams=300, length=60, batch_size=100, n_calibration=20, alpha=0.05, rng=rng)
    assert found["the calibration set alone"] > 0.05 >= found["and all earlier batches"]
