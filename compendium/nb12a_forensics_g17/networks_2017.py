"""Which network of May 2017 brings Table 1's printed R1? Variants and criterion were written down before any was run.

FGSM does not move a pixel whose gradient is exactly zero, and fewer moved pixels give a lower R1. CleverHans' tutorial
network, trained with Adam, has no such pixel, and its R1 at ε = 0.1 and 0.3 lies above the printed one in most rows.

Variants
--------
- The networks of `recipes_2017`: CleverHans' with the optimiser of May 2017 and with or without its older dropout;
  that of tensorflow-adversarial, from which the paper took TGSM; Keras' own examples; a perceptron.
- CleverHans' network with Adam, of June 2017 and later, which is the "as published" one of notebook 02.
- For CleverHans' networks also FGSM against the network's own predictions, as CleverHans did where no labels were
  given; and with dropout left on during the attack, which its `batch_eval` turned off: a mistake that others reported
  of their own code, and it leaves a fifth of the pixels without gradient.
Everything else is as published: unsquared kernel, FGSM unclipped, 10,000 test images, batches of 100.

Criterion
---------
1. A variant brings a row of Table 1 *into the printed intervals* if its mean R1 lies in the printed 95 % interval both
   at ε = 0.1 and at ε = 0.3. From ε = 0.5 on R1 stands on a plateau that no network moves: shown, but it counts for
   nothing.
2. It brings a row *within the spread* if R1 differs from the printed one, at both ε, by no more than the retrained
   tutorial networks differ among themselves (largest minus smallest R1 over the seeds, same row and ε).
3. A recipe is the likely network of the paper only if it does 1 or 2 in all rows: MNIST, grey, red, green and blue.
4. Chance: of this many variants some will hit a single printed interval. A hit at one ε alone counts for nothing.
5. Unmoved pixels are the cause of a lower R1 only if coin flips with the same unmoved pixels give it too, to 10 %.
   Else the pattern of the signs is: neighbouring pixels that move together move an image along directions in which
   images differ anyway.

    python -m compendium.nb12a_forensics_g17.networks_2017    # trains, measures, writes the record
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn
from torch.nn import functional

from advlib import attacks, environment, models, paths
from advlib.figures import save_figure
from advlib.progress import track
from compendium import networks
from compendium import paths as places
from compendium.claims import published
from compendium.common import g17, protocol
from compendium.common.size_sweeps import COMBINED
from compendium.nb12a_forensics_g17 import figures, recipes_2017

STORED = "networks_2017.json"
"""Under `results/reference/`."""

EPSILONS = (0.1, 0.3, 0.5, 1.0)
DECISIVE = (0.1, 0.3)
"""ε below the plateau."""

DRAWS, BATCH_SIZE = 50, 100
ADAM = "CleverHans, Adam"
TRUE, OWN, DROPOUT = "true labels", "own predictions", "dropout on"


class _AlwaysDropout(nn.Module):
    """Dropout in evaluation mode as well."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.dropout(x, self.p, training=True)


def with_dropout_on(model: models.Classifier) -> models.Classifier:
    """Return the classifier with its dropout active whatever its mode; the layers are shared."""
    layers = [_AlwaysDropout(layer.p) if isinstance(layer, nn.Dropout) else layer for layer in model.hidden]
    return models.Classifier(model.normalize, nn.Sequential(*layers), model.head).eval()


def signs_of(model: models.Classifier, images: np.ndarray, labels: np.ndarray, attack: str) -> np.ndarray:
    """Return FGSM's direction, (n, c, h, w) int8, in one of the three ways to attack.

    Parameters
    ----------
    model : Classifier
    images, labels : (n, c, h, w) float32 array, (n,) int64 array
    attack : {"true labels", "own predictions", "dropout on"}
    """
    if attack == OWN:
        labels = models.predict(model, images)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipes_2017.SEED)
        return attacks.gradient_signs(with_dropout_on(model) if attack == DROPOUT else model, images, labels)


def neighbours_agree(signs: np.ndarray) -> float:
    """Mean product of the signs (n, c, h, w) of pixels side by side, over the pairs in which both move; 0 by chance."""
    products = signs[..., 1:] * signs[..., :-1]
    return float(products.sum(dtype=np.int64) / max(np.count_nonzero(products), 1))


