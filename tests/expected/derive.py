"""Derive the bands of `tests/expected/*.yaml` from the spread over seeds: `python tests/expected/derive.py [NAME …]`.

Each notebook runs with its quick profile under five seeds. The expected value is the mean, the band four standard
deviations of the seeds: a fresh run of the same code stays inside, a changed method does not. A share (AUROC, power,
accuracy) that came out the same under every seed gets the rule of three, 3 / (seeds × draws), and no band of zero.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from rich.console import Console

from advlib import runner

SEEDS = range(5)


def scalars(metrics):
    """Flatten lists into "name[i]"."""
    for name, value in metrics.items():
        if isinstance(value, list):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value) if isinstance(item, (int, float)))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def derive(path, console):
    """Run one notebook under every seed and return the content of its YAML file."""
    parameters = runner.defaults(path)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            outcome = runner.run_notebook(path, {**parameters, "seed": seed}, console, force=True, runs=Path(folder))
            if outcome.status != "ran":
                raise SystemExit(f"{path.stem}, seed {seed}: {outcome.message}")
            console.print(f"{path.stem}, seed {seed}: {outcome.seconds:.0f} s")
            found = json.loads((Path(folder) / "quick" / path.stem / "metrics.json").read_text(encoding="utf-8"))
            runs.append(dict(scalars(found["metrics"])))
            for words, holds in found["verdicts"].items():
                if not holds:
                    console.print(f"  False under seed {seed}: {words}")
    bands = []
    for name in runs[0]:
        # Seconds and ratios of seconds belong to the machine, not to the method; what a seed leaves empty has no band.
        if name.startswith("time.") or not all(name in run for run in runs):
            continue
        values = np.array([run[name] for run in runs], dtype=float)
        spread = float(values.std(ddof=1))
        if spread > 0:
            atol, why = 4 * spread, f"4 standard deviations over seeds 0 to {len(runs) - 1}"
        elif 0 <= values[0] <= 1:
            atol = 3 / (len(runs) * parameters.get("draws", 100))
            why = f"the same under {len(runs)} seeds; rule of three"
        else:
            atol, why = 0.0, f"the same under {len(runs)} seeds; no randomness enters"
        bands.append(
            {
                "metric": name,
                "value": float(f"{values.mean():.6g}"),
                "atol": float(f"{atol:.3g}") or 1e-9,
                "rtol": 1e-5,
                "why": why,
            }
        )
    return {"notebook": path.stem, "generated_by": "tests/expected/derive.py", "metrics": bands}


if __name__ == "__main__":
    terminal = Console()
    for notebook in runner.notebooks(sys.argv[1:]):
        text = yaml.safe_dump(derive(notebook, terminal), sort_keys=False, allow_unicode=True, width=120)
        Path(__file__).with_name(f"{notebook.stem}.yaml").write_text(text, encoding="utf-8")
