"""Feedback says what is off: usual mistakes of every exercise, and words that the check must answer them with."""

import math
from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

from advlib.prdc import ReferenceManifold
from compendium import runner
from compendium.exercises import feedback, feedback_on, small
from compendium.paths import number


def sorted_distances(points):
    return np.sort(cdist(points, points), axis=1)


def balls(reference, queries, k, shift=0, per=None, which=0):
    """Density and coverage with a mistake: radii by `shift`, density over `per`, coverage of rows (`which` = 1)."""
    inside = cdist(queries, reference) < sorted_distances(reference)[:, k - shift]
    return inside.sum() / (per or k * len(queries)), inside.any(axis=which).mean()


def theta(phi_nu, phi_de, lam, per=None, total=False, clip=True, everywhere=False):
    h = phi_nu.sum(axis=0) if total else phi_nu.mean(axis=0)
    gram = phi_de.T @ phi_de / (per(phi_nu) if per else len(phi_de))
    weights = np.linalg.solve(gram + (lam if everywhere else lam * np.eye(len(h))), h)
    return np.maximum(0, weights) if clip else weights


def non_negative(phi_nu, phi_de, lam):
    """The best non-negative weights, by projected descent."""
    matrix = phi_de.T @ phi_de / len(phi_de) + lam * np.eye(phi_de.shape[1])
    weights, step = np.zeros(len(matrix)), 1 / np.linalg.eigvalsh(matrix)[-1]
    for _ in range(20_000):
        weights = np.maximum(0, weights - step * (matrix @ weights - phi_nu.mean(axis=0)))
    return weights


def tgsm(images, gradient_of, epsilon, steps, ball, sign=-1, low=0, keep=True, again=True):
    moved, gradient = images, None
    for step in range(steps):
        if again or step == 0:
            gradient = gradient_of(moved if again != "clean" else images)
        moved = moved + sign * epsilon * np.sign(gradient)
        moved = np.clip(np.clip(moved, images - ball, images + ball) if keep else moved, low, 1)
    return moved


def noise(images, attacked, rng, whole=False, along=False):
    drawn = attacked - images if along else rng.normal(size=images.shape)
    axes = None if whole else (1, 2, 3)
    sizes = [np.sqrt((change**2).sum(axis=axes, keepdims=True)) for change in (drawn, attacked - images)]
    return images + drawn * sizes[1] / sizes[0] * (1.2 if along else 1)


def same_size(images, changed, size, root=np.mean):
    change = changed - images
    return images + size * change / np.sqrt(root(change**2, axis=(1, 2, 3), keepdims=True))


def single(phi_nu, phi, lam, then):
    h = phi_nu.mean(axis=0)
    return then(h, np.linalg.solve(np.outer(phi, phi) + lam * np.eye(len(h)), h), phi, lam)


def crafting(gap, epsilon, step, tolerance, stop=True, early=0):
    while gap(epsilon) > tolerance and (epsilon > step / 2 or not stop):
        epsilon -= step
    return max(0, epsilon - early * step) if stop else epsilon


def as_printed(gap, epsilon, step, tolerance):
    lowered = epsilon
    while gap(lowered) > tolerance:
        lowered = epsilon - step
    return lowered


def lead(logits, labels, drop=True, naive=False):
    rows = np.arange(len(labels))
    others = logits.copy()
    if drop:
        others[rows, labels] = -np.inf
    total = np.log(np.exp(others).sum(axis=1)) if naive else logsumexp(others, axis=1)
    return total - logits[rows, labels]


def sideways(direction, way, power=2, scale=True):
    moved = direction - (direction * way).sum(1, keepdims=True) / (way**2).sum(1, keepdims=True) ** (power / 2) * way
    return moved / np.linalg.norm(moved, axis=1, keepdims=True) if scale else moved


def coverage(n, m, k, others=-1, last=0):
    return 1 - math.prod((n + others - j) / (n + others + m - j) for j in range(k + last))


def mean_coverage(draw, n, m, k, repeats, anew=True):
    reference = draw(n)
    found = []
    for _ in range(repeats):
        found.append(ReferenceManifold(k).fit(draw(n) if anew else reference).coverage(draw(m)))
    return np.mean(found)


def published_step(pixels, signs, epsilon, mean, std, bounds=True, way=True, pixels_back=True):
    x = (pixels - mean) / std
    aim = np.clip(x + epsilon * signs, 0, 1) if bounds else x + epsilon * signs
    moved = x + np.clip(aim - x, -epsilon, epsilon) if way else aim
    return mean + std * moved if pixels_back else moved


