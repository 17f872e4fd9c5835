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

Each lies in a file of its name and has a twin named `…_sweep` that gives several sizes for the price of the largest.
Beside them, for comparison: `random_sign_noise`, `gaussian_noise`, `shifted` and `rotated` (`controls`).
"""

try:
    import cleverhans  # noqa: F401
    import eagerpy  # noqa: F401
    import foolbox  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"advlib.attacks needs {error.name}: pip install 'advlib[attacks]'") from error

from advlib.attacks.base import ARRAYS, AdversarialBatch, Clip, join, summarised, versioned
from advlib.attacks.boundary import boundary, boundary_sweep
from advlib.attacks.controls import gaussian_noise, match_l2, random_sign_noise, rotated, shifted
from advlib.attacks.fgsm import fgsm, fgsm_sweep, gradient_signs
from advlib.attacks.jsma import jsma, jsma_sweep
from advlib.attacks.pgd import pgd
from advlib.attacks.tgsm import tgsm, tgsm_sweep

__all__ = [
    "ARRAYS",
    "AdversarialBatch",
    "Clip",
    "boundary",
    "boundary_sweep",
    "fgsm",
    "fgsm_sweep",
    "gaussian_noise",
    "gradient_signs",
    "join",
    "jsma",
    "jsma_sweep",
    "match_l2",
    "pgd",
    "random_sign_noise",
    "rotated",
    "shifted",
    "summarised",
    "tgsm",
    "tgsm_sweep",
    "versioned",
]
