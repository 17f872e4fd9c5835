"""Run VS22's PathMNIST study on a file of one's own: python -m advlib.own_file FILE "title" [folder]."""

import json
import sys
from pathlib import Path

from advlib import environment, paths
from advlib.figures import save_figure
from compendium import paths as places
from compendium.nb07_boundary_attack import figures, rising_density


def main(arguments: list[str]) -> None:
    """Study the file, write `pathmnist_tiles.json` and `pathmnist_tiles.png` (or as named) into a folder.

    Parameters
    ----------
    arguments : list of str
        The file in MedMNIST's format, a title that says what it holds, and optionally the folder, by default
        `results/runs`.
    """
    if len(arguments) not in (2, 3):
        raise SystemExit(__doc__)
    file, title = arguments[:2]
    folder = Path(arguments[2]) if len(arguments) == 3 else places.RUNS
    found = rising_density.as_plain(rising_density.own_file_curves(file), title)
    found["environment"] = environment.environment()
    target = folder / rising_density.STORED
    text = json.dumps(found, ensure_ascii=False, indent=1, default=float)
    paths.write_atomically(target, text + "\n")
    save_figure(figures.own_file(found), target.with_suffix(".png"))
    print(f"{target} and {target.with_suffix('.png').name} written")


if __name__ == "__main__":
    main(sys.argv[1:])
