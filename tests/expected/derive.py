"""Derive the bands of `tests/expected/*.yaml`: `python tests/expected/derive.py [NAME …]` (hours for all).

Each notebook runs with its quick profile under five seeds (the processor's own instructions, one thread), and with seed
0 under other arithmetic settings: instruction sets of torch, oneDNN, MKL and OpenBLAS down to the lowest, all threads.
Rounding differs between them as it differs between processors, and an iterated attack or an argmax amplifies it. A
committed record of another processor counts as one more setting. What ran is kept in `results/runs/derive`, so that an
interrupted derivation goes on. What an earlier derivation knew of another processor cannot be run again here: a width
that it took from arithmetic is kept where its value still stands.

The expected value is the mean over the seeds. The half-width of its band is the largest of

- *seeds*: four standard deviations over the seeds. A share that came out the same under every seed may differ by one
  draw (the rule of three, 3 / (seeds × draws), says less than that);
- *arithmetic*: twice the largest distance between a setting and the run with seed 0, or twice what is usual among those
  of its family that moved (same first and last part of the name, so the same kind of number; the median, relative),
  because a number that stood still here may move like its kin on the next processor;
- *resolution*: the step 1/n of a share of n images, batches or pairs; n is the least common denominator of all values
  seen in its family.

A statement or checked cell that does not come out the same in every run is listed under `undecided`; a test refuses it.
"""

import json
import math
import os
import sys
from collections import defaultdict
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import yaml
from rich.console import Console

from advlib import paths
from compendium import paths as places
from compendium import runner
from compendium.claims import record

SEEDS = range(5)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
SETTINGS = {
    "native, all threads": {},
    "AVX2, all threads": {
        "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell", "MKL_CBWR": "AVX2",
    },
    "lowest, one thread": {
        "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Haswell",
        "MKL_CBWR": "COMPATIBLE", **ONE_THREAD,
    },
}  # fmt: skip
RTOL = 1e-4  # no page prints more than four significant digits
LARGEST_STEP_COUNT = 20_000
STILL = 1e-6  # relative; a record holds ten digits, float32 about seven
DRAWS = 100
MARKER = "# NBVAL_CHECK_OUTPUT"


def bands_of(name):
    """Name the file that holds a notebook's bands."""
    return Path(__file__).with_name(f"{name}.yaml")


def scalars(metrics):
    """Flatten lists into "name[i]"."""
    for name, value in metrics.items():
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value) if isinstance(item, (int, float)))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def family(name):
    """First and last part of a metric's dotted name, positions in lists left out: numbers of one kind."""
    plain = name.split("[")[0]
    return plain.split(".")[0], plain.rpartition(".")[2]


@contextmanager
def environment(values, cache):
    """Set variables that a kernel inherits; crafted images come from this arithmetic, not from another run's."""
    before = dict(os.environ)
    os.environ.update(values, ADVLIB_CACHE=str(cache))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def checked_cells(path):
    """Return what each cell that nbval compares has printed."""
    cells = nbformat.read(path, as_version=4).cells
    marked = [cell for cell in cells if cell.cell_type == "code" and MARKER in cell.source.splitlines()]
    return ["".join(out.text for out in cell.outputs if out.output_type == "stream") for cell in marked]


def run(path, label, seed, values, console):
    """Run one notebook, or take what an interrupted derivation left; return its record and its checked cells."""
    folder = places.RUNS / "derive" / label.replace(" ", "_").replace(",", "")
    parameters = {**runner.defaults(path), "seed": seed}
    # The cache is the setting's own: every seed of the native runs may share one.
    with environment(values, folder / "cache"):
        outcome = runner.run_notebook(path, parameters, console, runs=folder)
    if outcome.status == "failed":
        raise SystemExit(f"{path.stem}, {label}: {outcome.message}")
    console.print(f"{path.stem}, {label}: {outcome.status} {outcome.seconds:.0f} s", highlight=False)
    stored = folder / "quick" / path.stem
    return json.loads((stored / "metrics.json").read_text(encoding="utf-8")), checked_cells(stored / path.name)


