"""What tests on one feature map share: the map's vectors, channel by channel if asked, computed once."""

import uuid
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from advlib.chunks import Rows, rows_of
from advlib.datasets.large import LargeSamples
from advlib.detectors import features
from advlib.detectors.base import BatchTest
from advlib.prdc.blocked import fitting_rows
from advlib.tasks import map_tasks

_BLOCK = 4_096  # images that a feature map gets at once


class FeatureTest(BatchTest):
    """A test on one feature map, channel by channel if asked."""

    def _matrices(
        self, samples: np.ndarray | LargeSamples, cache: dict[Hashable, Any]
    ) -> list[np.ndarray] | list[Rows]:
        """Return one (n, d) matrix, or one a channel; rows on disk for samples that are on disk."""
        key = ("features", self._feature_key())
        if key not in cache:
            if samples.ndim == 2:
                if self._feature_key()[0] != "pixels":
                    raise ValueError(
                        f"features must be 'pixels' for samples that are vectors, but is {self.features!r} and the "
                        f"samples have shape {samples.shape}"
                    )
                cache[key] = [on_disk(self.features, samples, None)] if isinstance(samples, LargeSamples) else [samples]
            elif isinstance(samples, LargeSamples):
                channels = range(samples.shape[1]) if self.per_channel else [None]
                cache[key] = [on_disk(self.features, samples, channel) for channel in channels]
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


def on_disk(feature_map: str | Callable, samples: LargeSamples, channel: int | None) -> Rows:
    """Write the feature vectors of samples into a file in their scratch folder, block after block, and return its rows.

    Parameters
    ----------
    feature_map : str or callable
        As for `advlib.detectors.features.resolve`; vectors (n, d) are taken as they are.
    samples : LargeSamples
    channel : int or None
        A colour channel to look at alone.
    """
    file = samples.scratch / f"{uuid.uuid4().hex}.npy"
    blocks = samples.blocks()
    starts = np.cumsum([0, *(len(block.args[-1]) for block in blocks)]).tolist()
    matrix = None
    shared = [feature_map, channel]
    for (number, _), vectors in map_tasks(_vectors_of, list(enumerate(blocks)), "looking at samples", shared=shared):
        if matrix is None:
            shape = len(samples), vectors.shape[1]
            matrix = np.lib.format.open_memmap(file, mode="w+", dtype=vectors.dtype, shape=shape)
        matrix[starts[number] : starts[number] + len(vectors)] = vectors
    width, dtype = matrix.shape[1], str(matrix.dtype)
    matrix.flush()
    del matrix
    return rows_of(file, "samples", fitting_rows(width, dtype, samples.memory_gb), samples.memory_gb)


def _vectors_of(
    numbered: tuple[int, Callable[[], np.ndarray]], feature_map: str | Callable, channel: int | None
) -> np.ndarray:
    samples = numbered[1]()
    if samples.ndim == 2:
        return samples
    return _mapped(feature_map, samples if channel is None else samples[:, channel : channel + 1])


def feature_name(test: BatchTest) -> str:
    """Return the name of what a test looks at."""
    return features.name_of(test.features) if hasattr(test, "features") else "several maps"
