"""Gondara 2017's reruns: images by even steps."""

import numpy as np
import pytest

from advlib import datasets
from compendium.common import g17


@pytest.mark.data
def test_too_many_images_are_refused():
    images, labels = g17.test_images("cifar10-grey", 7)
    assert images.shape == (7, 1, 32, 32) and labels.shape == (7,)
    with pytest.raises(ValueError, match="images must be at most 10000"):
        g17.test_images("mnist", 10_001)


@pytest.mark.data
def test_images_are_read_once_and_writing_into_them_changes_no_later_reading(monkeypatch):
    first, _, _ = g17.all_and_attacked("mnist", 0)
    monkeypatch.setattr(datasets, "load", lambda name: pytest.fail(f"{name} is read again"))
    before = first[:3].copy()
    first[:] = 0
    again, attacked, _ = g17.all_and_attacked("mnist", 3)
    assert np.array_equal(again[:3], before) and np.array_equal(attacked, again[[0, 3333, 6666]])
