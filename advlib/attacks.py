"""Attacks on classifiers, over cleverhans and foolbox, changes of the same size without an aim, and one type of result.

Images lie in [0, 1] and the model does its own normalisation, so ε is in pixels. A result has the kind of its input,
NumPy or torch, and says what an attack achieved: accuracy before and after, which images it turned, how far each moved.

| attack | direction | size |
|---|---|---|
| `fgsm` | away from the label, one step along the gradient's sign | ε |
| `tgsm` | toward a chosen class, several steps along the gradient's sign | ε a step, optionally an L∞ ball |
| `pgd` | away from the label, several steps within an L∞ ball | ε in all |
| `jsma` | toward a chosen class, few features, each by θ | γ, the share of features |
| `boundary` | along the decision boundary toward the image, without gradients | as small as it gets in its steps |

Each has a twin named `…_sweep` that gives several sizes for the price of the largest. Beside them, for comparison:
`random_sign_noise`, `gaussian_noise`, `shifted` and `rotated`.
"""

import itertools
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from cleverhans.torch.attacks.fast_gradient_method import fast_gradient_method
from torch import nn

from advlib import models
from advlib.boundary import walk
from advlib.checks import ArrayLike
from advlib.models import as_tensor, frozen, predict
from advlib.progress import track

Clip = tuple[float, float] | None
Targets = int | str | ArrayLike


@dataclass(frozen=True, eq=False)
class AdversarialBatch:
    """What an attack made of a batch of images; arrays are NumPy or torch, as the images were.

    Attributes
    ----------
    images : (n, c, h, w) float32
        After the attack, all of them, successful or not.
    labels : (n,) int64
        As given.
    success : (n,) bool
        Read rightly before and wrongly after. An image that was misread already is no adversarial example.
    clean_correct : (n,) bool
        Read rightly before.
    predictions : (n,) int64
        Class with the largest logit after the attack.
    linf, l2 : (n,) float32
        Norms of what was added, in pixels of [0, 1], clipping included.
    l0 : (n,) int64
        Number of features changed; a colour pixel has three.
    clean_accuracy, adversarial_accuracy : float
        Share of all images that are read rightly before and after.
    zero_gradient_share : float or None
        Share of pixels whose gradient is exactly zero, for attacks in one step by the gradient's sign: sign(0) = 0, so
        these do not move, whatever ε.
    targets : (n,) int64 or None
        Classes aimed at, for targeted attacks.
    targeted_success : float or None
        Share read as their target afterwards, among the images whose target is not their label (NaN if none is).
    """

    images: ArrayLike = field(repr=False)
    labels: ArrayLike = field(repr=False)
    success: ArrayLike = field(repr=False)
    clean_correct: ArrayLike = field(repr=False)
    predictions: ArrayLike = field(repr=False)
    linf: ArrayLike = field(repr=False)
    l2: ArrayLike = field(repr=False)
    l0: ArrayLike = field(repr=False)
    clean_accuracy: float
    adversarial_accuracy: float
    zero_gradient_share: float | None = None
    targets: ArrayLike | None = field(default=None, repr=False)
    targeted_success: float | None = None

    def __len__(self) -> int:
        return len(self.images)