def common_denominator(values):
    """Least n for which all values are multiples of 1/n, or None when that takes more than 20,000 or leaves [0, 1]."""
    n = 1
    for value in values:
        if not 0 <= value <= 1:
            return None
        fraction = Fraction(value).limit_denominator(LARGEST_STEP_COUNT)
        if abs(float(fraction) - value) > 2e-9:  # records hold ten digits
            return None
        n = math.lcm(n, fraction.denominator)
        if n > LARGEST_STEP_COUNT:
            return None
    return n


def family_widths(by_name):
    """Return {family: (relative drift, size, n)} from {name: (values over seeds, values over settings)}."""
    members = defaultdict(list)
    for name, columns in by_name.items():
        members[family(name)].append(columns)
    found = {}
    for kind, rows in members.items():
        native = np.array([seeds[0] for seeds, _ in rows])
        size = float(np.median(np.abs(native)))
        scale = np.maximum(np.abs(native), size)
        moved = np.array([others for _, others in rows]) - native[:, None]
        drift = np.divide(moved, scale[:, None], out=np.zeros_like(moved), where=scale[:, None] > 0)
        every = [value for seeds, others in rows for value in (*seeds, *others)]
        moved = np.abs(drift)[np.abs(drift) > STILL]
        found[kind] = float(np.median(moved)) if moved.size else 0.0, size, common_denominator(every)
    return found


def band(name, seeds, others, kin, draws):
    """Return one entry of the YAML file."""
    drift, size, n = kin
    spread, native = float(seeds.std(ddof=1)), seeds[0]
    widths = {
        "seeds": 4 * spread,
        "arithmetic": 2 * max(float(np.abs(others - native).max()), drift * max(abs(native), size)),
        "resolution": 0.0,
    }
    words = {
        "seeds": f"4 standard deviations over seeds 0 to {len(seeds) - 1}",
        "arithmetic": f"arithmetic: {len(others)} settings beside seed 0, own or family's drift",
        "resolution": f"resolution: a share in steps of 1/{n}",
    }
    own = common_denominator([*seeds, *others])
    if n and n > 1:
        n = own if own and own >= 10 else n
        widths["resolution"], words["resolution"] = 1 / n, f"resolution: a share in steps of 1/{n}"
    if spread == 0 and 0 <= native <= 1:
        widths["seeds"] = 1 / draws
        words["seeds"] = f"the same under {len(seeds)} seeds; one draw of {draws} may differ"
    widest = max(widths, key=widths.get)
    if widths[widest] == 0:
        widest, words["seeds"] = "seeds", f"the same in all {len(seeds) + len(others)} runs; a count or a choice"
    return {
        "metric": name,
        "value": float(f"{seeds.mean():.6g}"),
        "atol": float(f"{widths[widest]:.3g}") or 1e-9,
        "rtol": RTOL,
        "why": words[widest],
    }


def earlier_bands(path, here):
    """Return the processors that an earlier derivation knew beside this one, and {metric: its band by arithmetic}."""
    if not path.is_file():
        return [], {}
    earlier = yaml.safe_load(path.read_text(encoding="utf-8"))
    elsewhere = [each for each in earlier["settings"] if each not in SETTINGS and each != here]
    bands = {each["metric"]: each for each in earlier["metrics"] if each["why"].startswith("arithmetic")}
    return elsewhere, bands if elsewhere else {}


def not_narrower(new, earlier):
    """Keep the width of an earlier band by arithmetic, unless the number has become another one since."""
    if earlier is None or earlier["atol"] <= new["atol"]:
        return new
    if abs(new["value"] - earlier["value"]) > earlier["atol"] + new["atol"]:
        return new
    return new | {"atol": earlier["atol"], "why": earlier["why"]}


