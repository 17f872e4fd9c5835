"""Verdicts and records of notebook 07_boundary_attack."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from advlib.prdc import expected_coverage
from compendium.claims import published
from compendium.claims.verdicts import AS_PUBLISHED, CORRECTED, Finding, compare, judge_sentences
from compendium.common import vs22
from compendium.common.boundary import PAPER_SIZES
from compendium.nb07_boundary_attack.measure import CLEAN, Outcome

Pair = Sequence[Outcome]
Fgsm = tuple[float, Mapping[str, float]]
MODES = (AS_PUBLISHED, CORRECTED)


def _both(as_published: Any, corrected: Any) -> dict[str, Any]:
    return {AS_PUBLISHED: as_published, CORRECTED: corrected}


def _needs_both(holds: Sequence[bool]) -> dict[str, bool]:
    """Count what holds corrected only where it holds as published too."""
    return _both(bool(holds[0]), bool(all(holds)))


def scaled_coverage(result: Outcome, score: vs22.Score) -> float:
    """Return full-batch coverage scaled to the paper's numbers of references and queries by the closed form.

    Exact in the mean for untouched queries, an approximation for attacked ones.

    Parameters
    ----------
    result : Outcome
        Of one of the paper's image sets.
    score : vs22.Score
    """
    return score.coverage / result.by_steps.expected_coverage * expected_coverage(*PAPER_SIZES[result.title], vs22.K)


def record(run: Any, found: Sequence[Outcome], fgsm: Fgsm, tiles: Mapping[str, Any]) -> None:
    """Keep the numbers of §5.2 and set them and its sentences beside the printed ones.

    Parameters
    ----------
    run : record.Run
    found : sequence of Outcome
        From `measure.outcomes`.
    fgsm : tuple
        From `measure.fgsm_for_comparison`, for MNIST.
    tiles : mapping
        From `pathmnist_tiles.stored`.
    """
    for result in found:
        curve, (auroc, power) = result.by_steps, result.by_steps.decisions("density")
        metrics = {f"images.{key}": count for key, count in result.counts.items()}
        for steps, l2, density in zip(result.steps, result.l2, curve.density, strict=True):
            metrics |= {f"l2.{steps}": l2, f"density.{steps}": density}
        metrics |= {"coverage": curve.coverage[-1], "clean_density": curve.clean.density}
        metrics |= {"clean_coverage": curve.clean.coverage, "auroc": auroc[-1], "power_at_5_percent": power[-1]}
        if result.noise is not None:
            metrics["noise_density"] = result.noise.density
        for name, value in metrics.items():
            run.metric(f"{result.title}.{result.mode.name}.{name}", value)
    for pair in zip(found[::2], found[1::2], strict=True):
        if pair[0].image_set.in_paper:
            _compare_numbers(run, pair)
    mnist = [result for result in found if result.title == "MNIST"]
    findings = {
        "coverage_grows": coverage_grows(found),
        "clean_coverage_unchanged": clean_coverage_unchanged(),
        "mnist_discernible": mnist_discernible(mnist),
        "further_than_fgsm": further_than_fgsm(mnist, fgsm),
    }
    judge_sentences(run, findings | tiles_findings(tiles))


def _compare_numbers(run: Any, pair: Pair) -> None:
    """Compare with each number that §5.2 prints: within three standard errors of ours and a tenth of the printed one.

    Few images give wide errors, in which everything would lie: at most half of the printed value is allowed.
    """
    first, after = pair[0], f"after {pair[0].steps[-1]} steps"
    references = f"{first.by_steps.n_reference} references"
    where = f"{first.counts['attacked']} images, {references}"
    scaled = f"{where}, scaled to the paper's numbers by the closed form"
    start = f"the starts alone have {first.by_steps.density[0]:.2f} as published: density follows the steps"
    causes = {
        "reference density": where, "adversarial density": after,
        "reference coverage": scaled, "adversarial coverage": f"{scaled}; {after}",
    }  # fmt: skip
    for edge in ("smallest", "largest"):
        causes[f"reference density {edge}"] = f"medians over batches of {CLEAN} untouched images; {references}"
        causes[f"adversarial density {edge}"] = f"{where}, {after}; {start}"
    ours = [_values_and_errors(result) for result in pair]
    for entry in published.load("vs22", "§5.2"):
        if entry.row == first.title and entry.column in causes:
            values, errors = zip(*(found[entry.column] for found in ours), strict=True)
            allowed = np.minimum(3 * np.asarray(errors) + 0.1 * entry.value, 0.5 * entry.value)
            near = np.abs(np.subtract(values, entry.value)) <= allowed
            run.compare(compare(entry.key, _both(*values), _needs_both(near), causes[entry.column]))


def _values_and_errors(result: Outcome) -> dict[str, tuple[float, float]]:
    curve = result.by_steps
    of_clean, of_attacked = (list(scores.values())[-1].density_error for scores in (result.clean, result.attacked))
    clean, attacked = scaled_coverage(result, curve.clean), scaled_coverage(result, curve.scores[-1])
    found = {
        "reference density": (curve.clean.density, curve.clean.density_error),
        "adversarial density": (curve.density[-1], of_attacked),
        "reference coverage": (clean, clean * curve.clean.density_error),
        "adversarial coverage": (attacked, attacked * of_attacked),
    }
    for edge, pick in (("smallest", np.min), ("largest", np.max)):
        found[f"reference density {edge}"] = pick(result.medians("density", "clean")), of_clean
        found[f"adversarial density {edge}"] = pick(result.medians("density")), of_attacked
    return found


def coverage_grows(found: Sequence[Outcome]) -> Finding:
    """Whether coverage rises with the batch size, clean and attacked."""
    grows = all(
        (np.diff(result.medians("coverage", which)) > 0).all()
        for result in found
        for which in ("clean", "attacked")
        if result.counts["adversarial"]
    )
    return Finding(dict.fromkeys(MODES, grows), dict.fromkeys(MODES, f"grows: {grows}"))


def clean_coverage_unchanged() -> Finding:
    """Whether clean coverage is the same in the paper's experiments with FGSM and with the boundary attack."""
    fgsm, boundary = expected_coverage(20_000, 2_100, vs22.K), expected_coverage(*PAPER_SIZES["MNIST"], vs22.K)
    words = _both(
        f"MNIST coverage {fgsm:.2f} and {boundary:.2f}",
        "density unchanged, coverage only at the same number of references",
    )
    printed = [published.value("vs22", item, "MNIST", "reference coverage") for item in ("§5.1", "§5.2")]
    same = abs(fgsm - boundary) < 0.05 * fgsm
    return Finding(dict.fromkeys(MODES, same), words, {"fgsm": printed[0], "boundary": printed[1]})