def fgsm(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Fast gradient sign method, x + ε · sign(∇ₓ loss(x, y)); equal to `cleverhans`' fast_gradient_method.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float array or tensor
        Within `clip`, or within [0, 1] if there is no clipping.
    labels : (n,) integer array or tensor
        Whose cross-entropy is increased. CleverHans' tutorial of 2017 took the model's own predictions; for that,
        pass `predict(model, images)`. (Success then means "no longer says what it said".)
    epsilon : float
        L∞ size of the step, at least 0; in pixels.
    clip : (float, float) or None
        Range of valid images, into which the result is clipped. None leaves it unclipped, as G17 did: then the
        result need not be an image.
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    AdversarialBatch

    Raises
    ------
    ValueError
        Naming the argument: images outside the stated range, not floating point, not finite or not (n, c, h, w);
        labels that are not one class an image; a negative ε; an empty range.

    Notes
    -----
    Everything is float32, as in cleverhans. Where the model is so sure that its softmax rounds to 1 (a logit gap
    above about 17), the true class's part of the gradient is rounded away and the sign is that of the rest.

    References
    ----------
    I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
    arXiv:1412.6572; G17 eq. 2.
    """
    return next(fgsm_sweep(model, images, labels, [epsilon], clip, batch_size=batch_size))


def fgsm_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilons: Sequence[float],
    clip: Clip = (0.0, 1.0),
    *,
    batch_size: int = 500,
) -> Iterator[AdversarialBatch]:
    """FGSM at several ε for the price of one gradient: its direction does not depend on ε.

    Parameters and errors are those of `fgsm`. Arguments are checked and the gradient is computed at the call.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `epsilons`, each equal to `fgsm` at that ε to the bit; one at a time is held in memory.
    """
    epsilons = [_checked_size(epsilon, "epsilon") for epsilon in epsilons]
    clean = _checked_images(images, clip)
    targets = _checked_labels(labels, clean)
    signs = _gradient_signs(model, clean, targets, batch_size)
    zero_share = float((signs == 0).double().mean())
    clean_correct = torch.as_tensor(predict(model, clean, batch_size)) == targets

    def attacked() -> Iterator[AdversarialBatch]:
        for epsilon in epsilons:
            moved = _moved(clean, epsilon, signs, clip)
            yield _result(model, clean, moved, targets, clean_correct, images, batch_size, zero_share)

    return attacked()


def gradient_signs(model: nn.Module, images: ArrayLike, labels: ArrayLike, *, batch_size: int = 500) -> ArrayLike:
    """Return sign(∇ₓ loss), FGSM's direction, (n, c, h, w) int8 of −1, 0 and 1.

    Parameters are those of `fgsm`, save that images may lie anywhere, so that attacks can be replayed which mixed up
    their ranges.
    """
    clean = _checked_images(images, (-np.inf, np.inf))
    return _like(images, _gradient_signs(model, clean, _checked_labels(labels, clean), batch_size))


def tgsm(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.05,
    clip: Clip = (0.0, 1.0),
    *,
    steps: int = 10,
    targets: Targets = "least_likely",
    ball: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Target gradient sign method: `steps` times x − ε · sign(∇ₓ loss(x, target)).

    G17 took it from the repository tensorflow-adversarial. There ε is the size of *one* step and nothing keeps the sum
    of the steps small, so an image may move by steps · ε; G17 prints ε, but not the number of steps (that code's
    default is 1, its example of MNIST takes 12 of 0.02).

    Parameters
    ----------
    model, images, clip, batch_size
        As for `fgsm`.
    labels : (n,) integer array or tensor
        True classes: they say what is a success and do not steer the attack.
    epsilon : float
        L∞ size of one step, at least 0; in pixels.
    steps : int
        Number of steps, at least 0.
    targets : "least_likely", "random", int or (n,) integer array
        Class aimed at: the one with the smallest logit on the clean image (that repository's default, Kurakin's
        iterative least-likely class method); a random one other than the label, from `rng`; or given, for all images
        or for each. An image whose target is its label is moved too, deeper into its class.
    ball : float, optional
        Largest L∞ distance from the clean image, onto which every step is projected (Kurakin's α and ε are `epsilon`
        and `ball`). None is the repository's way.
    rng : numpy.random.Generator, optional
        For random targets.

    Returns
    -------
    AdversarialBatch
        With `targets` and `targeted_success`.

    Raises
    ------
    ValueError
        As `fgsm`; also for negative steps or ball, unknown targets, or random ones without `rng`.

    References
    ----------
    A. Kurakin, I. Goodfellow, S. Bengio, "Adversarial examples in the physical world", ICLR 2017 workshop,
    arXiv:1607.02533, section 2.3; G17 section 2.2.
    """
    options = {"targets": targets, "ball": ball, "rng": rng, "batch_size": batch_size}
    return next(tgsm_sweep(model, images, labels, [steps], epsilon, clip, **options))


def tgsm_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: Sequence[int],
    epsilon: float = 0.05,
    clip: Clip = (0.0, 1.0),
    *,
    targets: Targets = "least_likely",
    ball: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> Iterator[AdversarialBatch]:
    """TGSM after several numbers of steps, for the price of the largest: each goes on from the one before.

    Parameters and errors are those of `tgsm`, save `steps`, which must increase. Arguments are checked at the call.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `steps`, each equal to `tgsm` with that many; one at a time is held in memory.
    """
    epsilon = _checked_size(epsilon, "epsilon")
    ball = None if ball is None else _checked_size(ball, "ball")
    steps = _checked_steps(steps)
    clean = _checked_images(images, clip)
    truth = _checked_labels(labels, clean)
    aims = _aims(model, clean, truth, targets, rng, batch_size)
    walk = _sign_steps(model, clean, clean, aims, -epsilon, steps, clip, ball, batch_size, "TGSM")
    return _measured(model, clean, truth, walk, images, batch_size, aims)


def pgd(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    epsilon: float = 0.3,
    clip: Clip = (0.0, 1.0),
    *,
    steps: int = 10,
    step: float | None = None,
    rng: np.random.Generator | None = None,
    batch_size: int = 500,
) -> AdversarialBatch:
    """Projected gradient descent: FGSM in small steps, each projected onto the L∞ ball of radius ε around the image.

    Equal to the bit to `cleverhans`' projected_gradient_descent without its random start. That function is not called,
    because it draws its start from torch's global generator, a batch at a time, refuses step > ε and clip ranges
    narrower than ε by `assert`, and returns its own input for ε = 0.

    Parameters
    ----------
    model, images, labels, clip, batch_size
        As for `fgsm`.
    epsilon : float
        L∞ radius, at least 0; in pixels.
    steps : int
        Number of steps, at least 0.
    step : float, optional
        L∞ size of one step; 2.5 ε / steps by default (Madry's choice: enough to reach and leave the edge of the ball).
    rng : numpy.random.Generator, optional
        Starts every image at a point drawn uniformly from its ball (Madry et al.); None starts at the image itself,
        the basic iterative method of Kurakin et al.

    Returns
    -------
    AdversarialBatch

    Raises
    ------
    ValueError
        As `fgsm`; also for a negative number of steps or size of a step.

    References
    ----------
    A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu, "Towards deep learning models resistant to adversarial
    attacks", ICLR 2018, arXiv:1706.06083, section 2.1.
    """
    epsilon = _checked_size(epsilon, "epsilon")
    counts = _checked_steps([steps])
    step = 2.5 * epsilon / max(steps, 1) if step is None else _checked_size(step, "step")
    clean = _checked_images(images, clip)
    truth = _checked_labels(labels, clean)
    start = clean
    if rng is not None:
        start = _moved(clean, epsilon, torch.from_numpy(rng.random(clean.shape, dtype=np.float32) * 2 - 1), clip)
    walk = _sign_steps(model, clean, start, truth, step, counts, clip, epsilon, batch_size, "PGD")
    return next(_measured(model, clean, truth, walk, images, batch_size))


def jsma(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    gamma: float = 0.1,
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    theta: float = 1.0,
    pairs: bool = True,
    targets: Targets = "least_likely",
    saliency: Literal["logits", "softmax"] = "logits",
    stop_at_target: bool = True,
    rng: np.random.Generator | None = None,
    batch_size: int = 100,
) -> AdversarialBatch:
    """Jacobian-based saliency map attack: change few features, each by θ, until the model says the target.

    At every iteration α = ∂Z_target/∂x and β = ∂(sum of the other Z)/∂x, and the pair of features (p, q) is moved by θ
    that maximises −(α_p + α_q)(β_p + β_q) with α_p + α_q > 0 > β_p + β_q (signs reversed for θ < 0), or with
    `pairs=False` the single feature. A feature that reaches the edge of `clip` is left alone from then on. An image
    is finished when it is read as its target, when no pair has the right signs, or when its budget is spent.

    The search over all pairs is exact, and its memory grows linearly in the number of features: a pair can only be
    the best if each of its members is matched or beaten in both −β and α by at most one other feature, the other
    member. A sort finds those candidates, usually a few dozen of thousands.

    Parameters
    ----------
    model, images
        As for `fgsm`.
    labels : (n,) integer array or tensor
        True classes: they say what is a success and do not steer the attack.
    gamma : float
        Budget, the share of features that may change, 0 to 1: ⌊γ d / 2⌋ iterations for pairs, ⌊γ d⌋ for single
        features, with d = c · h · w. Papernot et al. take 0.145 as the largest on MNIST.
    clip : (float, float)
        Range of valid images.
    theta : float
        Change of a feature in one iteration, not 0; in pixels. 1 and −1 push it to the edge.
    pairs : bool
        Two features an iteration, or one.
    targets, rng
        As for `tgsm`. An image that is read as its target already stays as it is.
    saliency : "logits" or "softmax"
        What Z is. The paper recommends logits. G17's code takes the softmax's probabilities: their sum is 1 for every
        image, so β = −α exactly, the second condition follows from the first, the score is (α_p + α_q)², and the map
        always picks the features with the largest α, whatever they do to the other classes. (Computed here as the
        gradient of the log-probability: it differs from α by a positive factor, the probability itself, and does not
        underflow where that is tiny.)
    stop_at_target : bool
        Whether an image is left alone once it is read as its target; otherwise the budget is spent.
    batch_size : int
        Images at a time; bounds the memory.

    Returns
    -------
    AdversarialBatch
        With `targets` and `targeted_success`; `l0` is the number of changed features.

    Raises
    ------
    ValueError
        As `fgsm`; also for γ outside [0, 1], θ = 0, clip=None, another `saliency`, or targets that `tgsm` refuses.

    References
    ----------
    N. Papernot, P. McDaniel, S. Jha, M. Fredrikson, Z. B. Celik, A. Swami, "The limitations of deep learning in
    adversarial settings", EuroS&P 2016, arXiv:1511.07528, eq. 8–10 and algorithms 2–3.
    """
    options = {"theta": theta, "pairs": pairs, "targets": targets, "saliency": saliency}
    options |= {"stop_at_target": stop_at_target, "rng": rng, "batch_size": batch_size}
    return next(jsma_sweep(model, images, labels, [gamma], clip, **options))


def jsma_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    gammas: Sequence[float],
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    theta: float = 1.0,
    pairs: bool = True,
    targets: Targets = "least_likely",
    saliency: Literal["logits", "softmax"] = "logits",
    stop_at_target: bool = True,
    rng: np.random.Generator | None = None,
    batch_size: int = 100,
) -> Iterator[AdversarialBatch]:
    """JSMA at several budgets γ for the price of the largest: a smaller budget is a beginning of the same run.

    Parameters and errors are those of `jsma`. The features are chosen at the call, with progress shown.

    Returns
    -------
    iterator of AdversarialBatch
        In the order of `gammas`, each equal to `jsma` with that budget; one at a time is held in memory.
    """
    for gamma in gammas:
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be a share of features, 0 to 1, but is {gamma}")
    if not (np.isfinite(theta) and theta != 0):
        raise ValueError(f"theta must be a finite number other than 0, but is {theta}")
    if saliency not in ("logits", "softmax"):
        raise ValueError(f"saliency must be 'logits' or 'softmax', but is {saliency!r}")
    if clip is None:
        raise ValueError("clip must be a range (low, high), because a feature is left alone at its edge, but is None")
    clean = _checked_images(images, clip)
    truth = _checked_labels(labels, clean)
    aims = _aims(model, clean, truth, targets, rng, batch_size)
    # Without the 1e-9, 0.29 · 100 would be 28.
    budgets = [int(gamma * clean[0].numel() / (1 + pairs) + 1e-9) for gamma in gammas]
    picks = _jsma_picks(
        model, clean, aims, theta, max(budgets, default=0), pairs, saliency, clip, stop_at_target, batch_size
    )

    def walk() -> Iterator[torch.Tensor]:
        for budget in budgets:
            moved = clean.clone()
            for chosen in picks[:, :budget].unbind(1):
                _push(moved, chosen.long(), theta, clip)
            yield moved

    return _measured(model, clean, truth, walk(), images, batch_size, aims)


