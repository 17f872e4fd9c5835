"""What tests on one feature map share: the map's vectors, channel by channel if asked, computed once."""

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from advlib.detectors import features
from advlib.detectors.base import BatchTest

_BLOCK = 4_096  # images that a feature map gets at once


class FeatureTest(BatchTest):
    """A test on one feature map, channel by channel if asked."""

    def _matrices(self, samples: np.ndarray, cache: dict[Hashable, Any]) -> list[np.ndarray]:
        """Return one (n, d) matrix, or one a channel."""
        key = ("features", self._feature_key())
        if key not in cache:
            if samples.ndim == 2:
                if self._feature_key()[0] != "pixels":
                    raise ValueError(
                        f"features must be 'pixels' for samples that are vectors, but is {self.features!r} and the "
                        f"samples have shape {samples.shape}"
                    )
                cache[key] = [samples]
            else:
                views = [samples]
                if self.per_channel:
                    views = [samples[:, channel : channel + 1] for channel in range(samples.shape[1])]
                cache[key] = [_mapped(self.features, view) for view in views]
        return cache[key]

    def _feature_key(self) -> tuple[str | Callable, bool]:
        return (self.features if callable(self.features) else str(self.features)), bool(self.per_channel)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        features.resolve(self.features)

    def _n_parts(self) -> int:
        return self.n_channels_

    def statistic_names(self) -> list[str]:
        """Return the statistic's name, one a channel if there are several."""
        return [self._label] if self.n_channels_ == 1 else [f"{self._label} {c}" for c in range(self.n_channels_)]


def _mapped(feature_map: str | Callable, images: np.ndarray) -> np.ndarray:
    """Return the feature vectors of images, a block at a time."""
    blocks = [features.apply(feature_map, images[lo : lo + _BLOCK]) for lo in range(0, len(images), _BLOCK)]
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def feature_name(test: BatchTest) -> str:
    """Return the name of what a test looks at."""
    return features.name_of(test.features) if hasattr(test, "features") else "several maps"
