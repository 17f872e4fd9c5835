"""Notebook 01_intuition: examples, maps, a density ratio in one dimension, points that move through balls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import stats
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

from advlib import attacks, datasets, models
from advlib.figures import ADVERSARIAL, CORRECTED, LIMIT, PUBLISHED, REAL, show_image, subplots
from advlib.prdc import ReferenceManifold
from advlib.progress import track
from advlib.ulsif import ULSIF
from compendium.common import g17
from compendium.common.g17 import TABLE1, test_images
from compendium.common.protocol import auroc


def joint_maps(
    batches: Mapping[str, Mapping[str, np.ndarray]], rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    """Embed clean and adversarial images on one t-SNE map of raw pixels, a map for each data set.

    G17's Fig. 2 draws two separate maps, whose axes have nothing to do with each other; one map can be compared.

    Parameters
    ----------
    batches : dict
        Title → dict with `real` and `adversarial` (n, c, h, w) of different images and the labels of both,
        `real_labels` and `adversarial_labels` (n,).

    Returns
    -------
    dict
        Title → the same keys, images replaced by (n, 2) unitless coordinates.
    """
    maps = {}
    for title, batch in track(batches.items(), "t-SNE", len(batches)):
        n = len(batch["real"])
        both = np.concatenate([batch["real"], batch["adversarial"]]).reshape(2 * n, -1)
        tsne = TSNE(init="pca", random_state=int(rng.integers(2**31)), perplexity=min(30, n // 2))
        embedded = tsne.fit_transform(both)
        maps[title] = {**batch, "real": embedded[:n], "adversarial": embedded[n:]}
    return maps


def clean_distance_auroc(real: np.ndarray, adversarial: np.ndarray) -> float:
    """AUROC of the distance to the nearest other clean image, in pixel space: 1 where all adversarial lie further off.

    A question that noise cannot evade: two batches of one distribution give one half.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        Of different images, as for `clean_neighbour_share`.
    """
    clean, suspect = (batch.reshape(len(batch), -1) for batch in (real, adversarial))
    tree = NearestNeighbors(n_neighbors=1).fit(clean)
    among_clean, _ = tree.kneighbors()  # without arguments a point is not its own neighbour
    return auroc(among_clean[:, 0], tree.kneighbors(suspect)[0][:, 0])


def ratio_in_one_dimension(samples: int, rng: np.random.Generator) -> dict[str, object]:
    """Fit uLSIF to two normal samples whose true density ratio is known.

    The numerator is N(0, 1), the denominator N(0.8, 1.3²): the wider density is below, so the ratio is bounded.

    Returns
    -------
    dict
        x (400,), p_numerator, p_denominator, true_ratio, estimate (400,), the samples numerator, denominator
        (samples,), sigma, lambda, mean_ratio (over the numerator), mean_true_ratio (likewise), and correlation of
        estimate and truth over the numerator.
    """
    numerator, denominator = rng.normal(0, 1, samples), rng.normal(0.8, 1.3, samples)
    x = np.linspace(-4, 5, 400)
    model = ULSIF(random_state=int(rng.integers(2**31))).fit(numerator[:, None], denominator[:, None])
    p_numerator, p_denominator = stats.norm.pdf(x), stats.norm.pdf(x, 0.8, 1.3)

    def truth(points: np.ndarray) -> np.ndarray:
        return stats.norm.pdf(points) / stats.norm.pdf(points, 0.8, 1.3)

    at_samples = model.predict(numerator[:, None])
    return {
        "x": x,
        "p_numerator": p_numerator,
        "p_denominator": p_denominator,
        "true_ratio": truth(x),
        "estimate": model.predict(x[:, None]),
        "numerator": numerator,
        "denominator": denominator,
        "sigma": model.sigma_,
        "lambda": model.lambda_,
        "mean_ratio": float(np.mean(at_samples)),
        "mean_true_ratio": float(np.mean(truth(numerator))),
        "correlation": float(np.corrcoef(at_samples, truth(numerator))[0, 1]),
    }


def points_through_balls(shifts: list[float], rng: np.random.Generator, k: int = 2) -> list[dict[str, object]]:
    """Move a batch through the k-nearest-neighbour balls of a reference in the plane (VS22 Fig. 5).

    The batch starts scattered as the reference is, is drawn in towards the middle, and leaves. In both, one point in
    four lies far out, as unusual images do: lonely points get large balls that reach over the middle.

    Parameters
    ----------
    shifts : list of float
        How far along the path each picture is taken; 0 is the untouched batch.
    rng : numpy.random.Generator
        Source of the points.
    k : int
        Number of neighbours; the paper's figure has 2.

    Returns
    -------
    list of dict
        shift, reference (40, 2), radii (40,), queries (25, 2), density, coverage.
    """

    def scattered(n: int) -> np.ndarray:
        return rng.normal(size=(n, 2)) * np.where(np.arange(n) % 4 == 0, 2.5, 0.8)[:, None]

    reference, start = scattered(40), scattered(25)
    manifold = ReferenceManifold(k=k).fit(reference)
    steps = []
    for shift in shifts:
        # Contraction towards the middle, then a drift away from it: FGSM's push seen in two dimensions.
        queries = start * np.exp(-2 * shift) + np.array([2.0, 1.2]) * shift**2
        density, coverage = manifold.density_coverage(queries)
        steps.append(
            {
                "shift": shift,
                "reference": reference,
                "radii": np.asarray(manifold.radii_),
                "queries": queries,
                "density": density,
                "coverage": coverage,
            }
        )
    return steps


def example_twins(epsilons: Mapping[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Pick one image a set that its network reads rightly and whose FGSM twin it does not (the idea of Fig. 1).

    Parameters
    ----------
    epsilons : dict
        Image set → L∞ size of the attack, pixels in [0, 1].

    Returns
    -------
    list of dict
        image, twin (c, h, w), epsilon, said, said_of_twin (class names).
    """
    rows = []
    for image_set, epsilon in epsilons.items():
        images, labels = test_images(image_set, 200)
        names = datasets.load(image_set).class_names
        model = models.load_trained(g17.CORRECTED.networks[image_set])
        batch = attacks.fgsm(model, images, labels, epsilon=epsilon)
        chosen = int(rng.choice(np.flatnonzero(batch.success)))
        said = models.predict(model, np.stack([images[chosen], batch.images[chosen]]))
        rows.append(
            {
                "image": images[chosen],
                "twin": batch.images[chosen],
                "epsilon": epsilon,
                "said": names[said[0]],
                "said_of_twin": names[said[1]],
            }
        )
    return rows


