"""The league on a machine with a GPU: `python -m compendium.nb14_league.device OUT`.

One process an image set; each writes `OUT/league_NAME.json` after every pool, so that what is done is kept when time is
up. CIFAR-10's network is trained first where its data are there, into OUT. `--join` makes one file of all.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from advlib import models, paths, training
from advlib.environment import environment
from compendium.nb14_league import images, measure
from compendium.nb14_league.attacks import Effort

STRIP = 1000  # images in one picture, below each other

TINY = measure.Scale(
    halves=2, clean=39, draws=20, images=60, slow=12, changed=30, evading=12, learned=40, calibrated=40, batches=(1, 5),
    effort=Effort(steps=4, search=4, queries=100),
)  # fmt: skip
_SMALL = {
    "halves": 5,
    "clean": 99,
    "draws": 20,
    "permutations": 199,
    "effort": Effort(steps=20, search=50, queries=400),
}
_GRADIENTS = ("PGD", "low-frequency", "APGD, cross-entropy", "knows texture", "knows scales")
SCALES = {
    "full": {name: measure.Scale() for name in images.PLANS},
    "tiny": dict.fromkeys(images.PLANS, TINY),
    "small": {
        "mnist": measure.Scale(images=300, slow=60, changed=100, evading=60, learned=100, calibrated=150, **_SMALL),
        "organamnist": measure.Scale(
            images=150,
            slow=40,
            changed=50,
            evading=50,
            learned=60,
            calibrated=80,
            batches=(1, 5, 25),
            attacks=("FGSM", *_GRADIENTS, "momentum", "knows aim", "C&W"),
            **_SMALL,
        ),
        "bloodmnist": measure.Scale(images=200, evading=60, aimed=False, changes=False, attacks=_GRADIENTS, **_SMALL),
        "cifar10": measure.Scale(images=140, evading=60, aimed=False, changes=False, attacks=_GRADIENTS, **_SMALL),
    },
}
"""How much is measured.

"full" is meant for a GPU, "small" for a quarter of an hour of a CPU core, "tiny" to try the script."""


def pack_cifar10(folder: Path) -> None:
    """Write CIFAR-10's six files as lossless pictures with their labels, `cifar10_NAME.npz`, half the size."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((paths.DOWNLOADS / "cifar10").glob("*.bin")):
        rows = np.fromfile(path, dtype=np.uint8).reshape(-1, 3073)
        strips = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).reshape(-1, STRIP // 4 * 32, 32, 3)
        written = {}
        for k, strip in enumerate(strips):
            picture = folder / f"{path.stem}.webp"
            Image.fromarray(strip).save(picture, lossless=True, quality=50, method=4)
            written[f"strip{k}"] = np.frombuffer(picture.read_bytes(), dtype=np.uint8)
            picture.unlink()
        np.savez(folder / f"cifar10_{path.stem}.npz", labels=rows[:, 0], **written)


def unpack_cifar10(folder: Path) -> bool:
    """Write CIFAR-10's files from what `pack_cifar10` made, to the bit; return whether all six are there."""
    target = paths.DOWNLOADS / "cifar10"
    target.mkdir(parents=True, exist_ok=True)
    packed = sorted(folder.glob("cifar10_*_*.npz"))
    for path in packed:
        whole = target / f"{path.stem.removeprefix('cifar10_')}.bin"
        if whole.is_file():
            continue
        with np.load(path, allow_pickle=False) as stored:
            pictures = []
            for k in range(len(stored.files) - 1):
                picture = target / "strip.webp"
                picture.write_bytes(stored[f"strip{k}"].tobytes())
                pictures.append(np.asarray(Image.open(picture)).reshape(-1, 32, 32, 3))
                picture.unlink()
            pixels = np.concatenate(pictures).transpose(0, 3, 1, 2).reshape(-1, 3072)
            np.concatenate([stored["labels"][:, None], pixels], axis=1).tofile(whole)
    return len(list(target.glob("*.bin"))) == 6


def one(name: str, options: argparse.Namespace) -> None:
    """Run one image set and write its file after each pool."""
    until = options.started + options.budget
    torch.set_num_threads(options.threads)
    data, out = Path(options.data), Path(options.out)
    notes: dict[str, Any] = {}
    if name == "cifar10" and options.train and unpack_cifar10(data):
        notes["training"] = _trained(out, options)
    with np.load(data / f"{name}.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    scale = SCALES[options.scale][name]
    drawn = images.placed(arrays, options.device, scale.images)
    model, second, network = images.networks(name, options.device, (out, data))
    second = second if options.second else None
    setting = measure.prepare(drawn, model, second, images.PLANS[name].epsilons, scale)
    clock = time.time()
    right = models.accuracy(model, arrays["test"].astype(np.float32) / 255, arrays["test_labels"].astype(np.int64))
    known = {
        "set": name, "network": network, "second": second is not None, "accuracy": right, **notes,
        "test": len(drawn.test), "epsilons": list(setting.epsilons), "batches": list(scale.batches),
        "clean": scale.clean, "draws": scale.draws, "halves": scale.halves,
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


def _trained(out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train CIFAR-10's network; if that fails, say why, and the shipped one is attacked."""
    name = "cifar10-resnet-long"
    try:
        card = training.train(name, folder=out, device=options.device, epochs=options.epochs, progress=False)
    except Exception as error:  # the machine is there for minutes, and the other network is better than none
        return {"failed": f"{type(error).__name__}: {error}"}
    return {"accuracy": card["accuracy"], "duration_s": card["duration_s"]}


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
    parser.add_argument(
        "--no-train", dest="train", action="store_false", help="take the CIFAR-10 network that is there"
    )
    parser.add_argument("--epochs", type=int, help="of the CIFAR-10 network, in place of its recipe's")
    parser.add_argument("--one-by-one", action="store_true", help="one image set after the other")
    parser.add_argument("--scale", default="full", choices=list(SCALES))
    parser.add_argument("--no-second", dest="second", action="store_false", help="ask no second network")
    parser.add_argument("--threads", type=int, help="a process; by default all cores are shared out")
    options = parser.parse_args()
    options.started = time.time()
    options.threads = options.threads or max(1, (os.cpu_count() or 1) // len(options.sets))
    if options.prepare:
        images.prepare(options.data)
        pack_cifar10(options.data)
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