class Bench:
    """Table 1's rows of one image set, measured on the same draws for whatever attack.

    Parameters
    ----------
    image_set : str
        "mnist", "cifar10" or "cifar10-grey".
    draws, batch_size : int
        t and m of Algorithm 1.
    seed : int
        Of draws and coin flips.
    """

    def __init__(self, image_set: str, draws: int = DRAWS, batch_size: int = BATCH_SIZE, seed: int = 0):
        self.image_set = image_set
        self.images, self.labels = g17.test_images(image_set, 0)
        rng = np.random.default_rng([seed, list(g17.AS_PUBLISHED.networks).index(image_set)])
        n = len(self.images)
        self._draws = [protocol.draw_indices(n, draws, batch_size, rng) for _ in range(2)]
        self._flips = rng.choice(np.int8([-1, 1]), self.images.shape)

    def lines(self, signs: np.ndarray) -> list[dict[str, Any]]:
        """Measure R1 along `signs` (n, c, h, w), a line a row of Table 1 and ε.

        Returns
        -------
        list of dict
            row, epsilon; zero_share of the pixels and neighbours_agree; r1 with its 95 % interval r1_low, r1_high; and
            coin_flips, the mean R1 when the same pixels stay and a coin decides where the others go.
        """
        channels = range(signs.shape[1])
        flips = self._flips * (signs != 0)
        found = []
        for epsilon in EPSILONS:
            ratios, by_chance = ([self._ratios(s, c, epsilon) for c in channels] for s in (signs, flips))
            for row, (image_set, part) in g17.TABLE1.items():
                if image_set != self.image_set:
                    continue
                chosen = list(channels) if part == "combined" else [int(part.removeprefix("channel "))]
                r1 = protocol.Summary.of(np.mean([ratios[channel] for channel in chosen], axis=0))
                found.append({
                    "row": row, "epsilon": epsilon,
                    "zero_share": float(np.mean(signs[:, chosen] == 0)),
                    "neighbours_agree": neighbours_agree(signs[:, chosen]),
                    "r1": r1.mean, "r1_low": r1.low, "r1_high": r1.high,
                    "coin_flips": float(np.mean([by_chance[channel] for channel in chosen])),
                })  # fmt: skip
        return found

    def _ratios(self, signs: np.ndarray, channel: int, epsilon: float) -> np.ndarray:
        clean = self.images[:, channel].reshape(len(self.images), -1)
        moved = clean + np.float32(epsilon) * signs[:, channel].reshape(clean.shape)
        return protocol.mean_ratios(clean, moved, *self._draws, g17.AS_PUBLISHED.kernel)


def _ways(network: recipes_2017.Network) -> Iterator[str]:
    """Ways in which a network is attacked."""
    yield TRUE
    if network.layers is recipes_2017.cleverhans and "epoch" not in network.name:
        yield OWN
    if network.layers is recipes_2017.cleverhans_dropout:
        yield DROPOUT


def study() -> dict[str, Any]:
    """Train the networks that are missing, attack all and measure Table 1's rows.

    Returns
    -------
    dict
        networks: the cards of `recipes_2017.train`; lines: a dict a variant, way to attack, row and ε, as `Bench.lines`
        gives it, with accuracy; spread: a dict a row and ε with the smallest and largest R1 of the retrained tutorial
        networks and their seeds; settings and environment.
    """
    cards, lines, spread = [], [], []
    for image_set, tutorial in g17.AS_PUBLISHED.networks.items():
        bench = Bench(image_set)
        mine = [network for network in recipes_2017.NETWORKS if network.image_set == image_set]
        for network in track(mine, f"{image_set}: attacks"):
            cards.append(card := recipes_2017.train(network))
            model = recipes_2017.load(network)
            for attack in _ways(network):
                about = {"variant": network.name, "attack": attack, "accuracy": card["accuracy"]}
                signs = signs_of(model, bench.images, bench.labels, attack)
                lines += [about | line for line in bench.lines(signs)]
        by_seed = {seed: _tutorial(bench, tutorial, seed) for seed in (0, *networks.seeds(tutorial))}
        about = {"variant": ADAM, "attack": TRUE, "accuracy": models.card(tutorial)["accuracy"]}
        lines += [about | line for line in by_seed[0]]
        for same in zip(*by_seed.values(), strict=True):
            r1 = [line["r1"] for line in same]
            place = {key: same[0][key] for key in ("row", "epsilon")}
            spread.append(place | {"low": min(r1), "high": max(r1), "seeds": list(by_seed)})
    settings = {"draws": DRAWS, "batch_size": BATCH_SIZE, "seed": recipes_2017.SEED}
    found = {"settings": settings, "networks": cards, "lines": lines, "spread": spread}
    return found | {"environment": environment.environment()}


def _tutorial(bench: Bench, name: str, seed: int) -> list[dict[str, Any]]:
    model = models.load_trained(name, folder=networks.folder(seed) if seed else None)
    return bench.lines(signs_of(model, bench.images, bench.labels, TRUE))


def stored() -> dict[str, Any]:
    """Read the committed study: what `study` gives."""
    return json.loads((places.REFERENCE / STORED).read_text(encoding="utf-8"))


