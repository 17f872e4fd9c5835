"""Long runs: thousands of batches, many threads and processes; memory, file handles and answers stay as they are."""

import gc
import multiprocessing
import os
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tally import FULL, case, times

from advlib import detectors
from advlib.cli import detection
from advlib.datasets import files
from advlib.detectors import CombinedTest, CoverageTest, DensityTest, StreamTest

RNG = np.random.default_rng(0)
BATCHES = times(300, 10_000)


def memory():
    """Resident memory now, in MB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def handles():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def detector(tmp_path):
    path = tmp_path / "d.safetensors"
    DensityTest(2, draws=19).fit(RNG.normal(size=(60, 2)), RNG.normal(size=(40, 2))).save(path)
    return path


def test_watching_thousands_of_batches(detector, tmp_path, monkeypatch):
    """Files come a thousand at a time, whole by renaming; each is taken once, in order, and nothing piles up."""
    folder = tmp_path / "batches"
    folder.mkdir()
    # A short stream of p-values is enough here: how often clean streams ring is measured below.
    monkeypatch.setattr(
        detection, "StreamTest", lambda test, alpha: StreamTest(test, alpha=alpha, draws=19, max_samples=60)
    )
    rng, made, sizes, seen, skipped = np.random.default_rng(1), 0, [], [], []

    def more():
        nonlocal made
        for _ in range(min(1000, BATCHES - made)):
            np.save(folder / ".part.npy", rng.normal(size=(2, 2)))
            os.replace(folder / ".part.npy", folder / f"{made:06d}.npy")
            made += 1

    def step(record):
        seen.append(os.path.basename(record["batch"]))
        if len(seen) == made and made < BATCHES:
            sizes.append((memory(), handles()))
            more()

    more()
    start = handles()
    alarm, lost = detection.detect_stream(
        detector, None, folder, interval=0.01, idle=1.0, on_step=step, on_skipped=skipped.append, alpha=1e-6
    )
    assert len(seen) == len(set(seen)) == BATCHES and seen == sorted(seen)
    assert (alarm, lost, skipped) == (False, 0, [])
    if len(sizes) > 4:
        assert sizes[-1][0] - sizes[2][0] < 30, f"memory grew: {sizes}"
        assert sizes[-1][1] <= sizes[0][1]
    assert handles() <= start
    case(BATCHES)


def test_long_clean_streams_ring_no_more_often_than_promised():
    """Streams of small batches at α = 0.2: the share that ever rings, with room for chance."""
    test = DensityTest(2, draws=19).fit(RNG.normal(size=(60, 2)), RNG.normal(size=(40, 2)))
    streams, length, alpha = times(20, 100), times(20, 60), 0.2
    rang = 0
    for number in range(streams):
        rng = np.random.default_rng([7, number])
        # Each stream has a calibration set of its own: the promise is over those, too.
        test = DensityTest(2, draws=19, check=False).fit(rng.normal(size=(60, 2)), rng.normal(size=(40, 2)))
        stream = StreamTest(test, alpha=alpha, draws=99, max_samples=200, random_state=number)
        pool = test.measure(rng.normal(size=(3 * length, 2)))
        for t in range(length):
            if stream.update(pool[np.arange(3 * t, 3 * t + 3)]).alarm:
                rang += 1
                break
        case(length)
    assert rang <= alpha * streams + 3 * np.sqrt(alpha * (1 - alpha) * streams)


def _p_values(path, batches):
    test = detectors.load(path)
    return [test.test(batch).p_value for batch in batches]


def test_threads_and_processes_at_once_get_the_same_p_values(tmp_path):
    """One detector in 8 threads, and its file in 4 processes at the same time."""
    path = tmp_path / "d"
    test = CombinedTest([DensityTest(2), CoverageTest(2)], draws=99).fit(
        RNG.normal(size=(80, 3)), RNG.normal(size=(40, 3))
    )
    test.save(path)
    batches = [RNG.normal(size=(n % 9 + 1, 3)) for n in range(times(24, 200))]
    expected = [test.test(batch).p_value for batch in batches]
    context = multiprocessing.get_context("forkserver")
    with context.Pool(4 if FULL else 2) as pool, ThreadPoolExecutor(8) as threads:
        apart = [pool.apply_async(_p_values, (path, batches)) for _ in range(4)]
        together = [list(threads.map(lambda batch: test.test(batch).p_value, batches)) for _ in range(2)]
        assert all(found == expected for found in together)
        assert all(found.get(300) == expected for found in apart)
    case(6 * len(batches))


def test_reading_and_refusing_leaves_no_handle_open(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04" + b"\0" * 100)
    np.savez(tmp_path / "good.npz", images=np.zeros((3, 8, 8), np.uint8))
    before, size = handles(), memory()
    for number in range(times(200, 3000)):
        name = ("good", "bad", "none")[number % 3]
        try:
            files.read(tmp_path / f"{name}.npz")
        except (ValueError, FileNotFoundError):
            assert name != "good"
        case()
    assert handles() == before and memory() - size < 30