def boundary(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: int = 25_000,
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    rng: np.random.Generator,
    directions: int = 1_000,
    batch_size: int = 100,
    outside: bool = False,
) -> AdversarialBatch:
    """Boundary attack: from noise that is misread, walk along the decision boundary to as near the image as it gets.

    It asks the network for classes only, about 1.1 times a step and image. This is `foolbox`'s BoundaryAttack with its
    defaults, which are VS22's; what foolbox does to a whole batch because of one image is undone. An image for which no
    start is found is left out, and not the batch (foolbox's issue 541): it stays as it is, is no success, and a warning
    says how many there are. An image that is misread already is left alone as well, without a warning.

    Parameters
    ----------
    model : nn.Module
        (n, c, h, w) images → (n, classes) logits. Runs where it lives, in evaluation mode, and is left as it was.
    images : (n, c, h, w) float array or tensor
        Within `clip`.
    labels : (n,) integer array or tensor
        True classes; misread is any other.
    steps : int
        Number of steps, at least 0. VS22: 25,000.
    clip : (float, float)
        Range of noise, candidates and result.
    rng : numpy.random.Generator
        Source of starts and steps. Two machines of the same kind give the same result; torch's own global generator is
        left as it was.
    directions : int
        Noise images tried for a start before an image is given up, at least 1.
    batch_size : int
        Images of one run of foolbox. In it all images take the same random directions, so images influence the result
        of others only through their number and order.
    outside : bool
        Whether images may lie outside `clip`; then the result may, too, where nothing better was found. For replaying
        attacks that mixed up their ranges, as foolbox allowed before 3.3.3.

    Returns
    -------
    AdversarialBatch
        Every image with `clean_correct` whose `l2` is 0 is one without a start. The others end so near the boundary
        that another batch size or machine can read one or the other rightly again; `predictions` are measured anew.

    Raises
    ------
    ValueError
        As `fgsm`; also for clip=None, negative steps, or fewer than one direction.

    References
    ----------
    W. Brendel, J. Rauber, M. Bethge, "Decision-based adversarial attacks: reliable attacks against black-box machine
    learning models", ICLR 2018, arXiv:1712.04248; VS22 §4.3.
    """
    options = {"rng": rng, "directions": directions, "batch_size": batch_size, "outside": outside}
    return boundary_sweep(model, images, labels, [steps], clip, **options)[0]


