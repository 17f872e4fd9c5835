"""Gondara 2017's reruns: images by even steps, and what lies near the print."""

import pytest

from compendium.common import g17


def test_agreement_by_definition():
    assert g17.agrees(75.0, 100.0) and g17.agrees(125.0, 100.0) and not g17.agrees(125.1, 100.0)


@pytest.mark.data
def test_too_many_images_are_refused():
    images, labels = g17.test_images("cifar10-grey", 7)
    assert images.shape == (7, 1, 32, 32) and labels.shape == (7,)
    with pytest.raises(ValueError, match="images must be at most 10000"):
        g17.test_images("mnist", 10_001)
