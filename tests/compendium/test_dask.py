"""On a Dask cluster: the same numbers, and what becomes of killed workers, a lost scheduler, strangers, silence.

One cluster of two workers serves nearly all tests here.
"""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from dask_toys import KillingReader, fails_at_three, killing_attack, slow, squared
from rich.console import Console
from safetensors.torch import save_file
from test_runner import toy

from advlib import chunks, models, tasks
from advlib.attacks import stored
from advlib.prdc import ReferenceManifold
from compendium import cluster as clusters
from compendium import paths as places
from compendium import runner
from compendium.claims import record
from compendium.common import protocol

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def client():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
        client = tasks.connect("local")
        yield client
        client.cluster.close()
        client.close()


@pytest.fixture
def alone(client, monkeypatch):
    """Do something as without a cluster."""

    def run(function, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(tasks, "current", lambda: None)
            return function(*arguments, **options)

    return run


def test_tasks_give_what_a_loop_gives(client, alone):
    wanted = sorted(alone(lambda: list(tasks.map_tasks(squared, range(20), "squares", shared=[10, 5]))))
    assert wanted[3] == (3, 24)
    assert sorted(tasks.map_tasks(squared, iter(range(20)), "squares", shared=[10, 5], total=20)) == wanted
    with pytest.raises(ValueError, match="three is no number"):
        list(tasks.map_tasks(fails_at_three, range(6), "failing"))


def test_algorithm_1_is_the_same_on_a_cluster(client, alone):
    rng = np.random.default_rng(0)
    real = rng.random((40, 2, 4, 4), dtype=np.float32)
    moved = np.clip(real + 0.1 * rng.choice([-1, 1], real.shape), 0, 1).astype(np.float32)

    def compare():
        return protocol.density_ratio_comparison(real, moved, draws=5, batch_size=10, rng=np.random.default_rng(1))

    one, two = alone(compare), compare()
    assert one.keys() == two.keys() and len(one) == 3
    for name in one:
        np.testing.assert_array_equal(one[name].r1, two[name].r1)
        np.testing.assert_array_equal(one[name].r2, two[name].r2)


def test_a_worker_killed_in_a_fit_costs_its_task_and_no_number(client, tmp_path):
    points = np.random.default_rng(0).standard_normal((600, 12)).astype(np.float32)
    queries = points[:50] + np.float32(0.1)
    flag, armed = tmp_path / "killed", tmp_path / "armed"
    rows = chunks.rows_of([KillingReader(part, flag, armed) for part in np.array_split(points, 5)], "reference")
    armed.touch()
    before = set(client.run(os.getpid).values())
    manifold = ReferenceManifold(3).fit(rows)
    assert flag.exists()
    whole = ReferenceManifold(3).fit(points)
    np.testing.assert_array_equal(manifold.radii_, whole.radii_)
    np.testing.assert_array_equal(
        manifold.ball_counts(da.from_array(queries, chunks=(20, 5))), whole.ball_counts(queries)
    )
    client.wait_for_workers(2, timeout=60)
    assert set(client.run(os.getpid).values()) != before


def untrained(folder):
    """Write a network of large random weights, which reads noise in many ways, where a trained one would be."""
    folder.mkdir()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = models.build("mnist-vs22")
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    file, card = models.files("mnist-vs22", folder)
    save_file(model.state_dict(), file)
    card.write_text(json.dumps({"sha256": stored.hashlib.sha256(file.read_bytes()).hexdigest()}))
    return folder


def test_a_worker_killed_in_a_boundary_attack_costs_its_chunk_and_no_number(client, alone, tmp_path):
    weights = untrained(tmp_path / "weights")
    rng = np.random.default_rng(0)
    images = rng.random((6, 1, 28, 28), dtype=np.float32)
    labels = models.predict(models.load_trained("mnist-vs22", folder=weights), images)
    flag = str(tmp_path / "killed")

    def attack(folder):
        return stored.stored_attack(
            killing_attack, "mnist-vs22", images, labels, seed=0, chunk=3, folder=tmp_path / folder, weights=weights,
            flag=flag,
        )  # fmt: skip

    found = attack("cluster")
    assert Path(flag).exists()
    wanted = alone(attack, "alone")
    np.testing.assert_array_equal(found.images, wanted.images)
    assert found.clean_correct.all() and found.success.any()


@pytest.fixture
def house(tmp_path, monkeypatch):
    for name in ("NOTEBOOKS", "RUNS", "REFERENCE", "PROFILES"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(places, name, folder)
    (places.PROFILES / "quick.yaml").write_text("profile: quick\nseed: 0\n")
    return tmp_path


def value():
    return json.loads((places.RUNS / "quick" / "99_toy" / "metrics.json").read_text())["metrics"]["x"]


def test_a_worker_killed_in_a_notebook_ends_no_run(client, house):
    body = (
        f"import os, sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from dask_toys import squared\n"
        "from advlib import tasks\n"
        f"flag = {str(house / 'killed')!r}\n"
        "if not os.path.exists(flag):\n"
        "    open(flag, 'w').close(); os.kill(os.getppid(), 9); import time; time.sleep(60)\n"
        "parts = sum(found for _, found in tasks.map_tasks(squared, range(4), 'squares', shared=[1]))\n"
        "run.metric('x', float(run.rng('x').random()) + parts)"
    )
    toy(places.NOTEBOOKS, body=body)
    log = Console(file=io.StringIO(), width=200)
    place = clusters.Cluster(client)
    plan = {places.NOTEBOOKS / "99_toy.ipynb": {"profile": "quick", "seed": 0, "draws": 3}}
    (outcome,) = runner._run_plan(plan, log, False, 1, place)
    assert outcome.status == "ran" and (house / "killed").exists(), outcome
    assert "cell 5/7" in log.file.getvalue()
    alone = record.start("99_toy", profile="quick", seed=0, draws=3).rng("x").random()
    assert value() == pytest.approx(float(alone) + 0 + 1 + 4 + 9 + 4 * 1, abs=1e-7)  # records are rounded


def test_data_is_sent_where_it_lacks_and_only_there(client, tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"abc")
    monkeypatch.setattr(clusters, "_places", lambda: {"downloads": folder})
    needed = clusters.digests()
    assert list(needed) == ["downloads/a.bin"] and clusters.missing(needed) == []
    (folder / "a.bin").write_bytes(b"abd")
    assert clusters.missing(needed) == ["downloads/a.bin"]
    clusters.receive("downloads/a.bin", b"abc")
    assert clusters.missing(needed) == []
    monkeypatch.undo()
    assert clusters.send(client, clusters.digests()) == {}, "workers on this machine have its files"


def test_another_version_is_refused_with_a_sentence(client, monkeypatch):
    there = metadata.version("numpy")
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "numpy" else real(name))
    tasks.stamp.cache_clear()
    try:
        with pytest.raises(tasks.WrongWorker, match=f"is refused: it has numpy {there} in place of 1.0"):
            tasks.connect(client.scheduler.address)
        with pytest.raises(tasks.WrongWorker, match=f"is refused: it has numpy {there}"):
            list(tasks.map_tasks(squared, [1], "one", client=client))
    finally:
        monkeypatch.undo()
        tasks.stamp.cache_clear()


def test_where_nobody_listens_a_sentence_says_so(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(ValueError, match=rf"nobody listens at tcp://{address} \(Connection refused\)"):
            tasks.connect(address)
        taken.listen()  # and says nothing
        monkeypatch.setattr(tasks, "PATIENCE", 2.0)
        with pytest.raises(ValueError, match=f"no Dask scheduler answers at tcp://{address}"):
            tasks.connect(address)
        assert time.monotonic() - began < 10
    with pytest.raises(ValueError, match="the address of a scheduler is HOST:PORT"):
        tasks.connect("nowhere")


def test_a_lost_scheduler_is_said_and_what_was_done_stands(client, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 90.0)  # a busy machine takes more than nine seconds to start a worker
    file, options = tmp_path / "scheduler.json", {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
         "--scheduler-file", str(file)], **options,
    )  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
         "--no-nanny", "--no-dashboard", "--death-timeout", "90"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}, **options,
    )  # fmt: skip
    try:
        for _ in range(900):
            if file.exists() and file.read_text().endswith("}"):
                break
            time.sleep(0.1)
        other = tasks.connect(json.loads(file.read_text())["address"])
        done = []
        with pytest.raises(tasks.ClusterLost, match=r"the Dask scheduler at tcp://127\.0\.0\.1:\d+ is gone"):
            for item, _ in tasks.map_tasks(slow, range(100), "slow", client=other):
                done.append(item)
                if len(done) == 3:
                    os.kill(scheduler.pid, signal.SIGKILL)
        assert 3 <= len(done) < 100
        other.close(timeout=1)
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.wait()