def boundary_sweep(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    steps: Sequence[int],
    clip: tuple[float, float] = (0.0, 1.0),
    *,
    rng: np.random.Generator,
    directions: int = 1_000,
    batch_size: int = 100,
    outside: bool = False,
) -> list[AdversarialBatch]:
    """Boundary attack after several numbers of steps, for the price of the largest: states of one run.

    Parameters and errors are those of `boundary`, save `steps`, which must increase; 0 gives the starts. While it
    runs, the median distance is shown.

    Returns
    -------
    list of AdversarialBatch
        In the order of `steps`, each equal to `boundary` with that many and a generator in the same state, save images
        that have converged: there it may be closer by some 1e-7 of the distance, but for the last.
    """
    steps = _checked_steps(steps)
    if not steps:
        raise ValueError("steps must hold at least one number, but is empty")
    if clip is None or not clip[0] < clip[1]:
        raise ValueError(
            f"clip must be a range (low, high) with low < high, because noise comes from it, but is {clip}"
        )
    if directions < 1:
        raise ValueError(f"directions must be at least 1, but is {directions}")
    _check_batch_size(batch_size)
    clean = _checked_images(images, (-np.inf, np.inf) if outside else clip)
    truth = _checked_labels(labels, clean)
    with frozen(model) as device, torch.inference_mode():
        _logits(model, clean[:1].to(device), truth)
    clean_correct = torch.as_tensor(predict(model, clean, batch_size)) == truth
    rows = torch.nonzero(clean_correct)[:, 0]
    states, started = walk(
        model, clean[rows], truth[rows], steps, clip, rng, directions=directions, batch_size=batch_size
    )
    if not started.all():
        warnings.warn(
            f"no start was found for {int((~started).sum())} of {len(clean)} images in {directions} random directions; "
            "these stay as they are and are no success",
            UserWarning,
            stacklevel=2,
        )
    results = []
    for state in states:
        moved = clean.clone()
        moved[rows] = state if outside else state.clamp(*clip)  # blending may leave the range by a rounding error
        results.append(_result(model, clean, moved, truth, clean_correct, images, batch_size))
    return results


def random_sign_noise(
    images: ArrayLike, epsilon: float, rng: np.random.Generator, clip: Clip = (0.0, 1.0)
) -> ArrayLike:
    """Return images with +ε or −ε added to every pixel by the toss of a coin: as large as FGSM's change, with no aim.

    A detector that flags these as well has found that something changed, not that it was attacked.

    Parameters
    ----------
    images, epsilon, clip
        As for `fgsm`.
    rng : numpy.random.Generator
        Source of the signs.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`.
    """
    epsilon = _checked_size(epsilon, "epsilon")
    clean = _checked_images(images, clip)
    signs = torch.from_numpy(rng.integers(0, 2, size=clean.shape, dtype=np.int8) * 2 - 1)
    return _like(images, _moved(clean, epsilon, signs, clip))


def gaussian_noise(
    images: ArrayLike,
    rng: np.random.Generator,
    *,
    l2: float | ArrayLike | None = None,
    linf: float | ArrayLike | None = None,
    clip: Clip = (0.0, 1.0),
) -> ArrayLike:
    """Return images with Gaussian noise whose L2 or L∞ norm, image by image, is as asked *after* clipping.

    Parameters
    ----------
    images, clip
        As for `fgsm`.
    rng : numpy.random.Generator
        Source of the noise.
    l2, linf : float or (n,) array
        Exactly one of them: the norm for all images or for each, such as an attack's `AdversarialBatch.l2`; in pixels.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`. Where a norm cannot be reached, for clipping, the largest that can, with a warning.

    Raises
    ------
    ValueError
        As `fgsm` for images and clip; if not exactly one norm is given, or it is negative, not finite or not one an
        image.
    """
    clean = _checked_images(images, clip)
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    if (l2 is None) == (linf is None):
        raise ValueError(f"exactly one of l2 and linf must be given, but they are {l2} and {linf}")
    norm, name, value = (_linf, "linf", linf) if l2 is None else (_l2, "l2", l2)
    return _like(images, _scaled(clean, noise, norm, _checked_norms(value, name, clean), name, clip))


def match_l2(images: ArrayLike, changed: ArrayLike, l2: float | ArrayLike, clip: Clip = (0.0, 1.0)) -> ArrayLike:
    """Return images + s · (changed − images), each s such that the L2 norm of the change after clipping is as asked.

    For making any change as large as an attack's. (A shifted image scaled this way is a double exposure; `shifted` and
    `rotated` match by the distance instead.)

    Parameters
    ----------
    images, clip
        As for `fgsm`.
    changed : (n, c, h, w) float array or tensor
        What became of them, unclipped or not.
    l2 : float or (n,) array
        Norm for all images or for each; in pixels.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`. Where a norm cannot be reached, for clipping or because nothing changed, the largest
        that can, with a warning.
    """
    clean = _checked_images(images, clip)
    moved = _checked_images(changed, (-np.inf, np.inf))
    if moved.shape != clean.shape:
        raise ValueError(f"changed must have the shape of images, {tuple(clean.shape)}, but has {tuple(moved.shape)}")
    change = moved - clean
    return _like(images, _scaled(clean, change, _l2, _checked_norms(l2, "l2", clean), "l2", clip))


