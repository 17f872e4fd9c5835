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
from compendium.claims import verdicts
from compendium.common import g17
from compendium.common.protocol import auroc, clean_neighbour_share

# ---------------------------------------------------------------- an image and its twin


def example_twins(epsilons: Mapping[str, float], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Pick one image a set that its network reads rightly and whose FGSM twin it does not (the idea of G17 Fig. 1).

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
        images, labels = g17.test_images(image_set, 200)
        names = datasets.load(image_set).class_names
        model = models.load_trained(g17.CORRECTED.networks[image_set])
        batch = attacks.fgsm(model, images, labels, epsilon=epsilon)
        chosen = int(rng.choice(np.flatnonzero(batch.success)))
        pair = {"image": images[chosen], "twin": batch.images[chosen]}
        said, said_of_twin = (names[i] for i in models.predict(model, np.stack([*pair.values()])))
        rows.append(pair | {"epsilon": epsilon, "said": said, "said_of_twin": said_of_twin})
    return rows


def image_twins(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw image, adversarial twin and their difference, a row each; −ε is black in the difference and +ε white.

    Parameters
    ----------
    rows : sequence of dict
        From `example_twins`.
    """
    figure, axes = subplots(len(rows), 3, figsize=(8, 2.7 * len(rows)), squeeze=False)
    for line, row in zip(axes, rows, strict=True):
        epsilon, image, twin = row["epsilon"], row["image"], row["twin"]
        show_image(line[0], image, f"the network sees “{row['said']}”")
        show_image(line[1], twin, f"FGSM, ε = {epsilon:g}: it sees “{row['said_of_twin']}”")
        show_image(line[2], twin - image, f"difference, amplified × {0.5 / epsilon:.3g}", -epsilon, epsilon)
    return figure


# ---------------------------------------------------------------- clean and adversarial images on one map


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
        Title → dict with `real`, `adversarial` and the latter's `originals` (count, 1, h, w).
    """
    batches = {}
    for title in ("MNIST", "CIFAR-10 (grey)"):
        image_set, _ = g17.TABLE1[title]
        images, labels = g17.test_images(image_set, 2 * count)
        model = models.load_trained(g17.CORRECTED.networks[image_set])
        attacked = attacks.fgsm(model, images[count:], labels[count:], epsilon=epsilon)
        batches[title] = {"real": images[:count], "adversarial": attacked.images, "originals": images[count:]}
    return batches


def joint_maps(
    batches: Mapping[str, Mapping[str, np.ndarray]], rng: np.random.Generator
) -> dict[str, dict[str, np.ndarray]]:
    """Embed clean and adversarial images on one t-SNE map of raw pixels, a map for each data set.

    G17's Fig. 2 draws two separate maps, whose axes have nothing to do with each other; one map can be compared.

    Parameters
    ----------
    batches : dict
        As from `figure2_batches`.

    Returns
    -------
    dict
        Title → `real` and `adversarial`, (n, 2) unitless coordinates each.
    """
    maps = {}
    for title, batch in track(batches.items(), "t-SNE", len(batches)):
        n = len(batch["real"])
        both = np.concatenate([batch["real"], batch["adversarial"]]).reshape(2 * n, -1)
        tsne = TSNE(init="pca", random_state=int(rng.integers(2**31)), perplexity=min(30, n // 2))
        embedded = tsne.fit_transform(both)
        maps[title] = {"real": embedded[:n], "adversarial": embedded[n:]}
    return maps


def embeddings(maps: Mapping[str, Mapping[str, np.ndarray]], epsilon: float) -> Figure:
    """Draw joint t-SNE maps of clean and adversarial images, a data set a panel (G17 Fig. 2).

    Parameters
    ----------
    maps : dict
        From `joint_maps`.
    epsilon : float
        Size of the attack, for the titles.
    """
    figure, axes = subplots(1, len(maps), figsize=(4.8 * len(maps), 4.8), squeeze=False)
    size = 400 / len(next(iter(maps.values()))["real"]) ** 0.6  # many points are drawn small
    for axis, (title, points) in zip(axes[0], maps.items(), strict=True):
        axis.scatter(*points["real"].T, color=REAL, s=size, label="real")
        crosses = {"color": ADVERSARIAL, "marker": "x", "s": 1.6 * size, "linewidths": 0.7}
        axis.scatter(*points["adversarial"].T, label=f"adversarial (FGSM, ε = {epsilon:g})", **crosses)
        axis.set(title=title, xlabel="t-SNE axis 1 (no unit)", ylabel="t-SNE axis 2 (no unit)", xticks=[], yticks=[])
        axis.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=2)
    return figure


def added_distances(originals: np.ndarray, adversarial: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """By how much an attack raises mean squared distances, in units of the mean squared length of its changes.

    Parameters
    ----------
    originals, adversarial : (n, c, h, w) float array
        adversarial[i] was made from originals[i].
    real : (m, c, h, w) float array
        Other clean images.

    Returns
    -------
    to_clean, among_adversarial : float
        1 and 2 for changes that are independent of the images and of each other; negative where images come nearer.
    """
    before, after, clean = (x.reshape(len(x), -1).astype(np.float64) for x in (originals, adversarial, real))

    def between(a: np.ndarray, b: np.ndarray) -> float:
        return (a**2).sum(axis=1).mean() + (b**2).sum(axis=1).mean() - 2 * a.mean(axis=0) @ b.mean(axis=0)

    def among(a: np.ndarray) -> float:
        return between(a, a) * len(a) / (len(a) - 1)  # pairs of an image with itself, at distance 0, do not count

    length = ((after - before) ** 2).sum(axis=1).mean()
    to_clean, among_adversarial = between(after, clean) - between(before, clean), among(after) - among(before)
    return float(to_clean / length), float(among_adversarial / length)


def clean_distance_auroc(real: np.ndarray, adversarial: np.ndarray) -> float:
    """AUROC of the distance to the nearest other clean image, in pixel space: 1 where all adversarial lie further off.

    A question that noise cannot evade: two batches of one distribution give one half.

    Parameters
    ----------
    real, adversarial : (n, c, h, w) float array
        Of different images, as for `protocol.clean_neighbour_share`.
    """
    clean, suspect = (batch.reshape(len(batch), -1) for batch in (real, adversarial))
    tree = NearestNeighbors(n_neighbors=1).fit(clean)
    among_clean, _ = tree.kneighbors()  # without arguments a point is not its own neighbour
    return auroc(among_clean[:, 0], tree.kneighbors(suspect)[0][:, 0])


def record_densities(
    run: Any, maps: Mapping[str, Mapping[str, np.ndarray]], further: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """Record what "densities … differ significantly" (Fig. 2) is judged by: places on one map, distances in pixels.

    Parameters
    ----------
    run : record.Run
    maps : dict
        From `joint_maps`.
    further : dict
        Title → `clean_distance_auroc`.

    Returns
    -------
    dict
        Title → share of clean and of adversarial points on the map whose nearest neighbour is of their own kind.
    """
    own = {}
    for title, points in maps.items():
        of_real, of_adversarial = clean_neighbour_share(points["real"], points["adversarial"])
        own[title] = (of_real, 1 - of_adversarial)
        run.metric(f"own_kind_on_map.{title}.of_real", own[title][0])
        run.metric(f"own_kind_on_map.{title}.of_adversarial", own[title][1])
        run.metric(f"clean_distance_auroc.{title}", further[title])
    statistics = {
        "least share of nearest neighbours of the own kind on one map": min(map(min, own.values())),
        "least AUROC of the distance to the nearest clean image": min(further.values()),
    }
    shares = ", ".join(f"{title} {a:.0%} and {b:.0%}" for title, (a, b) in own.items())
    distances = ", ".join(f"{title} {value:.2f}" for title, value in further.items())
    words = f"neighbours of the own kind, clean and adversarial: {shares}; AUROC of the distance: {distances}"
    mode = verdicts.CORRECTED
    verdicts.sentence(run, "g17", "tsne-densities-differ", {mode: statistics}, {mode: words})
    return own


# ---------------------------------------------------------------- a density ratio in one dimension


def ratio_in_one_dimension(samples: int, rng: np.random.Generator) -> dict[str, Any]:
    """Fit uLSIF to two normal samples whose true density ratio is known.

    The numerator is N(0, 1), the denominator N(0.8, 1.3²): the wider density is below, so the ratio is bounded.

    Returns
    -------
    dict
        x (400,), p_numerator, p_denominator, true_ratio, estimate (400,), the samples numerator, denominator
        (samples,), sigma, lambda, mean_ratio (over the numerator), mean_true_ratio (likewise), and correlation of
        estimate and truth over the numerator.
    """
    p, q = stats.norm(0, 1), stats.norm(0.8, 1.3)
    numerator, denominator = rng.normal(0, 1, samples), rng.normal(0.8, 1.3, samples)
    x = np.linspace(-4, 5, 400)
    model = ULSIF(random_state=int(rng.integers(2**31))).fit(numerator[:, None], denominator[:, None])
    estimate, truth = model.predict(numerator[:, None]), p.pdf(numerator) / q.pdf(numerator)
    return {
        "x": x,
        "p_numerator": p.pdf(x),
        "p_denominator": q.pdf(x),
        "true_ratio": p.pdf(x) / q.pdf(x),
        "estimate": model.predict(x[:, None]),
        "numerator": numerator,
        "denominator": denominator,
        "sigma": model.sigma_,
        "lambda": model.lambda_,
        "mean_ratio": float(np.mean(estimate)),
        "mean_true_ratio": float(np.mean(truth)),
        "correlation": float(np.corrcoef(estimate, truth)[0, 1]),
    }


def density_ratio_1d(result: Mapping[str, Any]) -> Figure:
    """Draw two 1-D densities, their true ratio and uLSIF's estimate.

    Parameters
    ----------
    result : dict
        From `ratio_in_one_dimension`.
    """
    figure, (densities, ratios) = subplots(1, 2, figsize=(9.5, 3.4))
    x = result["x"]
    for kind, word, colour, style, below in (
        ("numerator", "clean", REAL, "-", -0.012),
        ("denominator", "suspect", ADVERSARIAL, "--", -0.03),
    ):
        densities.plot(x, result[f"p_{kind}"], color=colour, ls=style, label=f"p {kind} ({word})")
        samples = result[kind]
        densities.plot(samples, np.full_like(samples, below), "|", color=colour, ms=6, alpha=0.4)
    densities.set(
        title="two densities and samples of each", xlabel="x", ylabel="probability density", ylim=(None, 0.53)
    )
    ratios.plot(x, result["true_ratio"], color=PUBLISHED, label="true ratio")
    ratios.plot(x, result["estimate"], color=CORRECTED, ls="--", label="uLSIF")
    ratios.axhline(1, color=LIMIT, lw=0.8)
    ratios.set(title="their ratio", xlabel="x", ylabel="p numerator / p denominator")
    for axis in (densities, ratios):
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    return figure


# ---------------------------------------------------------------- balls around a reference set


def points_through_balls(shifts: Sequence[float], rng: np.random.Generator, k: int = 2) -> list[dict[str, Any]]:
    """Move a batch through the k-nearest-neighbour balls of a reference in the plane (VS22 Fig. 5).

    The batch starts scattered as the reference is, is drawn in towards the middle, and leaves. In both, one point in
    four lies far out, as unusual images do: lonely points get large balls that reach over the middle.

    Parameters
    ----------
    shifts : sequence of float
        How far along the path each picture is taken; 0 is the untouched batch.
    rng : numpy.random.Generator
        Source of the points.
    k : int
        Number of neighbours; the paper's figure has 2.

    Returns
    -------
    list of dict
        reference (40, 2), radii (40,), queries (25, 2), density, coverage.
    """

    def scattered(n: int) -> np.ndarray:
        return rng.normal(size=(n, 2)) * np.where(np.arange(n) % 4 == 0, 2.5, 0.8)[:, None]

    reference, start = scattered(40), scattered(25)
    manifold = ReferenceManifold(k=k).fit(reference)
    balls = {"reference": reference, "radii": np.asarray(manifold.radii_)}
    steps = []
    for shift in shifts:
        # Contraction towards the middle, then a drift away from it: FGSM's push seen in two dimensions.
        queries = start * np.exp(-2 * shift) + np.array([2.0, 1.2]) * shift**2
        density, coverage = manifold.density_coverage(queries)
        steps.append(balls | {"queries": queries, "density": density, "coverage": coverage})
    return steps


def moving_points(steps: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw points that move into and out of the reference balls, then both numbers over the steps (VS22 Fig. 5).

    Parameters
    ----------
    steps : sequence of dict
        From `points_through_balls`.
    """
    columns = -(-(len(steps) + 1) // 2)
    figure, axes = subplots(2, columns, figsize=(3.3 * columns, 7))
    axes = axes.flat
    for number, (axis, step) in enumerate(zip(axes, steps, strict=False), 1):
        for centre, radius in zip(step["reference"], step["radii"], strict=True):
            axis.add_patch(Circle(centre, radius, color=REAL, alpha=0.10))
        axis.plot(*step["reference"].T, ".", color=REAL, label="reference")
        axis.plot(*step["queries"].T, "x", color=ADVERSARIAL, label="suspect")
        axis.grid(False)
        words = f"step {number}\ndensity {step['density']:.2f}, coverage {step['coverage']:.2f}"
        axis.set(aspect="equal", title=words, xlabel="feature 1", ylabel="feature 2", xlim=(-7, 8), ylim=(-7, 8))
    numbers = range(1, len(steps) + 1)
    for name, colour, mark in (("density", PUBLISHED, "s-"), ("coverage", CORRECTED, "^--")):
        axes[len(steps)].plot(numbers, [step[name] for step in steps], mark, color=colour, label=name)
    axes[len(steps)].set(title="both over the steps", xlabel="step", xticks=numbers, ylabel="density; coverage (share)")
    handles, labels = (
        a + b for a, b in zip(*(axes[i].get_legend_handles_labels() for i in (0, len(steps))), strict=True)
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
