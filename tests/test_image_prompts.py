"""Pictures drawn from latents: what little noise covers is kept, what does not fit is refused."""

import numpy as np
import pytest

from eeglib.datasets.stimuli import draw_stimulus
from eeglib.reconstruction.pipelines import demo_diffusion_path
from eeglib.reconstruction.drawing import load_pipeline
from eeglib.reconstruction.image_prompts import draw_from_latents, encode_pictures, fit_latents

PICTURES = [draw_stimulus(label, 5, 64) for label in (3, 14)]
PROMPTS = ["an image of a banana"] * 2


@pytest.fixture(scope="module")
def pipeline():
    if not (demo_diffusion_path() / "model_index.json").is_file():
        pytest.skip("the demo's pipeline is not trained yet")
    return load_pipeline("demo")


def distance(a, b) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


def test_little_noise_keeps_the_picture_and_much_noise_does_not(pipeline):
    latents = encode_pictures(pipeline, PICTURES, 64)
    assert latents.shape == (2, 4 * 16 * 16)
    little = draw_from_latents(pipeline, latents, PROMPTS, [0, 1], strength=0.1, steps=10)
    much = draw_from_latents(pipeline, latents, PROMPTS, [0, 1], strength=1.0, steps=10)
    for picture, near, far in zip(PICTURES, little, much, strict=True):
        assert distance(picture, near) < 0.5 * distance(picture, far)


def test_latents_follow_the_embeddings():
    rng = np.random.default_rng(0)
    embeddings, weights = rng.standard_normal((80, 5)), rng.standard_normal((5, 30))
    noise = 0.1 * rng.standard_normal((80, 30))
    fitted = fit_latents(embeddings[:60], embeddings[:60] @ weights + noise[:60])
    error = fitted.predict(embeddings[60:]) - embeddings[60:] @ weights
    assert np.abs(error).mean() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1]}, "1 seeds"),
        ({"strength": 0}, r"strength in \(0, 1\]"),
        ({"latents": np.zeros((2, 7))}, r"64 pixels have 1024 latents, got \(2, 7\)"),
    ],
)
def test_what_does_not_fit_is_refused(pipeline, change, message):
    given = {"latents": np.zeros((2, 1024)), "prompts": PROMPTS, "seeds": [0, 1]}
    with pytest.raises(ValueError, match=message):
        draw_from_latents(pipeline, **(given | change))