def figure2_batches(epsilon: float, count: int) -> dict[str, dict[str, np.ndarray]]:
    """Clean and FGSM-attacked test images of MNIST and grey CIFAR-10, for Fig. 2; no image is in both batches.

    Parameters
    ----------
    epsilon : float
        L∞ size, pixels in [0, 1].
    count : int
        Images of each kind and set, at most half of the test images.

    Returns
    -------
    dict
        Title → dict with `real`, `adversarial` (count, 1, h, w), `real_labels`, `adversarial_labels` (count,).
    """
    batches = {}
    for title in ("MNIST", "CIFAR-10 (grey)"):
        image_set, _ = TABLE1[title]
        images, labels = test_images(image_set, 2 * count)
        model = models.load_trained(g17.CORRECTED.networks[image_set])
        attacked = attacks.fgsm(model, images[count:], labels[count:], epsilon=epsilon)
        batches[title] = {
            "real": images[:count],
            "adversarial": attacked.images,
            "real_labels": labels[:count],
            "adversarial_labels": labels[count:],
        }
    return batches


def judge_figure2(shares: Mapping[str, tuple[float, float]], further: Mapping[str, float]) -> dict[str, Any]:
    """Judge "densities … differ significantly" (Fig. 2) in pixel space, by how far the nearest clean image is.

    Parameters
    ----------
    shares : dict
        Title → share of clean and of adversarial images whose nearest image is clean, `protocol.clean_neighbour_share`.
    further : dict
        Title → `protocol.clean_distance_auroc`; at least 0.75 counts as different.

    Returns
    -------
    dict
        A row for `Run.compare`.
    """
    apart = {title: of_real > 0.75 and of_adversarial < 0.25 for title, (of_real, of_adversarial) in shares.items()}
    seen = "; ".join(f"{title}: {a:.1%} of clean, {b:.1%} of adversarial images" for title, (a, b) in shares.items())
    distances = ", ".join(f"{title} {value:.2f}" for title, value in further.items())
    words = f"adversarial images further from the nearest clean one, AUROC: {distances}"
    return {
        "paper": "g17",
        "item": "claim",
        "row": "tsne-densities-differ",
        "column": "",
        "as_published": words,
        "corrected": words,
        "verdict": "reproduced" if min(further.values()) >= 0.75 else "not reproduced",
        "cause": (
            "by distances, not by the paper's evidence: two t-SNE maps made apart share no axes, and whose image is "
            "nearest shows the difference on "
            + (" and ".join(title for title, yes in apart.items() if yes) or "no set")
            + " only"
            + f" (a clean one for {seen})"
        ),
    }


