"""Notebook 01's images are drawn as they are."""

import numpy as np

from compendium import nb01_intuition as nb01


def test_images_are_drawn_where_they_were_put():
    image = np.zeros((3, 4, 4))
    image[0, 1, 2] = 1  # red, row 1, column 2
    figure = nb01.image_twins([{"image": image, "twin": image, "epsilon": 0.1, "said": "cat", "said_of_twin": "dog"}])
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (4, 4, 3) and drawn[1, 2, 0] == 1 and drawn.sum() == 1
    difference = figure.axes[2].images[0].get_array()
    np.testing.assert_allclose(difference, 0.5)