def mnist_discernible(mnist: Pair) -> Finding:
    """Whether the density of one batch of MNIST tells attacked from clean."""
    aurocs = [result.by_steps.decisions("density")[0][-1] for result in mnist]
    words = _both(*(f"MNIST AUROC {auroc:.2f}" for auroc in aurocs))
    numbers = {"size": list(mnist[0].attacked)[-1], "steps": mnist[0].steps[-1]}
    return Finding(_needs_both([auroc > 0.9 for auroc in aurocs]), words, numbers)


def further_than_fgsm(mnist: Pair, fgsm: Fgsm) -> Finding:
    """Whether MNIST's density is further from clean under the boundary attack than under FGSM."""
    before, under = fgsm
    further = [
        abs(np.log(max(result.by_steps.density[-1], 1e-3) / result.by_steps.clean.density))
        > abs(np.log(max(under[result.mode.name], 1e-3) / before))
        for result in mnist
    ]
    words = _both(*(f"MNIST: boundary further from clean: {bool(far)}" for far in further))
    return Finding(_needs_both(further), words, {"steps": mnist[0].steps[-1]})


def tiles_findings(tiles: Mapping[str, Any]) -> dict[str, Finding]:
    """Judge the sentences on PathMNIST by the stored study of its tiles.

    Density opposite to MNIST's under the boundary attack (here: clipped to its bounds alone), density not like MNIST's
    under FGSM, and its rise caused by the images' confinement to one class.
    """
    moves = {key: move.reset_index() for key, move in tiles["movements"].groupby(["way", "name"])}
    own, clipped = moves["own statistics", "FGSM as published"], moves["own statistics", "clipped alone"]
    halves, pixels = moves["one half", "FGSM as published"], moves["corrected", "FGSM corrected"]
    last, last_half, last_pixel = own.iloc[-1], halves.iloc[-1], pixels.iloc[-1]
    elsewhere, alone = max(last_half.density, last_pixel.density), clipped.density.max()
    bounds, most = tiles["boundary"]["own statistics"], pixels.density[1:].max()
    opposite = _both(bounds["clipped_density"] > bounds["clean_density"], bool(most > pixels.density[0]))
    rises = _both(*(bool(move.density.max() > 2 * move.density[0]) for move in (own, pixels)))
    confined = dict.fromkeys(MODES, bool(elsewhere > 1 and alone < 2 * clipped.density[0]))
    return {
        "tiles_density_rises_when_clipped": Finding(opposite, _both(
            f"tiles clipped alone: density {bounds['clipped_density']:.1f} instead of {bounds['clean_density']:.1f}",
            f"tiles, FGSM in pixels: density at most {most:.2f}",
        )),
        "tiles_density_rises": Finding(rises, _both(
            f"tiles: density from {own.density[0]:.1f} to {last.density:.1f}",
            f"tiles: density from {pixels.density[0]:.1f} to {last_pixel.density:.2f}",
        ), {"title": tiles["title"]}),
        "tiles_density_follows_the_largest_class": Finding(confined, _both(
            f"tiles: largest class {last.largest_class:.0%} and density {last.density:.1f}; normalised "
            f"by 0.5 and 0.5, {last_half.largest_class:.0%} and {last_half.density:.1f}",
            f"tiles: largest class {last_pixel.largest_class:.0%} and density {last_pixel.density:.1f}",
        ), {"title": tiles["title"], "alone": alone}),
    }  # fmt: skip
