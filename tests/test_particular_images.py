"""Pictures of the particular image: the test finds it; an adapter draws where one is named."""

import types

import numpy as np
import pandas
import pytest
from test_image_adapter import N_DIMS, adapter, folder  # noqa: F401

from eeglib.datasets.stimuli import draw_stimulus
from eeglib.profile import PictureSettings, ReconstructionSettings
from eeglib.reconstruction.drawing import load_pipeline
from eeglib.reconstruction.image_metrics import load_backbones
from eeglib.reconstruction.particular_images import draw_predicted, embed_images, identify_pictures
from eeglib.reconstruction.pictures import PictureError

LABELS = np.repeat([3, 14, 20], 12)
SHOWN = [draw_stimulus(label, i, 64) for i, label in enumerate(LABELS)]
IMAGES = [f"i{i}" for i in range(len(LABELS))]


@pytest.fixture(scope="module")
def networks():
    return load_backbones(PictureSettings())


def noisy(pictures, seed=0):
    rng = np.random.default_rng(seed)
    arrays = (np.asarray(p) + 40 * rng.standard_normal((64, 64, 3)) for p in pictures)
    return [np.clip(a, 0, 255).astype(np.uint8) for a in arrays]


def test_noisy_copies_are_identified_by_pixels_and_networks(networks):
    table = identify_pictures(SHOWN, noisy(SHOWN), LABELS, IMAGES, networks)
    assert list(table["metric"]) == [
        f"within-class {kind} [{by}]"
        for by in ("pixels", "CLIP (demo-clip)")
        for kind in ("top-1", "two-way")
    ]
    assert list(table["chance"].round(3)) == [0.083, 0.5] * 2
    assert (table["n"] == len(LABELS)).all()
    assert (table["low"] > table["chance"]).all()
    assert (table["p_value"] < 0.01).all()


def test_pictures_of_the_right_class_alone_are_at_chance(networks):
    """Other drawings of the class, as a class prompt gives: p-values must not be small."""
    tables = [
        identify_pictures(
            SHOWN,
            [draw_stimulus(c, 1000 * seed + i, 64) for i, c in enumerate(LABELS)],
            LABELS,
            IMAGES,
            networks,
            seed=seed,
        )
        for seed in range(1, 7)
    ]
    pairs = [table[table["metric"].str.contains("two-way")] for table in tables]
    assert np.mean([table["value"].mean() for table in pairs]) == pytest.approx(0.5, abs=0.06)
    assert sum((table["p_value"] < 0.05).sum() for table in tables) <= 5  # of 24


def test_the_truth_against_itself_is_refused(networks):
    with pytest.raises(PictureError, match="pixel for pixel"):
        identify_pictures(SHOWN, SHOWN, LABELS, IMAGES, networks)
    with pytest.raises(PictureError, match="36 true but 35 generated"):
        identify_pictures(SHOWN, noisy(SHOWN)[1:], LABELS, IMAGES, networks)


@pytest.fixture
def stimuli(tmp_path):
    for name, picture in zip(IMAGES, SHOWN, strict=True):
        picture.save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in IMAGES]
    return pandas.DataFrame({"image": IMAGES, "file": files})


def test_with_an_adapter_its_own_encoder_embeds_and_it_draws(folder, adapter, stimuli):  # noqa: F811
    settings = ReconstructionSettings(adapter=str(adapter), adapter_scale=1.0, steps=2)
    chapter = types.SimpleNamespace(
        profile=types.SimpleNamespace(reconstruction=settings),
        dataset=types.SimpleNamespace(stimuli=lambda: stimuli),
    )
    pipeline = load_pipeline(folder)
    trials = pandas.DataFrame({"image": ["i30", "i2", "i30"]})
    found = embed_images(chapter, pipeline, trials)
    assert found.shape == (3, N_DIMS)
    np.testing.assert_array_equal(found[0], found[2])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    again = embed_images(chapter, pipeline, trials[1:2])  # the adapter stays
    np.testing.assert_allclose(again[0], found[1], atol=1e-5)
    drawn = draw_predicted(pipeline, settings, found[:2], ["a banana"] * 2, found[:0], [])
    assert [picture.size for picture in drawn] == [(64, 64)] * 2


def test_without_an_adapter_latents_are_learned_from_training_images():
    pipeline, settings = load_pipeline("demo"), ReconstructionSettings(steps=4)
    embeddings = np.random.default_rng(0).standard_normal((12, 5))
    two = draw_predicted(
        pipeline, settings, embeddings[:2], ["an image of a banana"] * 2, embeddings, SHOWN[:12]
    )
    [first] = draw_predicted(
        pipeline, settings, embeddings[:1], ["an image of a banana"], embeddings, SHOWN[:12]
    )
    assert np.abs(np.asarray(two[0], int) - np.asarray(first, int)).max() <= 1
    assert two[0] != two[1]
