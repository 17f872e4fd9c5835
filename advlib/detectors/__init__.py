"""Was this batch drawn as my clean images were? Permutation tests with calibrated p-values.

VS22 close by asking for "statistical hypothesis tests to differentiate provided samples from a known training set".
Here they are. A *reference* set gives the statistic its shape (balls around it, or the numerator of a density ratio), a
*calibration* set of other clean samples says what clean batches look like, and a *batch* is what one wants to know
about. The null hypothesis is that batch and calibration samples are exchangeable. Given the reference, whatever it is,
each choice of m among the n + m samples is then equally likely to be the batch, so that

    p = (1 + number of draws at least as extreme) / (1 + draws)

is exact for every sample size [1]_ [2]_, and never 0. Where the statistic of several draws is the same (ball counts are
whole numbers, most of all for a single image), their order is drawn at random, which makes p uniform instead of
cautious; with ``ties="conservative"`` all of them count against rejection.

Both tails count: density and coverage fall when samples leave the balls and rise when they crowd into the middle, and
cross their expectation in between. Several statistics (channels, or different tests) are combined by the smallest of
their tail ranks, whose own distribution comes from the same permutations [3]_: the joint level is exact, however they
depend on each other.

A second question has a test of its own, `AimTest`: not whether the images changed, but whether the change aims at a
network's errors. Its null hypothesis is a change without an aim.

References
----------
.. [1] B. Phipson and G. K. Smyth, "Permutation P-values should never be zero", Stat. Appl. Genet. Mol. Biol. 9 (2010)
   39, doi:10.2202/1544-6115.1585.
.. [2] E. L. Lehmann and J. P. Romano, "Testing statistical hypotheses", 3rd ed., Springer 2005, §15.2,
   doi:10.1007/0-387-27605-X.
.. [3] P. H. Westfall and S. S. Young, "Resampling-based multiple testing", Wiley 1993, §2.3 (min-p).
"""

import json
import math
from pathlib import Path

import numpy as np

from advlib.detectors import saving
from advlib.detectors.aim import AimTest, AimVerdict
from advlib.detectors.ball_tests import CoverageTest, DensityTest, NearestBallTest
from advlib.detectors.base import BatchTest
from advlib.detectors.combined_test import TESTS, CombinedTest, restored
from advlib.detectors.contamination import Contamination
from advlib.detectors.exchangeability import CHECK_LEVEL, ExchangeabilityWarning
from advlib.detectors.hotelling_test import HotellingTest
from advlib.detectors.permutations import ALTERNATIVES, TIES
from advlib.detectors.ratio_test import DensityRatioTest
from advlib.detectors.results import Part, Scores, Verdict
from advlib.detectors.sequential import Step, StreamTest

__all__ = [
    "ALTERNATIVES",
    "CHECK_LEVEL",
    "TESTS",
    "TIES",
    "AimTest",
    "AimVerdict",
    "BatchTest",
    "CombinedTest",
    "Contamination",
    "CoverageTest",
    "DensityRatioTest",
    "DensityTest",
    "ExchangeabilityWarning",
    "HotellingTest",
    "NearestBallTest",
    "Part",
    "Scores",
    "Step",
    "StreamTest",
    "Verdict",
    "load",
]


def load(path: str | Path, *, memory_gb: float | None = None) -> BatchTest:
    """Read a test that its `save` wrote, and check that it is whole.

    Parameters
    ----------
    path : str or Path
        The file. Nothing in it is executed.
    memory_gb : float, optional
        Where the file is larger than a quarter of it, the references of balls stay on disk and are read by blocks.

    Returns
    -------
    DensityTest, CoverageTest, NearestBallTest, HotellingTest, DensityRatioTest or CombinedTest
        Fitted; no distance is computed again.

    Raises
    ------
    ValueError
        Naming the file: no such file, not a saved test, damaged, or with a feature map that is not known here.
    FileNotFoundError
        If there is no such file.
    """
    path = Path(path)
    text, tensors = saving.read(path, memory_gb)
    try:
        stated = json.loads(text)
        classes = None if stated["classes"] is None else np.array(stated["classes"], dtype=np.int64)
        test = restored(stated["test"], classes, tensors, {})
        test.sample_shape_ = tuple(int(size) for size in stated["sample_shape"])
        low, high = stated["value_range"]
        test.value_range_ = float(low), float(high)
        test.n_features_in_ = math.prod(test.sample_shape_)
        test.n_reference_ = int(stated["n_reference"])
        p = stated["exchangeability_p"]
        test.exchangeability_p_ = math.nan if p is None else float(p)
        test.assumed_ = tuple(str(sentence) for sentence in stated["assumed"])
        parts = tuple(
            saving.unpack(part, f"calibration.{number}", tensors) for number, part in enumerate(stated["calibration"])
        )
        test.calibration_ = Scores(parts, None if classes is None else tensors["calibration.labels"])
        if "aim" in stated:
            test.aim_ = AimTest.restored(stated["aim"], tensors)
        if len(parts) != test._n_parts() or len({part.shape[0] for part in parts}) != 1:
            raise ValueError("its calibration scores do not belong to it")
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} cannot be used as a test: {reason}") from None
    return test