def shifted(
    images: ArrayLike,
    *,
    pixels: float | ArrayLike | None = None,
    l2: float | ArrayLike | None = None,
    direction: float | ArrayLike = 0.0,
) -> ArrayLike:
    """Return images shifted by a distance, or by the distance that gives the change a certain L2 norm.

    Between pixels the shift interpolates bilinearly, so it also blurs a little; the border repeats its last pixel.

    Parameters
    ----------
    images : (n, c, h, w) float array or tensor
        In [0, 1].
    pixels, l2 : float or (n,) array
        Exactly one of them, for all images or for each: the distance in pixels, or the norm.
        For a norm it is the first distance that reaches it on the way to half the image, searched in steps of half a
        pixel and then by bisection.
    direction : float or (n,) array
        In degrees: 0 moves the image to the right, 90 up.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`. Where a norm is not reached, the shift with the largest, with a warning.

    Raises
    ------
    ValueError
        As `fgsm` for images; if not exactly one of pixels and l2 is given, or it is not finite or not one an image, or
        the norm is negative.
    """
    clean = _checked_images(images, None)
    angle = torch.deg2rad(_each(direction, "direction", clean))

    def shift(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        dx, dy = amount * angle[rows].cos(), -amount * angle[rows].sin()
        return _warped(clean[rows], torch.zeros_like(amount), dx, dy)

    grid = torch.arange(0, min(clean.shape[2:]) / 2 + 0.5, 0.5, dtype=torch.float64)
    return _like(images, _by_amount(clean, shift, grid, pixels, "pixels", l2))


def rotated(
    images: ArrayLike, *, degrees: float | ArrayLike | None = None, l2: float | ArrayLike | None = None
) -> ArrayLike:
    """Return images rotated counter-clockwise about their centre, by an angle or until the L2 norm is as asked.

    Parameters
    ----------
    images : (n, c, h, w) float array or tensor
        In [0, 1].
    degrees, l2 : float or (n,) array
        Exactly one of them, for all images or for each. For a norm it is the first angle that reaches it on the way to
        180°, searched in steps of 3° and then by bisection.

    Returns
    -------
    (n, c, h, w) float32
        Interpolated, with a border and with a warning as in `shifted`.

    Raises
    ------
    ValueError
        As `shifted`.
    """
    clean = _checked_images(images, None)

    def rotate(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        return _warped(clean[rows], amount, torch.zeros_like(amount), torch.zeros_like(amount))

    grid = torch.arange(0, 183, 3, dtype=torch.float64)
    return _like(images, _by_amount(clean, rotate, grid, degrees, "degrees", l2))


def _gradient_signs(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int) -> torch.Tensor:
    _check_batch_size(batch_size)
    signs = []
    with frozen(model) as device, torch.enable_grad():
        for part, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            part, target = part.to(device), target.to(device)
            # A step of 1, unclipped; the difference gives its sign back exactly, whatever x + 1 was rounded to.
            step = fast_gradient_method(lambda x: _logits(model, x, labels), part, 1.0, np.inf, y=target) - part
            signs.append(step.detach().sign().to("cpu", torch.int8))
    return torch.cat(signs)


def _logits(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the model's logits, or raise where they are none or `labels` go beyond them."""
    logits = model(images)
    if logits.ndim != 2:
        raise ValueError(f"model must give (n, classes) logits, but gives shape {tuple(logits.shape)}")
    if int(labels.max()) >= logits.shape[1]:
        raise ValueError(f"labels must be below the model's {logits.shape[1]} classes, but reach {int(labels.max())}")
    if not logits.isfinite().all():  # torch's sign(NaN) is 0, which would pass for a zero gradient
        raise ValueError("model must give finite logits, but some are NaN or infinite")
    return logits


def _moved(clean: torch.Tensor, epsilon: float, signs: torch.Tensor, clip: Clip) -> torch.Tensor:
    moved = clean + epsilon * signs.float()
    return moved if clip is None else moved.clamp(*clip)


def _result(
    model: nn.Module,
    clean: torch.Tensor,
    moved: torch.Tensor,
    labels: torch.Tensor,
    clean_correct: torch.Tensor,
    kind: ArrayLike,
    batch_size: int,
    zero_gradient_share: float | None = None,
    targets: torch.Tensor | None = None,
) -> AdversarialBatch:
    """Measure an attack: all tensors on the CPU; arrays of the result are of `kind`'s kind."""
    change = (moved - clean).flatten(1)
    arrays = {
        "images": moved,
        "labels": labels,
        "clean_correct": clean_correct,
        "predictions": torch.as_tensor(predict(model, moved, batch_size)),
        "linf": change.abs().amax(1),
        "l2": torch.linalg.vector_norm(change, dim=1),
        "l0": change.count_nonzero(1),
        "targets": targets,
    }
    return summarised(arrays, kind, zero_gradient_share)


def summarised(
    arrays: dict[str, torch.Tensor | None], kind: ArrayLike, zero_gradient_share: float | None = None
) -> AdversarialBatch:
    """Complete a result: success and shares follow from the fields named in `ARRAYS`.

    Parameters
    ----------
    arrays : dict
        Those fields, tensors on the CPU; `targets` may be None.
    kind : array or tensor
        Whose kind, NumPy or torch, and device the result's arrays get.
    zero_gradient_share : float, optional
        As measured.
    """
    labels, targets, predictions = arrays["labels"], arrays["targets"], arrays["predictions"]
    correct = predictions == labels
    aimed = None if targets is None else targets != labels
    arrays = arrays | {"success": arrays["clean_correct"] & ~correct}
    return AdversarialBatch(
        **{name: None if tensor is None else _like(kind, tensor) for name, tensor in arrays.items()},
        clean_accuracy=float(arrays["clean_correct"].double().mean()),
        adversarial_accuracy=float(correct.double().mean()),
        zero_gradient_share=zero_gradient_share,
        targeted_success=None if aimed is None else float((predictions == targets)[aimed].double().mean()),
    )


def join(batches: Sequence[AdversarialBatch]) -> AdversarialBatch:
    """Put the results of one attack on several batches together, in order, as if it had been one batch.

    Raises
    ------
    ValueError
        If there are none, or some are targeted and some are not.
    """
    if not batches:
        raise ValueError("batches must hold at least one, but is empty")
    if len({batch.targets is None for batch in batches}) > 1:
        raise ValueError("batches must come from one attack, but some are targeted and some are not")
    arrays: dict[str, torch.Tensor | None] = {"targets": None}
    for name in ARRAYS:
        if getattr(batches[0], name) is not None:
            arrays[name] = torch.cat([as_tensor(getattr(batch, name)).cpu() for batch in batches])
    shares = [batch.zero_gradient_share for batch in batches]
    share = None if None in shares else float(np.average(shares, weights=[len(batch) for batch in batches]))
    return summarised(arrays, batches[0].images, share)


ARRAYS = ("images", "labels", "clean_correct", "predictions", "linf", "l2", "l0", "targets")
"""Fields of an `AdversarialBatch` from which all others follow, save the share of zero gradients."""


def _measured(
    model: nn.Module,
    clean: torch.Tensor,
    labels: torch.Tensor,
    walk: Iterator[torch.Tensor],
    kind: ArrayLike,
    batch_size: int,
    targets: torch.Tensor | None = None,
) -> Iterator[AdversarialBatch]:
    clean_correct = torch.as_tensor(predict(model, clean, batch_size)) == labels
    for moved in walk:
        yield _result(model, clean, moved, labels, clean_correct, kind, batch_size, targets=targets)


def _sign_steps(
    model: nn.Module,
    clean: torch.Tensor,
    start: torch.Tensor,
    classes: torch.Tensor,
    step: float,
    counts: Sequence[int],
    clip: Clip,
    ball: float | None,
    batch_size: int,
    name: str,
) -> Iterator[torch.Tensor]:
    """Walk along the sign of the gradient of the loss of `classes` (against it for step < 0); give where it is."""
    moved, done = start.clone(), 0
    if 0 in counts:
        yield moved
    for done in track(range(1, max(counts, default=0) + 1), f"{name}, {len(clean)} images"):
        moved = _moved(moved, step, _gradient_signs(model, moved, classes, batch_size), clip)
        if ball is not None:
            moved = _moved(clean, 1.0, (moved - clean).clamp(-ball, ball), clip)
        if done in counts:
            yield moved


def _aims(
    model: nn.Module,
    clean: torch.Tensor,
    labels: torch.Tensor,
    targets: Targets,
    rng: np.random.Generator | None,
    batch_size: int,
) -> torch.Tensor:
    """Return the class that each image is to be read as, (n,) int64."""
    _check_batch_size(batch_size)
    with frozen(model) as device, torch.inference_mode():
        classes = _logits(model, clean[:1].to(device), labels).shape[1]
    if isinstance(targets, str):
        if targets == "least_likely":
            return torch.from_numpy(models.logits(model, clean, batch_size).argmin(1))
        if targets != "random":
            raise ValueError(f"targets must be 'least_likely', 'random', a class or one an image, but is {targets!r}")
        if rng is None:
            raise ValueError("rng must be a numpy.random.Generator for random targets, but is None")
        return (labels + torch.from_numpy(rng.integers(1, classes, len(labels)))) % classes
    aims = as_tensor(np.asarray(targets) if not isinstance(targets, torch.Tensor) else targets).cpu()
    if aims.is_floating_point() or aims.is_complex() or aims.dtype == torch.bool:
        raise ValueError(f"targets must be integers, but has dtype {aims.dtype}")
    if aims.ndim and aims.shape != labels.shape:
        raise ValueError(f"targets must be one class or one an image, ({len(labels)},), but has {tuple(aims.shape)}")
    if int(aims.min()) < 0 or int(aims.max()) >= classes:
        raise ValueError(
            f"targets must be classes 0 to {classes - 1}, but reach from {int(aims.min())} to {int(aims.max())}"
        )
    return aims.long().expand(labels.shape).contiguous()


def _jsma_picks(
    model: nn.Module,
    clean: torch.Tensor,
    targets: torch.Tensor,
    theta: float,
    iterations: int,
    pairs: bool,
    saliency: str,
    clip: tuple[float, float],
    stop_at_target: bool,
    batch_size: int,
) -> torch.Tensor:
    """Return the features changed at each iteration, (n, iterations, 2 or 1) int32; −1 once an image is finished."""
    picks = torch.full((len(clean), iterations, 1 + pairs), -1, dtype=torch.int32)
    starts = range(0, len(clean), batch_size)
    with frozen(model) as device:
        for start in track(starts, f"JSMA, {len(clean)} images"):
            rows = slice(start, start + batch_size)
            moved, aims = clean[rows].to(device, copy=True), targets[rows].to(device)
            active = torch.arange(len(moved), device=device)
            for iteration in range(iterations):
                part = moved[active].requires_grad_()
                alpha, beta, said = _forward_derivative(model, part, aims[active], saliency)
                part = part.detach().flatten(1)
                free = part < clip[1] if theta > 0 else part > clip[0]
                if stop_at_target:
                    free &= (said != aims[active])[:, None]
                sign = 1 if theta > 0 else -1
                chosen = (_best_pair if pairs else _best_feature)(sign * alpha, -sign * beta, free)
                picks[start + active.cpu(), iteration] = chosen.to("cpu", torch.int32)
                active = active[chosen[:, 0] >= 0]
                if not len(active):
                    break
                moved[active] = _push(moved[active], chosen[chosen[:, 0] >= 0], theta, clip)
    return picks


def _forward_derivative(
    model: nn.Module, images: torch.Tensor, targets: torch.Tensor, saliency: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return α and β, (n, d) float64, and the class the model says, (n,).

    Images do not mix in evaluation mode, so two backward passes of sums over the batch give what would take one for
    each class: α, and the gradient of the sum of all outputs, which is α + β.
    """
    with torch.enable_grad():
        outputs = _logits(model, images, targets)
        said = outputs.argmax(1)
        if saliency == "softmax":
            outputs = outputs.log_softmax(1)
        (alpha,) = torch.autograd.grad(outputs.gather(1, targets[:, None]).sum(), images, retain_graph=True)
        alpha = alpha.flatten(1).double()
        if saliency == "softmax":
            return alpha, -alpha, said
        (total,) = torch.autograd.grad(outputs.sum(), images)
    return alpha, total.flatten(1).double() - alpha, said


def _push(images: torch.Tensor, chosen: torch.Tensor, theta: float, clip: tuple[float, float]) -> torch.Tensor:
    """Move the chosen features, (n, 1 or 2), of images in place by θ within the range; −1 means none."""
    rows = torch.nonzero(chosen[:, 0] >= 0)
    flat = images.view(len(images), -1)
    flat[rows, chosen[rows[:, 0]]] = (flat[rows, chosen[rows[:, 0]]] + theta).clamp(*clip)
    return images


def _best_feature(a: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return for each row the free feature with a, b > 0 and the largest a·b, (n, 1) int64; −1 if there is none."""
    best, chosen = torch.where(free & (a > 0) & (b > 0), a * b, 0.0).max(1)
    return torch.where(best > 0, chosen, -1)[:, None]


_PAIR_ELEMENTS = 2**22
"""Pairs scored at a time; 32 MB an intermediate result."""


def _best_pair(a: torch.Tensor, b: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """Return for each row the free features p < q with a_p + a_q > 0, b_p + b_q > 0 and the largest product of these.

    (n, 2) int64; −1 if there is no such pair. Of equal products of candidates the lowest p, then q, wins.

    Let (p, q) be a best pair and r another free feature with a_r ≥ a_q and b_r ≥ b_q. Then (p, r) has the right
    signs and is no worse. So some best pair has no such r for either member (equal features count as beaten by those of
    lower index): each is beaten by at most one feature, its partner. In the order of falling a, a feature is beaten by
    those before it with b at least as large; there is at most one iff b exceeds the second largest b before it.
    """
    a, b = a.masked_fill(~free, -torch.inf), b.masked_fill(~free, -torch.inf)
    order = b.sort(dim=1, descending=True, stable=True).indices
    order = order.gather(1, a.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    sorted_b = b.gather(1, order)
    before = nn.functional.pad(sorted_b, (1, 0), value=-torch.inf)[:, :-1]  # b of the one before, then running maxima
    largest = before.cummax(1).values
    second = nn.functional.pad(torch.minimum(sorted_b, largest), (1, 0), value=-torch.inf)[:, :-1].cummax(1).values
    keep = sorted_b > second

    rank = keep.cumsum(1) - 1
    count = int(rank.max()) + 1
    # One column more than features, whose a and b are −∞, for rows with fewer candidates than others.
    candidates = torch.full((len(a), max(count, 1)), a.shape[1], device=a.device)
    rows = torch.nonzero(keep)[:, 0]
    candidates[rows, rank[keep]] = order[keep]
    candidates = candidates.sort(dim=1).values
    a, b = (nn.functional.pad(x, (0, 1), value=-torch.inf).gather(1, candidates) for x in (a, b))

    best = torch.zeros(len(a), dtype=a.dtype, device=a.device)
    chosen = torch.full((len(a), 2), -1, device=a.device)
    size = candidates.shape[1]
    block = max(1, _PAIR_ELEMENTS // (len(a) * size))
    column = torch.arange(size, device=a.device)
    for first in range(0, size, block):
        sum_a = a[:, first : first + block, None] + a[:, None]
        sum_b = b[:, first : first + block, None] + b[:, None]
        allowed = (sum_a > 0) & (sum_b > 0) & (column > column[first : first + block, None])
        score, position = torch.where(allowed, sum_a * sum_b, 0.0).flatten(1).max(1)
        better = score > best
        pair = torch.stack([first + position // size, position % size], dim=1)
        chosen[better] = candidates.gather(1, pair)[better]
        best = torch.maximum(best, score)
    return chosen


def _linf(change: torch.Tensor) -> torch.Tensor:
    return change.flatten(1).abs().amax(1).double()


def _l2(change: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(change.flatten(1), dim=1, dtype=torch.float64)


def _scaled(
    clean: torch.Tensor,
    change: torch.Tensor,
    norm: Callable[[torch.Tensor], torch.Tensor],
    wanted: torch.Tensor,
    name: str,
    clip: Clip,
) -> torch.Tensor:
    """Add the change times a factor an image, so that its norm after clipping is as wanted."""

    def added(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        return _moved(clean[rows], 1.0, amount[:, None, None, None].float() * change[rows], clip)

    # Clipping only shrinks, so the plain quotient is the least factor; for a change of zero any will do.
    least = wanted / norm(change).clamp_min(1e-30)
    grid = torch.cat([torch.zeros(1, 1), 2.0 ** torch.arange(17)[:, None]]) * least
    return _reaching(clean, added, norm, grid, wanted, name)


def _by_amount(
    clean: torch.Tensor,
    apply: Callable[[torch.Tensor, slice], torch.Tensor],
    grid: torch.Tensor,
    amount: float | ArrayLike | None,
    name: str,
    l2: float | ArrayLike | None,
) -> torch.Tensor:
    if (amount is None) == (l2 is None):
        raise ValueError(f"exactly one of {name} and l2 must be given, but they are {amount} and {l2}")
    if amount is None:
        grid = grid[:, None].expand(-1, len(clean))
        return _reaching(clean, apply, _l2, grid, _checked_norms(l2, "l2", clean), "l2")
    amounts = _each(amount, name, clean)
    return torch.cat([apply(amounts[rows], rows) for rows in _slices(len(clean))])


def _reaching(
    clean: torch.Tensor,
    apply: Callable[[torch.Tensor, slice], torch.Tensor],
    norm: Callable[[torch.Tensor], torch.Tensor],
    grid: torch.Tensor,
    wanted: torch.Tensor,
    name: str,
) -> torch.Tensor:
    """Apply to each image the amount whose change has the wanted norm: first bracket of the grid, then bisection.

    Parameters
    ----------
    apply : callable
        (amounts, rows) → images; amounts are float64, one an image of these rows.
    grid : (g, n) float64
        Increasing amounts, from 0.
    """
    results, missed = [], 0
    for rows in _slices(len(clean)):

        def size(amount: torch.Tensor, rows: slice = rows) -> torch.Tensor:
            return norm(apply(amount, rows) - clean[rows])

        steps, goal = grid[:, rows], wanted[rows]
        sizes = torch.stack([size(amount) for amount in steps])
        reached = sizes >= goal
        first = reached.int().argmax(0, keepdim=True)
        low, high = steps.gather(0, (first - 1).clamp_min(0))[0], steps.gather(0, first)[0]
        for _ in range(26):
            middle = (low + high) / 2
            enough = size(middle) >= goal
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        best = steps.gather(0, sizes.argmax(0, keepdim=True))[0]
        results.append(apply(torch.where(reached.any(0), high, best), rows))
        missed += int((~reached.any(0)).sum())
    if missed:
        warnings.warn(
            f"{name} could not be reached for {missed} of {len(clean)} images; these got the largest that could be",
            UserWarning,
            stacklevel=4,
        )
    return torch.cat(results)


def _warped(images: torch.Tensor, degrees: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Rotate counter-clockwise about the centre and shift right and down, in pixels, each image by its own amount."""
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin = angle.cos(), angle.sin()
    # affine_grid says where each pixel of the result comes from, in units of half the side, rows pointing down.
    matrix = torch.stack(
        [
            torch.stack([cos, -sin * height / width, -2 * dx / width], dim=1),
            torch.stack([sin * width / height, cos, -2 * dy / height], dim=1),
        ],
        dim=1,
    )
    # float64: in float32 even a shift by whole pixels would change every one of them by a visible rounding error.
    grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
    warped = nn.functional.grid_sample(
        images.double(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    still = (degrees == 0) & (dx == 0) & (dy == 0)  # unchanged to the bit
    return torch.where(still[:, None, None, None], images, warped.float().clamp(0, 1))


def _slices(count: int, size: int = 500) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _each(values: float | ArrayLike, name: str, images: torch.Tensor) -> torch.Tensor:
    """Return finite float64 numbers, one an image, from one for all or one for each."""
    numbers = torch.as_tensor(np.asarray(as_tensor(values).cpu() if isinstance(values, torch.Tensor) else values))
    if numbers.ndim and numbers.shape != images.shape[:1]:
        raise ValueError(
            f"{name} must be one number or one an image, ({len(images)},), but has shape {tuple(numbers.shape)}"
        )
    numbers = numbers.double().expand(len(images))
    if not numbers.isfinite().all():
        raise ValueError(f"{name} must be finite, but has NaN or infinite values")
    return numbers


def _checked_norms(values: float | ArrayLike, name: str, images: torch.Tensor) -> torch.Tensor:
    numbers = _each(values, name, images)
    if numbers.min() < 0:
        raise ValueError(f"{name} must be at least 0, but has {numbers.min().item():g}")
    return numbers


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, but is {batch_size}")


def _checked_steps(steps: Sequence[int]) -> list[int]:
    steps = [operator.index(count) for count in steps]
    if min(steps, default=0) < 0 or any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(f"steps must be at least 0 and, if several, increase, but is {steps}")
    return steps


def _like(kind: ArrayLike, tensor: torch.Tensor) -> ArrayLike:
    return tensor.to(kind.device) if isinstance(kind, torch.Tensor) else tensor.numpy()


def _checked_size(size: float, name: str) -> float:
    size = float(size)
    if not (np.isfinite(size) and size >= 0):
        raise ValueError(f"{name} must be a finite number of at least 0, but is {size}")
    return size


def _checked_images(images: ArrayLike, clip: Clip) -> torch.Tensor:
    """Return images as a float32 tensor on the CPU, or raise."""
    low, high = (0.0, 1.0) if clip is None else clip
    if not low < high:
        raise ValueError(f"clip must be a range (low, high) with low < high, or None, but is {clip}")
    tensor = as_tensor(images).cpu()
    if tensor.ndim != 4 or 0 in tensor.shape:
        raise ValueError(f"images must be a non-empty (n, c, h, w) array, but has shape {tuple(tensor.shape)}")
    least, most = tensor.min().item(), tensor.max().item()
    hint = "; divide by 255" if least >= 0 and 1 < most <= 255 and high == 1 else ""
    if not tensor.is_floating_point():
        raise ValueError(
            f"images must be floating point in [{low:g}, {high:g}], but is {tensor.dtype} "
            f"and reaches from {least} to {most}{hint}"
        )
    if not np.isfinite(least + most):
        raise ValueError(f"images must be finite, but {int((~tensor.isfinite()).sum())} values are NaN or infinite")
    if least < low or most > high:
        raise ValueError(f"images must lie in [{low:g}, {high:g}], but reach from {least:g} to {most:g}{hint}")
    return tensor.float()


def _checked_labels(labels: ArrayLike, images: torch.Tensor) -> torch.Tensor:
    tensor = as_tensor(labels).cpu()
    if tensor.shape != images.shape[:1]:
        raise ValueError(f"labels must be one an image, shape ({len(images)},), but has shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise ValueError(f"labels must be integers, but has dtype {tensor.dtype}")
    if int(tensor.min()) < 0:
        raise ValueError(f"labels must be at least 0, but has {int(tensor.min())}")
    return tensor.long()
