"""Changes of images that aim at nothing: eleven families, each made as large as is asked.

They are the null hypothesis of `AimTest`: noise, blur, compression, light, movement, as cameras, scanners and storage
make them, after the families of CIFAR-10-C and MNIST-C [1]_ [2]_. There a severity is a setting of each family's own;
here it is the size of the change, so that a family is compared with an attack of the same size.

References
----------
.. [1] D. Hendrycks and T. Dietterich, "Benchmarking neural network robustness to common corruptions and
   perturbations", ICLR 2019, arXiv:1903.12261.
.. [2] N. Mu and J. Gilmer, "MNIST-C: a robustness benchmark for computer vision", 2019, arXiv:1906.02337.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

SIZES = (0.01, 0.02, 0.04, 0.08, 0.16)
"""Root mean square of a change over all values of an image, in pixels of [0, 1]: five severities."""

Amounts = Callable[[torch.Tensor], torch.Tensor]
"""(n,) amounts in [0, 1] → (n, c, h, w) images."""

_GRID = 9
_HALVINGS = 7


def make(images: torch.Tensor, family: str, size: float, rng: np.random.Generator) -> torch.Tensor:
    """Change images by a family, each to a root mean square of `size`, and round them to 8 bits.

    Parameters
    ----------
    images : (n, c, h, w) float32 tensor
        In [0, 1], on any device.
    family : str
        One of `FAMILIES`.
    size : float
        Of the change before rounding. An image that the family cannot change so much is changed as much as it can be.
    rng : numpy.random.Generator
        Noise, directions, fields: the same on every device.

    Returns
    -------
    (n, c, h, w) float32 tensor

    Raises
    ------
    ValueError
        For an unknown family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, but is {family!r}")
    apply = FAMILIES[family](images, rng)

    def reached(amount: torch.Tensor) -> torch.Tensor:
        return (apply(amount).clamp(0, 1) - images).square().flatten(1).mean(1).sqrt()

    # Rotations and shifts do not grow evenly: the first amount of a grid that is enough brackets the least one.
    grid = torch.linspace(0, 1, _GRID, device=images.device) ** 2
    sizes = torch.stack([reached(amount.expand(len(images))) for amount in grid])
    enough = sizes >= size
    first = enough.int().argmax(0)
    low, high = grid[(first - 1).clamp_min(0)], grid[first]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        over = reached(middle) >= size
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    best = torch.where(enough.any(0), high, grid[sizes.argmax(0)])
    return rounded(apply(best))


def rounded(images: torch.Tensor) -> torch.Tensor:
    """Clip to [0, 1] and round to the 256 levels of a stored image."""
    return (images.clamp(0, 1) * 255).round() / 255


def blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur each image by a Gaussian of its own width (n,), in pixels; the border is mirrored."""
    height, width = images.shape[2:]
    pad = min(8, height - 1, width - 1)
    padded = functional.pad(images, (pad,) * 4, mode="reflect")
    fy = torch.fft.fftfreq(padded.shape[2], device=images.device)[:, None]
    fx = torch.fft.rfftfreq(padded.shape[3], device=images.device)[None]
    kept = torch.exp(-2 * math.pi**2 * sigma[:, None, None, None] ** 2 * (fy**2 + fx**2))
    back = torch.fft.irfft2(torch.fft.rfft2(padded) * kept, s=padded.shape[2:])
    return back[..., pad : pad + height, pad : pad + width]


def warped(images: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """Take each pixel from (dx, dy) pixels further right and down, fields (n, h, w); bilinear, the border repeated."""
    n, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device), torch.arange(width, device=images.device), indexing="ij"
    )
    grid = torch.stack([(2 * (x + dx) + 1) / width - 1, (2 * (y + dy) + 1) / height - 1], dim=-1)
    return functional.grid_sample(images, grid.expand(n, -1, -1, -1), padding_mode="border", align_corners=False)


def turned(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate each image about its centre by its own angle (n,)."""
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    x = (torch.arange(width, device=images.device) - (width - 1) / 2)[None]
    angle = torch.deg2rad(degrees)[:, None, None]
    cos, sin = angle.cos() - 1, angle.sin()
    return warped(images, cos * x - sin * y, sin * x + cos * y)


def _random(rng: np.random.Generator, shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).to(like.device)


def field(images: torch.Tensor, rng: np.random.Generator, channels: int, cells: int) -> torch.Tensor:
    """Draw smooth noise (n, channels, h, w), each field of mean square 1: noise on cells × cells knots, bicubic."""
    knots = _random(rng, (len(images), channels, cells, cells), images)
    smooth = functional.interpolate(knots, size=images.shape[2:], mode="bicubic", align_corners=True)
    return smooth / smooth.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)


