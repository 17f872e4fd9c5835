"""The league on a machine with a GPU: `python -m compendium.nb14_league.device OUT`.

One process an image set; each writes `OUT/league_NAME.json` after every pool, so that what is done is kept when time is
up. `--join` makes one file of all.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advlib import models, paths
from advlib.environment import environment
from compendium.nb14_league import images, measure
from compendium.nb14_league.attacks import Effort

TINY = measure.Scale(
    halves=2, checked=40, clean=39, draws=20, images=60, slow=12, changed=30, evading=12, learned=40, calibrated=40,
    batches=(1, 5), effort=Effort(steps=4, search=4, queries=100),
)  # fmt: skip
_CORE = {"clean": 99, "draws": 20, "permutations": 199}
_ATTACKS = (
    "FGSM", "PGD", "momentum", "APGD", "low-frequency", "spatial", "DeepFool", "C&W", "Square", "ensemble", "knows",
)  # fmt: skip
_LARGER = measure.Scale(
    images=120, slow=20, changed=90, evading=80, learned=60, calibrated=120, batches=(1, 5, 25), attacks=_ATTACKS,
    effort=Effort(steps=20, search=50, queries=300), **_CORE,
)  # fmt: skip
SCALES = {
    "full": {name: measure.Scale() for name in images.PLANS},
    "tiny": dict.fromkeys(images.PLANS, TINY),
    "core": {
        "mnist": measure.Scale(
            images=300, slow=60, changed=100, evading=100, learned=150, calibrated=150,
            effort=Effort(steps=40, search=100, queries=1000), **_CORE,
        ),
        **dict.fromkeys(("cifar10", "organamnist", "bloodmnist"), _LARGER),
    },
}  # fmt: skip
"""How much is measured: "full" is meant for a GPU, "core" for an hour of a CPU core, "tiny" to try the script."""


def one(name: str, options: argparse.Namespace) -> None:
    """Run one image set and write its file after each pool."""
    until = options.started + options.budget
    torch.set_num_threads(options.threads)
    data, out = Path(options.data), Path(options.out)
    with np.load(data / f"{name}.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    scale = SCALES[options.scale][name]
    drawn = images.placed(arrays, options.device, scale.images)
    model, second = images.networks(name, options.device, (out, data))
    second = second if options.second else None
    setting = measure.prepare(drawn, model, second, images.PLANS[name].epsilons, scale)
    clock = time.time()
    right = models.accuracy(model, arrays["test"].astype(np.float32) / 255, arrays["test_labels"].astype(np.int64))
    known = {
        "set": name, "network": images.PLANS[name].network, "second": second is not None, "accuracy": right,
        "test": len(drawn.test), "epsilons": list(setting.epsilons), "batches": list(scale.batches),
        "clean": scale.clean, "draws": scale.draws, "halves": scale.halves, "checked": scale.checked,
        "prepared_s": round(clock - options.started, 1), "environment": environment(),
    }  # fmt: skip

    def write(result: dict[str, Any]) -> None:
        paths.write_atomically(out / f"league_{name}.json", json.dumps(known | result, ensure_ascii=False) + "\n")

    monotonic = time.monotonic() + until - time.time()
    result = measure.run(setting, write, monotonic)
    np.savez_compressed(out / f"looks_{name}.npz", **setting.looks)
    left = len(result["not reached"])
    failed = "; ".join(f"{pool}: {why}" for pool, why in result["failed"].items())
    print(
        f"{name}: {len(result['pools'])} pools, {left} not reached, failed: {failed or 'none'}, "
        f"{time.time() - options.started:.0f} s",
        flush=True,
    )


def join(out: Path) -> Path:
    """Make `OUT/league.json` and `OUT/looks.npz` of the files of the image sets, and remove those."""
    whole, looks = {}, {}
    for name in images.PLANS:
        path, seen = out / f"league_{name}.json", out / f"looks_{name}.npz"
        if path.is_file():
            whole[name] = json.loads(path.read_text(encoding="utf-8"))
        if seen.is_file():
            with np.load(seen, allow_pickle=False) as stored:
                looks |= {f"{name}|{pool}": stored[pool] for pool in stored.files}
    paths.write_atomically(out / "league.json", json.dumps(whole, ensure_ascii=False) + "\n")
    np.savez_compressed(out / "looks.npz", **looks)
    for part in [*out.glob("league_*.json"), *out.glob("looks_*.npz")]:
        part.unlink()
    return out / "league.json"


def main() -> None:
    """Parse the command line, run the image sets side by side, join their files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("league_data"), help="from --prepare")
    parser.add_argument("--prepare", action="store_true", help="write the data to --data, and stop")
    parser.add_argument("--join", action="store_true", help="only join what is there")
    parser.add_argument("--sets", nargs="+", default=list(images.PLANS), choices=list(images.PLANS))
    parser.add_argument("--budget", type=float, default=270, help="seconds from the start after which no pool is begun")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--one-by-one", action="store_true", help="one image set after the other")
    parser.add_argument("--scale", default="full", choices=list(SCALES))
    parser.add_argument("--no-second", dest="second", action="store_false", help="ask no second network")
    parser.add_argument("--threads", type=int, help="a process; by default all cores are shared out")
    options = parser.parse_args()
    options.started = time.time()
    options.threads = options.threads or max(1, (os.cpu_count() or 1) // len(options.sets))
    if options.prepare:
        images.prepare(options.data)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.join:
        context = torch.multiprocessing.get_context("spawn")
        running = [context.Process(target=one, args=(name, options)) for name in options.sets]
        for process in running:
            process.start()
            if options.one_by_one:
                process.join()
        for process in running:
            process.join()
    print(f"{join(options.out)}: {time.time() - options.started:.0f} s")


if __name__ == "__main__":
    main()