def image_twins(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw image, adversarial twin and their difference, a row each (the idea of G17 Fig. 1).

    Parameters
    ----------
    rows : sequence of dict
        From `g17.example_twins`: `image`, `twin` (c, h, w) in [0, 1], `epsilon`, and the network's words for both,
        `said` and `said_of_twin`. The difference is drawn with −ε black and +ε white.
    """
    figure, axes = subplots(len(rows), 3, figsize=(8, 2.7 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        epsilon = row["epsilon"]
        show_image(line[0], row["image"], f"the network sees “{row['said']}”")
        show_image(line[1], row["twin"], f"FGSM, ε = {epsilon:g}: it sees “{row['said_of_twin']}”")
        show_image(
            line[2], row["twin"] - row["image"], f"difference, amplified × {0.5 / epsilon:.3g}", -epsilon, epsilon
        )
    return figure


def embeddings(panels: Mapping[str, Mapping[str, np.ndarray]], epsilon: float) -> Figure:
    """Draw joint t-SNE maps of clean and adversarial images, one data set a row (G17 Fig. 2).

    Parameters
    ----------
    panels : dict
        From `protocol.joint_maps`.
    epsilon : float
        Size of the attack, for the titles.
    """
    figure, axes = subplots(len(panels), 3, figsize=(10.5, 3.5 * len(panels)), squeeze=False)
    for line, (title, panel) in zip(axes, panels.items(), strict=True):
        real, adversarial = panel["real"], panel["adversarial"]
        line[0].scatter(*real.T, c=panel["real_labels"], cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        line[0].set_title(f"{title}: real, coloured by class")
        line[1].scatter(*adversarial.T, c=panel["adversarial_labels"], cmap="tab10", vmin=-0.5, vmax=9.5, s=6)
        line[1].set_title(f"FGSM, ε = {epsilon:g}, by true class")
        line[2].scatter(*real.T, color=REAL, s=5, label="real")
        line[2].scatter(*adversarial.T, color=ADVERSARIAL, marker="x", s=8, linewidths=0.7, label="adversarial")
        line[2].set_title("both on one map")
        line[2].legend(markerscale=2, loc="upper right", frameon=True, framealpha=0.8)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
            axis.grid(False)
            axis.set_xlim(line[2].get_xlim())
            axis.set_ylim(line[2].get_ylim())
        line[0].set_ylabel("t-SNE axis 2")
    for axis in axes[-1]:
        axis.set_xlabel("t-SNE axis 1")
    return figure


def density_ratio_1d(result: Mapping[str, Any]) -> Figure:
    """Draw two 1-D densities, their true ratio and uLSIF's estimate.

    Parameters
    ----------
    result : dict
        From `protocol.ratio_in_one_dimension`.
    """
    figure, (densities, ratios) = subplots(1, 2, figsize=(9.5, 3.4))
    x = result["x"]
    densities.plot(x, result["p_numerator"], color=REAL, label="p numerator (clean)")
    densities.plot(x, result["p_denominator"], color=ADVERSARIAL, ls="--", label="p denominator (suspect)")
    densities.plot(result["numerator"], np.full_like(result["numerator"], -0.012), "|", color=REAL, ms=6, alpha=0.4)
    densities.plot(
        result["denominator"], np.full_like(result["denominator"], -0.03), "|", color=ADVERSARIAL, ms=6, alpha=0.4
    )
    densities.set(title="two densities and samples of each", xlabel="x", ylabel="probability density")
    densities.legend()
    ratios.plot(x, result["true_ratio"], color=PUBLISHED, label="true ratio")
    ratios.plot(x, result["estimate"], color=CORRECTED, ls="--", label="uLSIF")
    ratios.axhline(1, color=LIMIT, lw=0.8)
    ratios.set(title="their ratio", xlabel="x", ylabel="p numerator / p denominator")
    ratios.legend()
    return figure


def moving_points(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw points that move into and out of the reference balls, with density and coverage (VS22 Fig. 5).

    Parameters
    ----------
    steps : sequence of dict
        From `protocol.points_through_balls`.
    """
    figure, axes = subplots(1, len(steps), figsize=(3.1 * len(steps), 3.6), sharex=True, sharey=True)
    for number, (axis, step) in enumerate(zip(axes, steps, strict=True), 1):
        for centre, radius in zip(step["reference"], step["radii"], strict=True):
            axis.add_patch(Circle(centre, radius, facecolor=REAL, edgecolor=REAL, alpha=0.10))
        axis.plot(*step["reference"].T, ".", color=REAL, label="reference")
        axis.plot(*step["queries"].T, "x", color=ADVERSARIAL, label="suspect")
        axis.set_aspect("equal")
        axis.grid(False)
        axis.set_title(f"step {number}\ndensity {step['density']:.2f}, coverage {step['coverage']:.2f}")
        axis.set_xlabel("feature 1")
    axes[0].set_ylabel("feature 2")
    axes[0].legend(loc="lower left", frameon=True, framealpha=0.8)
    return figure
