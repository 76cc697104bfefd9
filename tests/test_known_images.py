"""The test for the particular image: finds it where it was put in, and nowhere else."""

import numpy as np
import pandas
import pytest

from eeglib.datasets.stimuli import draw_stimulus, visual_features
from eeglib.reconstruction.known_images import choose_images, find_images


@pytest.fixture(scope="module")
def drawings():
    labels = np.repeat(np.arange(4), 60)
    pictures = [draw_stimulus(9 * c + 3, i, 64) for i, c in enumerate(labels)]
    return pictures, labels, visual_features(pictures)


def two_way(answer):
    return answer.within.table.set_index("metric").loc["within-class two-way"]


def test_the_image_is_found_where_all_of_the_response_is_its_own(drawings):
    answer = find_images(*drawings, image_share=1.0, seed=1)
    assert two_way(answer)["value"] > 0.6
    assert two_way(answer)["p_value"] < 0.01
    assert not set(answer.training) & set(answer.test)
    assert len(answer.within.predicted) == len(answer.test)


def test_the_image_is_not_found_where_none_of_the_response_is_its_own(drawings):
    """Classes differ as strongly as ever; p-values must be those of chance."""
    tables = [two_way(find_images(*drawings, image_share=0.0, seed=seed)) for seed in range(4)]
    values = np.array([table["value"] for table in tables])
    assert values.mean() == pytest.approx(0.5, abs=0.06)
    assert sum(table["p_value"] < 0.05 for table in tables) <= 1


def test_images_are_chosen_class_by_class():
    stimuli = pandas.DataFrame(
        {
            "image": [f"i{n}" for n in range(12)],
            "label": np.repeat([2, 5, 9], 4),
            "file": "x",
            "class_name": "y",
        }
    )
    chosen = choose_images(stimuli, n_classes=2, per_class=3)
    assert list(chosen["label"]) == [0, 0, 0, 1, 1, 1]
    assert list(chosen["image"]) == ["i0", "i1", "i2", "i4", "i5", "i6"]
