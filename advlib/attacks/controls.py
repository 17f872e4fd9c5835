"""Changes of the same size as an attack, without an aim: noise, shift, rotation."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from advlib.attacks.base import Clip, checked_images, checked_rng, checked_size, clipped_step
from advlib.checks import ArrayLike, of_kind
from advlib.models import as_tensor


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
    epsilon = checked_size(epsilon, "epsilon")
    checked_rng(rng)
    clean = checked_images(images, clip)
    signs = torch.from_numpy(rng.integers(0, 2, size=clean.shape, dtype=np.int8) * 2 - 1)
    return of_kind(images, clipped_step(clean, epsilon, signs, clip))


def gaussian_noise(
    images: ArrayLike,
    rng: np.random.Generator,
    *,
    l2: float | ArrayLike,
    clip: Clip = (0.0, 1.0),
) -> ArrayLike:
    """Return images with Gaussian noise whose L2 norm, image by image, is as asked *after* clipping.

    Parameters
    ----------
    images, clip
        As for `fgsm`.
    rng : numpy.random.Generator
        Source of the noise.
    l2 : float or (n,) array
        The norm for all images or for each, such as an attack's `AdversarialBatch.l2`; in pixels.

    Returns
    -------
    (n, c, h, w) float32
        Of the kind of `images`. Where a norm cannot be reached, for clipping, the largest that can, with a warning.

    Raises
    ------
    ValueError
        As `fgsm` for images and clip; if the norm is negative, not finite or not one an image.
    """
    checked_rng(rng)
    clean = checked_images(images, clip)
    noise = torch.from_numpy(rng.standard_normal(clean.shape, dtype=np.float32))
    return of_kind(images, _scaled(clean, noise, l2, clip))


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
    clean = checked_images(images, clip)
    moved = checked_images(changed, (-np.inf, np.inf), "changed")
    if moved.shape != clean.shape:
        raise ValueError(f"changed must have the shape of images, {tuple(clean.shape)}, but has {tuple(moved.shape)}")
    return of_kind(images, _scaled(clean, moved - clean, l2, clip))


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
    clean = checked_images(images, None)
    angle = torch.deg2rad(_each(direction, "direction", clean))

    def shift(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        dx, dy = amount * angle[rows].cos(), -amount * angle[rows].sin()
        return _warped(clean[rows], torch.zeros_like(amount), dx, dy)

    grid = torch.arange(0, min(clean.shape[2:]) / 2 + 0.5, 0.5, dtype=torch.float64)
    return of_kind(images, _by_amount(clean, shift, grid, pixels, "pixels", l2))


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
    clean = checked_images(images, None)

    def rotate(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        return _warped(clean[rows], amount, torch.zeros_like(amount), torch.zeros_like(amount))

    grid = torch.arange(0, 183, 3, dtype=torch.float64)
    return of_kind(images, _by_amount(clean, rotate, grid, degrees, "degrees", l2))


def _l2(change: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(change.flatten(1), dim=1, dtype=torch.float64)


def _scaled(clean: torch.Tensor, change: torch.Tensor, l2: float | ArrayLike, clip: Clip) -> torch.Tensor:
    """Add the change times a factor an image, so that its L2 norm after clipping is as asked."""
    wanted = _each(l2, "l2", clean, 0)

    def added(amount: torch.Tensor, rows: slice) -> torch.Tensor:
        return clipped_step(clean[rows], 1.0, amount[:, None, None, None].float() * change[rows], clip)

    # Clipping only shrinks, so the plain quotient is the least factor; for a change of zero any will do.
    least = wanted / _l2(change).clamp_min(1e-30)
    grid = torch.cat([torch.zeros(1, 1), 2.0 ** torch.arange(17)[:, None]]) * least
    return _reaching(clean, added, grid, wanted)


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
        return _reaching(clean, apply, grid[:, None].expand(-1, len(clean)), _each(l2, "l2", clean, 0))
    amounts = _each(amount, name, clean)
    return torch.cat([apply(amounts[rows], rows) for rows in _slices(len(clean))])


def _reaching(
    clean: torch.Tensor,
    apply: Callable[[torch.Tensor, slice], torch.Tensor],
    grid: torch.Tensor,
    wanted: torch.Tensor,
) -> torch.Tensor:
    """Apply to each image the amount whose change has the wanted L2 norm: first bracket of the grid, then bisection.

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
            return _l2(apply(amount, rows) - clean[rows])

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
            f"l2 could not be reached for {missed} of {len(clean)} images; these got the largest that could be",
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


def _slices(count: int) -> list[slice]:
    return [slice(start, start + 500) for start in range(0, count, 500)]


def _each(values: float | ArrayLike, name: str, images: torch.Tensor, least: float = -np.inf) -> torch.Tensor:
    """Return finite float64 numbers of at least `least`, one an image, from one for all or one for each."""
    numbers = as_tensor(values, name).cpu()
    if numbers.ndim and numbers.shape != images.shape[:1]:
        raise ValueError(
            f"{name} must be one number or one an image, ({len(images)},), but has shape {tuple(numbers.shape)}"
        )
    numbers = numbers.double().expand(len(images))
    if not numbers.isfinite().all():
        raise ValueError(f"{name} must be finite, but has NaN or infinite values")
    if numbers.min() < least:
        raise ValueError(f"{name} must be at least {least:g}, but has {numbers.min().item():g}")
    return numbers