def undecided(records, cells):
    """List statements and checked cells that differ between runs, with the runs in which they do."""
    first = next(iter(records))
    found = []
    for words, holds in records[first]["verdicts"].items():
        other = [label for label, each in records.items() if each["verdicts"].get(words) != holds]
        if other:
            found.append(f"statement, {holds} but for {'; '.join(other)}: {words}")
    for index, text in enumerate(cells[first]):
        other = [label for label, each in cells.items() if each[index] != text]
        if other:
            found.append(f"checked cell {index}, other under {'; '.join(other)}")
    return found


def derive(path, console):
    """Run one notebook under every seed and setting and return the content of its YAML file."""
    plan = {f"seed {seed}": (seed, ONE_THREAD) for seed in SEEDS}
    plan |= {name: (0, values) for name, values in SETTINGS.items()}
    records, cells = {}, {}
    for label, (seed, values) in plan.items():
        records[label], cells[label] = run(path, label, seed, values, console)
    settings = list(SETTINGS)
    committed = record.reference_path(path.stem, "quick")
    if committed.is_file():
        stored, native = json.loads(committed.read_text(encoding="utf-8")), records["seed 0"]
        elsewhere = stored["environment"]["cpu"] != native["environment"]["cpu"]
        alike = stored["parameters"] == native["parameters"] and stored["metrics"].keys() == native["metrics"].keys()
        if elsewhere and alike:
            settings.append(stored["environment"]["cpu"])
            records[settings[-1]], cells[settings[-1]] = stored, checked_cells(path)
    numbers = {label: dict(scalars(each["metrics"])) for label, each in records.items()}
    here = records["seed 0"]["environment"]["cpu"]
    elsewhere, earlier = earlier_bands(bands_of(path.stem), here)
    # Seconds and ratios of seconds belong to the machine, not to the method; what a seed leaves empty has no band.
    names = [n for n in numbers["seed 0"] if not n.startswith("time.") and all(n in each for each in numbers.values())]
    by_name = {
        name: (
            np.array([numbers[f"seed {seed}"][name] for seed in SEEDS], dtype=float),
            np.array([numbers[label][name] for label in settings], dtype=float),
        )
        for name in names
    }
    kin = family_widths(by_name)
    draws = records["seed 0"]["parameters"].get("draws", DRAWS)
    return {
        "notebook": path.stem,
        "generated_by": "tests/expected/derive.py",
        "seeds": len(SEEDS),
        "settings": list(dict.fromkeys([*settings, *elsewhere, here])),
        "undecided": undecided(records, cells),
        "moved_by_arithmetic": sum(
            bool(np.abs(others - seeds[0]).max() > STILL * abs(seeds[0])) for seeds, others in by_name.values()
        ),
        "metrics": [
            not_narrower(band(name, *columns, kin[family(name)], draws), earlier.get(name))
            for name, columns in by_name.items()
        ],
    }


def written(content):
    """YAML text with one line a metric."""
    head = yaml.safe_dump({**content, "metrics": None}, sort_keys=False, allow_unicode=True, width=120)
    rows = (
        yaml.safe_dump(row, sort_keys=False, allow_unicode=True, width=10_000, default_flow_style=True).strip()
        for row in content["metrics"]
    )
    return head.replace("metrics: null\n", "metrics:\n") + "".join(f"- {row}\n" for row in rows)


def sensitive():
    """Name the notebooks of which at least a tenth of the bands owe their width to arithmetic."""
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        reasons = [band["why"] for band in yaml.safe_load(path.read_text(encoding="utf-8"))["metrics"]]
        if 10 * sum(why.startswith("arithmetic") for why in reasons) >= len(reasons):
            yield path.stem


if __name__ == "__main__":
    if sys.argv[1:] == ["--sensitive"]:
        print(*sensitive())
        raise SystemExit
    terminal = Console()
    for notebook in runner.notebooks(sys.argv[1:]):
        paths.write_atomically(bands_of(notebook.stem), written(derive(notebook, terminal)))