MEAN = small.reference().mean(axis=0, keepdims=True)

MISTAKES = [
    ("01.1", lambda x, g, e: x + e * np.sign(g), "leave [0, 1]"),
    ("01.1", lambda x, g, e: np.clip(x + e * g / np.abs(g).max(), 0, 1), "take the gradient's sign"),
    ("01.1", lambda x, g, e: np.clip(x - e * np.sign(g), 0, 1), "against the gradient"),
    ("01.1", lambda x, g, e: np.clip(x + e * np.where(g >= 0, 1, -1), 0, 1), "sign(0) is 0"),
    ("01.1", lambda x, g, e: np.clip(x + 2 * e * np.sign(g), 0, 1), "must have the size ε"),
    ("01.1", lambda x, g, e: x, "No pixel moves"),
    ("01.2", partial(balls, shift=1), "the point itself"),
    ("01.2", lambda r, q, k: balls(r, q, k, per=len(q)), "divide by k as well"),
    ("01.2", lambda r, q, k: balls(r, q, k, per=k * len(r)), "a mean over the queries"),
    ("01.2", partial(balls, which=1), "(precision)"),
    ("01.2", lambda r, q, k: (balls(r, q, k)[0], 0.1), "Coverage is 0.100"),
    ("01.3", 0.5, 1, "1 divided by one half"),
    ("01.3", 2, 2, "half of its points"),
    ("01.3", 3, 1, "Over the numerator"),
    ("02a.1", partial(theta, clip=False), "Nearly: negative weights"),
    ("02a.1", partial(theta, per=len), "not the numerator's"),
    ("02a.1", partial(theta, per=lambda phi: 1), "divide Φᵀ Φ by its number of rows"),
    ("02a.1", partial(theta, total=True), "not the sum"),
    ("02a.1", partial(theta, everywhere=True), "on the diagonal"),
    ("02a.1", lambda nu, de, lam: theta(nu, de, 2 * lam), "differs from uLSIF's by"),
    ("02a.1", lambda nu, de, lam: np.zeros(nu.shape[1]), "differs from uLSIF's by"),
    ("02a.1", non_negative, "right"),
    ("02a.2", lambda phi, lam: phi.mean(0) @ phi.mean(0), "λ is missing"),
    ("02a.2", lambda phi, lam: phi.mean(0).mean() / lam, "the mean weight"),
    ("02a.2", lambda phi, lam: np.linalg.norm(phi.mean(0)) / lam, "square the norm"),
    ("02a.2", lambda phi, lam: 7, "a fit gives"),
    ("02b.1", 0, 1, "the range of x"),
    ("02b.1", 0.765, 0.468, "comes first"),
    ("02b.1", 0.468, 0.297, "comes first"),
    ("02b.1", 0.1, 0.765, "The lower end"),
    ("02b.1", 0.468, 1.0, "The upper end"),
    ("02b.2", partial(published_step, pixels_back=False), "not pixels"),
    ("02b.2", partial(published_step, bounds=False), "bounds are missing"),
    ("02b.2", partial(published_step, way=False), "jumped further than ε"),
    ("02b.2", lambda p, s, e, m, d: np.clip(p + d * e * s, 0, 1), "hold for x here"),
    ("02b.2", lambda p, s, e, m, d: published_step(p, s, e, m, d) - p, "the change alone"),
    ("02b.2", lambda p, s, e, m, d: p + (published_step(p, s, e, m, d) - p) / d, "multiply it by σ"),
    ("02b.2", lambda p, s, e, m, d: p, "differs from the library's step"),
    ("03.1", 100, 1.25, "not 1"),
    ("03.1", 1, 1, "does not make the ratio 1"),
    ("03.1", 10, 10, "80 images: a fit gives another number"),
    ("03.2", lambda k, t: (k @ t).mean(), "still in it"),
    ("03.2", lambda k, t: (k @ t).mean() - t.sum(), "divide by n"),
    ("03.2", lambda k, t: (k @ t).mean() - 1, "counts with its weight"),
    ("03.3", lambda c, a: (a[:, None] < c).mean() + (a[:, None] == c).mean() / 2, "the other way round"),
    ("03.3", lambda c, a: (a[:, None] > c).mean(), "Ties are missing"),
    ("03.3", lambda c, a: (a[:, None] >= c).mean(), "one half, not one"),
    ("03.3", lambda c, a: (a > c.mean()).mean(), "not with the clean mean"),
    ("04.1", partial(tgsm, sign=1), "against the gradient of the target's loss"),
    ("04.1", partial(tgsm, low=-1), "leave [0, 1]"),
    ("04.1", partial(tgsm, keep=False), "outside the ball of 0.12"),
    ("04.1", partial(tgsm, again=False), "called 1 times in 6 steps"),
    ("04.1", partial(tgsm, again="clean"), "go on from where you are"),
    ("04.1", lambda x, g, e, s, b: np.clip(tgsm(x, g, e, s, 1), x - b, x + b), "after each step"),
    ("04.2", partial(noise, whole=True), "scale image by image"),
    ("04.2", partial(noise, along=True), "Two generators give the same noise"),
    ("04.2", lambda x, a, rng: x + (a - x) * (1 + 1e-3 * rng.random()), "the attack's own way"),
    ("04.2", lambda x, a, rng: x + rng.normal(size=x.shape), "differ in size"),
    ("04.3", 0.1, 0.01, "how many images are that"),
    ("04.3", 0, 0, "do share images"),
    ("04.3", 10, 10, "N = 10,000: 1,000 pairs"),
    ("05.1", partial(single, then=lambda h, t, phi, lam: h @ h / lam), "has no part in your ratio"),
    ("05.1", partial(single, then=lambda h, t, phi, lam: phi @ np.maximum(0, t)), "the ratio at the suspect"),
    ("05.1", partial(single, then=lambda h, t, phi, lam: np.maximum(0, t).mean()), "the mean weight"),
    ("05.1", partial(single, then=lambda h, t, phi, lam: 3), "A fit with one suspect gives"),
    ("05.2", 0.2, 0.1, 0.0666, "do not divide the share"),
    ("05.2", 20, 4, 0.8, "20 % is 0.2"),
    ("05.2", 0.2, 0.2, 0.2, "does not stay the same"),
    ("05.2", 0.2, 0.36, 0.488, "*at least one*"),
    ("05.3", lambda x: ((x <= 0) | (x >= 1)).any(axis=(1, 2, 3)), "0 and 1 themselves"),
    ("05.3", lambda x: (x > 1).any(axis=(1, 2, 3)), "below 0"),
    ("05.3", lambda x: np.zeros(len(x)), "look below 0 and above 1"),
    ("06.1", as_printed, "it does not end"),
    ("06.1", partial(crafting, stop=False), "it does not end"),
    ("06.1", partial(crafting, early=1), "ask for the gap before you lower"),
    ("06.1", lambda gap, e, s, t: gap(e) and e, "still above the tolerance"),
    ("06.1", lambda gap, e, s, t: e, "never asked"),
    ("06.2", lambda x, y: ((x[: len(y)] - y[: len(x)]) ** 2).sum(1).mean(), "take all pairs"),
    ("06.2", lambda x, y: cdist(x, y).mean(), "square the distances before"),
    ("06.2", lambda x, y: ((x.mean(0) - y.mean(0)) ** 2).sum(), "two mean images"),
    ("06.3", {"h", "R1"}, "has the same h"),
    ("06.3", {"H", "R1"}, "1 more of the four"),
    ("06.3", {"Ĥ"}, "the names are"),
    ("06.3", 3, "must be a set of names"),
    ("07.1", lambda x, e: np.clip(x, 0, 1), "jumped into [0, 1] at once"),
    ("07.1", lambda x, e: np.clip(np.clip(x, 0, 1) - x, -e, e), "add x to it"),
    ("07.1", lambda x, e: np.clip(x, -e, e), "bounds the *way*"),
    ("07.1", lambda x, e: x - np.clip(x, -e, e), "are there already"),
    ("07.2", np.repeat(small.reference()[:1], 50, axis=0) * 0, "lies in no ball"),
    ("07.2", small.reference()[:50], "The batch has density"),
    ("07.2", np.concatenate([np.repeat(MEAN, 30, axis=0), small.reference()[:20]]), "fewer *different* balls"),
    ("07.2", MEAN, "must have the shape"),
    ("07.2", np.repeat(2 * MEAN, 50, axis=0), "in [0, 1]"),
    ("07.3", partial(sideways, power=1), "‖way‖ squared"),
    ("07.3", lambda d, w: d / np.linalg.norm(d, axis=1, keepdims=True), "part along `way` off"),
    ("07.3", lambda d, w: w / np.linalg.norm(w, axis=1, keepdims=True), "Not at a right angle"),
    ("07.3", partial(sideways, scale=False), "make them 1"),
    ("08.1", lambda d, c, a: (d - a) / (c - a), "one minus what is asked"),
    ("08.1", lambda d, c, a: c - d, "difference of the two ends"),
    ("08.2", lambda c, b: (b < np.quantile(c, 0.05)).mean(), "watch both tails"),
    ("08.2", lambda c, b: ((b < np.quantile(c, 0.05)) | (b > np.quantile(c, 0.95))).mean(), "10 % false alarms"),
    ("08.2", lambda c, b: (abs(b - np.median(c)) > np.quantile(abs(c - np.median(c)), 0.95)).mean(), "longer tail"),
    ("08.3", 100, "some images are in both"),
    ("08.3", 25, "at least one"),
    ("08.3", 60, "in neither half"),
    ("08.4", 0.1, "*root*"),
    ("08.4", 20, "40 % is 0.4"),
    ("08.4", 0.4, "larger batches scatter less"),
    ("09.1", lambda x: x + np.arange(1, x.shape[1] + 1), "right"),
    ("09.1", lambda x: x * np.geomspace(1.5, 50, x.shape[1]), "some distances grow more"),
    ("09.1", lambda x: x * 1.0, "are what they were"),
    ("09.1", lambda x: x + np.random.default_rng().random(), "Called twice"),
    ("09.1", lambda x: (x - x.mean(axis=0)) / x.std(axis=0), "which others come along"),
    ("09.1", lambda x: np.full_like(x, 9.0), "fall together"),
    ("09.2", lambda w, e: (e * w.sum(), e * np.linalg.norm(w)), "do not cancel"),
    ("09.2", lambda w, e: (e * abs(w).sum(), e * abs(w).sum()), "variances add up"),
    ("09.2", lambda w, e: (e * abs(w).sum(), e**2 * (w**2).sum()), "take its root"),
    ("09.2", lambda w, e: (abs(w).sum(), np.linalg.norm(w)), "FGSM: multiply by ε"),
    ("09.3", partial(mean_coverage, anew=False), "References were drawn 1 times"),
    ("09.3", lambda draw, n, m, k, r: ReferenceManifold(k).fit(draw(n)).coverage(draw(m)), "draw them anew"),
    ("09.3", lambda *a: mean_coverage(*a) / 2, "the closed form gives"),
    ("10.1", lambda r, d: 4 / 3 * math.pi * r**3, "In 1 dimensions log V is"),
    ("10.1", lambda r, d: math.exp(math.log(2 * r)), "its logarithm is asked"),
    ("10.1", lambda r, d: d / 2 * math.log(math.pi) - math.lgamma(d / 2) + d * math.log(r), "Γ is taken at d/2 + 1"),
    ("10.1", lambda r, d: np.inf if d > 9 else d / 2 * math.log(math.pi) - math.lgamma(d / 2 + 1) + d * math.log(r),
     "`math.lgamma`"),
    ("10.2", 1, 8, "does not grow"),
    ("10.2", 2, 2, "as a cube"),
    ("10.3", lambda c, k: ((c > 0).mean(), c.mean() / k), "not over all"),
    ("10.3", lambda c, k: ((c > 0).mean(), c[c > 0].mean()), "by k"),
    ("10.3", lambda c, k: (c[c > 0].mean() / k, (c > 0).mean()), "comes first"),
    ("10.3", lambda c, k: ((c > 0).mean(), c[c > 0].mean() / k if c.any() else np.nan), "an empty mean is NaN"),
    ("11.1", lambda x, y: ((x[:, None] - y) ** 2).sum(axis=2), "an array of all differences"),
    ("11.1", cdist, "leave the root out"),
    ("11.1", lambda x, y: (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, "below 0 by rounding"),
    ("11.1", lambda x, y: (x**2).sum(1)[:, None] + (y**2).sum(1) - x @ y.T, "counts twice"),
    ("11.2", lambda x, y: np.maximum(0, (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T), "to the origin first"),
    ("11.2", lambda x, y: cdist(x, y, "sqeuclidean"), "do it in float32"),
    ("11.2", lambda x, y: ((x[:, None].astype(float) - y) ** 2).sum(-1).astype(np.float32), "all differences"),
    ("11.3", 10, 20, "both grow"),
    ("11.3", 100, 2.5, "8 bytes"),
    ("12a.1", 2 * math.log(1000), 0.1327, "divide by 28"),
    ("12a.1", 2 * math.log(1000) / 784, 0.1327, "not 784 ε"),
    ("12a.1", 0.4934, math.sqrt(math.log(1000)) / 28, "the 2 of 2σ² is missing"),
    ("12a.1", 0.1327, 0.4934, "comes first"),
    ("12a.1", 0.4934, 0.2, "solve for d"),
    ("12a.2", partial(lead, drop=False), "still in the sum"),
    ("12a.2", lambda z, y: -lead(z, y), "the other way round"),
    ("12a.2", partial(lead, naive=True), "take the largest off"),
    ("12b.1", partial(coverage, others=0), "N − 1, not N"),
    ("12b.1", partial(coverage, last=1), "One factor too many"),
    ("12b.1", partial(coverage, last=-1), "One factor is missing"),
    ("12b.1", lambda n, m, k: 1 - coverage(n, m, k), "*empty* balls"),
    ("12b.1", lambda n, m, k: 1 - ((n - 1) / (n - 1 + m)) ** k, "without replacement"),
    ("12b.2", 0.3081 / 0.1307, 1.57, "MNIST: that is σ/μ"),
    ("12b.2", 0.42, 0.47, "that is μ, in pixels"),
    ("12b.2", 0.424, 1, "OrganMNIST: black is"),
    ("13.1", lambda v, d: (d >= v).mean(), "The batch itself counts, above and below"),
    ("13.1", lambda v, d: (1 + (d >= v).sum()) / len(d), "Divide by 1 + the number of draws"),
    ("13.1", lambda v, d: (1 + (d <= v).sum()) / (1 + len(d)), "large values are extreme"),
    ("13.1", lambda v, d: (d >= v).sum() / (1 + len(d)), "above the line, too"),
    ("13.1", lambda v, d: (1 + (d > v).sum()) / (1 + len(d)), "equal counts as extreme"),
    ("13.2", lambda v, d: min((1 + (d >= v).sum()), (1 + (d <= v).sum())) / (1 + len(d)), "must be doubled"),
    ("13.2", lambda v, d: 2 * min((1 + (d >= v).sum()), (1 + (d <= v).sum())) / (1 + len(d)), "at most 1"),
    ("13.2", lambda v, d: min(1, 2 * (1 + (d >= v).sum()) / (1 + len(d))), "take the smaller tail"),
    ("13.2", lambda v, d: min(1, 2 * (1 + min((d > v).sum(), (d < v).sum())) / (1 + len(d))), "ties are as extreme"),
    ("13.3", lambda x: x, "The batch passes"),
    ("13.3", lambda x: x + 0.1, "leave [0, 1]"),
    ("13.3", lambda x: 1 - x, "at most 0.15"),
    ("13.4", 0.05, 0.05, "how many are that in 1,000"),
    ("13.4", 50, 1, "single tests"),
    ("13.4", 50, 0.00005, "not divided by the number of batches"),
    ("13.4", 20, 0.05, "Alarms: 400 simulated streams"),
    ("14.1", lambda each, out, beta: each[~out].max(), "Add β"),
    ("14.1", lambda each, out, beta: each[out].max() + beta, "do not count"),
    ("14.1", lambda each, out, beta: each[~out].min() + beta, "not the smallest"),
    ("14.1", lambda each, out, beta: each[~out][0] + beta, "not the smallest"),
    ("14.1", lambda each, out, beta: each[~out].max() + beta, "at most 1"),
    ("14.2", lambda x, y, size: x + size * (y - x) / np.sqrt(((y - x) ** 2).mean()), "One factor for all"),
    ("14.2", lambda x, y, size: same_size(x, y, size, root=np.sum), "L2 norm"),
    ("14.2", lambda x, y, size: same_size(x, y, size) - x, "the change alone"),
    ("14.3", 19, 100, "must give 0.04"),
    ("14.3", 25, 100, "itself counts"),
    ("14.3", 24, 50, "both are asked"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m[0]} {m[-1]}")
def test_a_usual_mistake_is_told(mistake):
    name, *answers, words = mistake
    found = feedback_on(name, *answers)
    if words == "right":
        assert found.state == "right", found
    else:
        assert found.state == "not yet" and words in found.words, found


def test_every_exercise_knows_mistakes():
    there = {
        f"{number(path.stem)}.{place}"
        for path in runner.notebooks()
        for place in range(1, len(feedback.checks_of(number(path.stem))) + 1)
    }
    assert {mistake[0] for mistake in MISTAKES} == there