def judged(found: Mapping[str, Any]) -> pandas.DataFrame:
    """Hold a study's lines against the printed numbers.

    Returns
    -------
    pandas.DataFrame
        The lines with printed, printed_low, printed_high; recipe, its name; spread (largest minus smallest R1 of the
        tutorial networks); in_interval and within_spread, points 1 and 2 of the criterion for this ε alone.
    """
    lines = pandas.DataFrame(found["lines"])
    entries = [published.lookup("g17", "Table 1", line.row, f"R1 eps={line.epsilon:g}") for line in lines.itertuples()]
    lines["printed"], lines["printed_low"], lines["printed_high"] = (
        [getattr(entry, key) for entry in entries] for key in ("value", "low", "high")
    )
    spread = {(entry["row"], entry["epsilon"]): entry["high"] - entry["low"] for entry in found["spread"]}
    lines["recipe"] = [called(line.variant, line.attack) for line in lines.itertuples()]
    lines["spread"] = [spread[line.row, line.epsilon] for line in lines.itertuples()]
    lines["in_interval"] = lines.r1.between(lines.printed_low, lines.printed_high)
    lines["within_spread"] = (lines.r1 - lines.printed).abs() <= lines.spread
    return lines


def rows(found: Mapping[str, Any]) -> pandas.DataFrame:
    """Apply the criterion to each variant and each row of Table 1 but the combined one.

    Returns
    -------
    pandas.DataFrame
        Indexed by row, variant and attack: in_intervals, within_spread (points 1 and 2); off, the largest
        |r1/printed − 1| over the decisive ε.
    """
    lines = judged(found)
    lines = lines[lines.epsilon.isin(DECISIVE) & (lines.row != COMBINED)]
    lines = lines.assign(off=(lines.r1 / lines.printed - 1).abs())
    return lines.groupby(["row", "variant", "attack"], sort=False).agg(
        in_intervals=("in_interval", "all"), within_spread=("within_spread", "all"), off=("off", "max")
    )


def nearest(found: Mapping[str, Any]) -> pandas.DataFrame:
    """Name for each row of Table 1 the variants that agree with it by the criterion, and the nearest one.

    Returns
    -------
    pandas.DataFrame
        Words, indexed by the row of Table 1.
    """
    lines = {}
    for row, mine in rows(found).groupby("row", sort=False):
        lines[row] = {
            "in the printed intervals": _names(mine[mine.in_intervals]),
            "within the spread of seeds": _names(mine[mine.within_spread]),
            "nearest": _names(mine.loc[[mine["off"].idxmin()]]),
            "which is off by up to": f"{mine['off'].min():.0%}",
        }
    return pandas.DataFrame.from_dict(lines, orient="index")


def _names(table: pandas.DataFrame) -> str:
    return "; ".join(called(variant, attack) for _, variant, attack in table.index) or "none"


def called(variant: str, attack: str) -> str:
    """Name a recipe: its network, and how it was attacked where that was not by true labels."""
    return variant if attack == TRUE else f"{variant} ({attack})"


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """Say whether a variant is the network of the paper (point 3 of the criterion), and what lowers R1 (point 5)."""
    return [_whole(found), *_cause(found)]


def _agreement(found: Mapping[str, Any]) -> tuple[pandas.DataFrame, int]:
    """In how many rows each recipe agrees ("sum") of those that it has ("size"), and how many there are."""
    single = rows(found)
    agrees = (single.in_intervals | single.within_spread).groupby(["variant", "attack"]).agg(["sum", "size"])
    return agrees, single.index.get_level_values("row").nunique()


def counts(found: Mapping[str, Any]) -> dict[str, int]:
    """How many recipes there are, Table 1 has rows, and in how many of these the best recipe agrees."""
    agrees, wanted = _agreement(found)
    return {"recipes": len(agrees), "rows": wanted, "rows of the best recipe": int(agrees["sum"].max())}


def _whole(found: Mapping[str, Any]) -> str:
    agrees, wanted = _agreement(found)
    whole = agrees[(agrees["sum"] == agrees["size"]) & (agrees["size"] == wanted)]
    if len(whole):
        return f"In all {wanted} rows: {'; '.join(called(*recipe) for recipe in whole.index)}."
    best = agrees["sum"].max()
    return f"No recipe agrees in all {wanted} rows; the best one agrees in {best}."


def _cause(found: Mapping[str, Any]) -> tuple[str, str]:
    lines = judged(found)
    lower = lines[(lines.epsilon == 0.3) & (lines.row != COMBINED)]
    whole = lower[lower.variant == ADAM].set_index("row").r1
    lower = lower[lower.r1 < 0.9 * lower.row.map(whole)]
    pixels = ((lower.coin_flips / lower.r1 - 1).abs() <= 0.1).sum()
    return (
        f"At ε = 0.3 R1 lies more than 10 % below that of {ADAM} in {len(lower)} cases.",
        f"In {pixels} of them coin flips that leave the same pixels unmoved give the same R1, to 10 %.",
    )


def main() -> None:
    """Train the networks that are missing, measure all, and write record and figure."""
    found = study()
    target = places.REFERENCE / STORED
    paths.write_atomically(target, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
    save_figure(figures.networks_2017(judged(found)), target.with_suffix(".png"))
    print(nearest(found).to_string(), *verdicts(found), sep="\n")


if __name__ == "__main__":
    main()
