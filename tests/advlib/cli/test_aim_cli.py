"""advlib fit --network, and the second answer of advlib detect."""

import functools
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from advlib import cli
from advlib.cli import detection, records
from advlib.detectors import AimTest

RUN = CliRunner()
NETWORK = "mnist-vs22-official"


def blocks(n, seed):
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 4, 4))
    return np.kron(coarse, np.ones((1, 7, 7))).astype(np.uint8)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aim")
    small = functools.partial(AimTest, families=["blur"], sizes=(0.04,), learned=20, calibrated=30, draws=99)
    np.save(folder / "reference.npy", blocks(120, 0))
    np.save(folder / "clean.npy", blocks(20, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detection, "AimTest", small)
        result = call("fit", folder / "reference.npy", "-o", folder / "d.safetensors", "--network", NETWORK, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["network"] == NETWORK
    assert any("changed by blur" in sentence for sentence in told["assumed"])
    return folder


def call(*arguments):
    result = RUN.invoke(cli.app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_both_questions_are_answered(home):
    told = json.loads(call("detect", home / "d.safetensors", home / "clean.npy", "--json").stdout)
    aim = told["aim"]
    assert aim["network"] == NETWORK and aim["families"] == ["nothing", "blur"] and aim["sizes"] == [0.04]
    assert 0 < aim["p_value"] <= 1 and len(aim["sample_p_values"]) == 20 and aim["aimed"] == (aim["p_value"] <= 0.05)
    said = call("detect", home / "d.safetensors", home / "clean.npy", "--no-figure").stdout
    assert ("AIMED" in said) == aim["aimed"] and "changed by blur" in said


@pytest.mark.parametrize("changed", [True, False])
@pytest.mark.parametrize("aimed", [True, False])
def test_what_both_answers_mean_is_said(changed, aimed):
    aim = {
        "aimed": aimed, "p_value": 0.01 if aimed else 0.6, "network": NETWORK,
        "likeliest_change": {"family": "blur", "size": 0.04}, "fitting_changes": [{"family": "blur", "size": 0.04}],
    }  # fmt: skip
    first, meaning = records.aim_lines(aim, changed, 0.05)
    assert first.startswith("AIMED" if aimed else "no aim seen") and "blur of 0.04" in first
    others = [records.aim_lines(aim | {"aimed": a}, c, 0.05)[1] for a in (True, False) for c in (True, False)]
    assert len(set(others)) == 4 and meaning in others
    assert "fit with --network" in records.aim_lines(None, changed, 0.05)[0]


def test_wrong_calls(home, tmp_path):
    for options, words in (
        (["--network", "no-such"], "name must be one of"),
        (["--second", NETWORK], "--second needs --network"),
        (["--network", "cifar10-resnet"], "cannot take these images"),
    ):
        result = call("fit", home / "reference.npy", "-o", tmp_path / "d", *options)
        assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "d").exists()
