"""The drawn stimuli: the right classes, from seeds, seen by eye and by features."""

import numpy as np
import pytest
from PIL import Image

from eeglib.datasets.stimuli import (
    CLASSES,
    TRAINING_SEEDS,
    draw_stimulus,
    drawn_stimuli,
    image_seed,
    visual_features,
)

WORDNET_IDS = """
n02389026 n03888257 n03584829 n02607072 n03297495 n03063599 n03792782 n04086273 n02510455 n11939491
n02951358 n02281787 n02106662 n04120489 n03590841 n02992529 n03445777 n03180011 n02906734 n07873807
n03773504 n02492035 n03982430 n03709823 n03100240 n03376595 n03877472 n03775071 n03272010 n04069434
n03452741 n03792972 n07753592 n13054560 n03197337 n02504458 n02690373 n03272562 n04044716 n02124075
""".split()
GROUPS = {"animal", "plant", "food", "vehicle", "clothing", "device", "household", "leisure"}


@pytest.fixture(scope="module")
def drawings() -> np.ndarray:
    """Four images of each class, shape (40, 4, 64, 64, 3)."""
    return np.stack(
        [[np.asarray(draw_stimulus(label, seed)) for seed in range(4)] for label in range(40)]
    )


def test_classes_are_those_of_the_published_data_in_their_order():
    assert [c.wnid for c in CLASSES] == WORDNET_IDS
    assert len({c.name for c in CLASSES}) == 40
    assert len({str(c.shape) for c in CLASSES}) == 40
    assert {c.group for c in CLASSES} == GROUPS


@pytest.mark.parametrize("label", [0, 3, 39])  # glyphs of a font and a drawing of our own
def test_same_seed_same_picture_other_seed_another(label):
    first, again, other = (np.asarray(draw_stimulus(label, s)) for s in (5, 5, 6))
    assert first.shape == (64, 64, 3)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_size_changes_the_resolution_not_the_picture():
    large = draw_stimulus(12, 3, size=128)
    assert large.size == (128, 128)
    small = np.asarray(large.resize((64, 64), Image.Resampling.BOX), dtype=float)
    drawn = np.asarray(draw_stimulus(12, 3), dtype=float)
    other = np.asarray(draw_stimulus(12, 4), dtype=float)
    assert np.abs(small - drawn).mean() < 0.2 * np.abs(other - drawn).mean()


def test_every_object_stands_out_from_its_background(drawings):
    corners = np.median(drawings[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], axis=2)
    distance = np.linalg.norm(drawings - corners[:, :, None, None], axis=-1)
    assert (distance > 100).mean(axis=(2, 3)).min() > 0.05


def test_images_of_a_data_set_are_on_disk_and_in_the_table(tmp_path):
    tmp_path /= "stimuli"
    table = drawn_stimuli(tmp_path, [32, 5], images_per_class=3, seed=7)
    assert list(table.columns) == ["image", "label", "class_name", "wnid", "file"]
    assert list(table["label"]) == [0, 0, 0, 1, 1, 1]
    assert list(table["class_name"].unique()) == ["banana", "coffee mug"]
    assert table["image"].is_unique
    assert table["image"][0] == "n07753592_1"
    assert table["file"][0] == "n07753592/n07753592_1.png"
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.png")} == set(table["file"])
    with Image.open(tmp_path / table["file"][1]) as image:
        expected = draw_stimulus(32, image_seed(7, 1))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_data_sets_never_use_a_seed_that_trains_the_models():
    seeds = np.array([[image_seed(seed, n) for n in range(2000)] for seed in (0, 7, 2**40)])
    assert all(len(set(row)) == len(row) for row in seeds)
    assert len(set(seeds[:, 0])) == 3
    assert seeds.min() >= 0
    assert seeds.max() < TRAINING_SEEDS


def test_features_put_alike_images_near(drawings):
    images = [Image.fromarray(picture) for row in drawings for picture in row]
    features = visual_features(images)
    assert features.shape == (160, 204)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-9)
    distances = np.linalg.norm(features[:, None] - features, axis=-1)
    labels = np.repeat(np.arange(40), 4)
    same = (labels[:, None] == labels) & ~np.eye(160, dtype=bool)
    assert distances[same].min() > 0.1  # images of a class differ
    assert distances[same].mean() < 0.95 * distances[labels[:, None] != labels].mean()
    np.fill_diagonal(distances, np.inf)
    nearest = labels[distances.argmin(axis=1)] == labels
    assert nearest.mean() > 4 / 40  # chance is 1 in 40