def _each(amount: torch.Tensor) -> torch.Tensor:
    return amount[:, None, None, None]


def _white_noise(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    noise = _random(rng, tuple(images.shape), images)
    return lambda amount: images + 0.6 * _each(amount) * noise


def _smooth_noise(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    cells = rng.choice([4, 6, 9])
    noise = field(images, rng, images.shape[1], int(cells))
    return lambda amount: images + 0.6 * _each(amount) * noise


def _salt(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    shape = (len(images), 1, *images.shape[2:])
    chance = torch.from_numpy(rng.random(shape, dtype=np.float32)).to(images.device)
    ends = torch.from_numpy(rng.integers(0, 2, shape).astype(np.float32)).to(images.device)
    return lambda amount: torch.where(chance < 0.5 * _each(amount), ends, images)


def _blur(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    return lambda amount: blurred(images, 5 * amount)


def jpeg(images: torch.Tensor, coarseness: torch.Tensor, *, gradient: bool = False) -> torch.Tensor:
    """Compress as JPEG does, without subsampling: 8 × 8 cosine transform, quantised by the standard luma table.

    Parameters
    ----------
    images : (n, c, h, w) tensor
        In [0, 1]; three channels are turned to YCbCr first.
    coarseness : (n,) tensor
        Factor on the table: 1 is quality 50, 5 is quality 10.
    gradient : bool
        Whether rounding lets gradients through as if it were not there.
    """
    n, c, height, width = images.shape
    colours = torch.tensor(_YCBCR, device=images.device) if c == 3 else torch.eye(c, device=images.device)
    planes = torch.einsum("dc,nchw->ndhw", colours, images)
    right, low = -width % 8, -height % 8
    planes = functional.pad(planes, (0, right, 0, low), mode="replicate") * 255
    blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)
    basis = torch.tensor(_DCT, device=images.device)
    table = torch.tensor(_LUMA, device=images.device) * coarseness[:, None, None, None, None, None]
    table = table.clamp_min(1e-3)
    scaled = basis @ blocks @ basis.T / table
    whole = scaled + (scaled.round() - scaled).detach() if gradient else scaled.round()
    blocks = basis.T @ (whole * table) @ basis
    planes = blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, height + low, width + right)[..., :height, :width] / 255
    return torch.einsum("cd,ndhw->nchw", torch.linalg.inv(colours), planes)


_YCBCR = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
_DCT = [
    [math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * (2 * i + 1) * k / 16) for i in range(8)] for k in range(8)
]
_LUMA = [
    [16.0, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
]  # fmt: skip
"""Table K.1 of ITU-T T.81."""


def _jpeg(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    return lambda amount: jpeg(images, 12 * amount)


def _brightness(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], len(images)).astype(np.float32)).to(images.device)
    return lambda amount: images + 0.7 * _each(sign * amount)


def _contrast(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    middle = images.mean((1, 2, 3), keepdim=True)
    return lambda amount: images + (middle - images) * 0.95 * _each(amount)


def _fog(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    cloud = sum(field(images, rng, 1, cells) / cells for cells in (2, 4, 8))
    cloud = (0.6 + 0.25 * cloud / cloud.square().mean((1, 2, 3), keepdim=True).sqrt()).clamp(0, 1)
    return lambda amount: images + (cloud - images) * 0.9 * _each(amount)


def _shift(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    angle = torch.from_numpy(rng.uniform(0, 2 * math.pi, len(images)).astype(np.float32)).to(images.device)

    def moved(amount: torch.Tensor) -> torch.Tensor:
        dx, dy = (5 * amount * part for part in (angle.cos(), angle.sin()))
        still = torch.zeros(images.shape[2:], device=images.device)
        return warped(images, dx[:, None, None] + still, dy[:, None, None] + still)

    return moved


def _rotation(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    sign = torch.from_numpy(rng.choice([-1.0, 1.0], len(images)).astype(np.float32)).to(images.device)
    return lambda amount: turned(images, 45 * sign * amount)


def _elastic(images: torch.Tensor, rng: np.random.Generator) -> Amounts:
    flow = field(images, rng, 2, 6)
    return lambda amount: warped(images, 5 * amount[:, None, None] * flow[:, 0], 5 * amount[:, None, None] * flow[:, 1])


FAMILIES: dict[str, Callable[[torch.Tensor, np.random.Generator], Amounts]] = {
    "white noise": _white_noise,
    "smooth noise": _smooth_noise,
    "salt and pepper": _salt,
    "blur": _blur,
    "JPEG": _jpeg,
    "brightness": _brightness,
    "contrast": _contrast,
    "fog": _fog,
    "shift": _shift,
    "rotation": _rotation,
    "elastic": _elastic,
}
"""Families of changes without an aim, by name."""
