"""Pictures of the particular image, drawn from predicted embeddings and tested (chapter 7).

With an image-prompt adapter the embedding is a condition of its own; without one it becomes the
latents that the drawing starts from. Either way the *pictures* must tell their image from others
of its class, or they show nothing but the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas
from PIL import Image

from eeglib.decoding.teacher import Teacher
from eeglib.plotting.images import open_pictures
from eeglib.profile import ReconstructionSettings
from eeglib.reconstruction.identification import identify_within_class
from eeglib.reconstruction.image_adapter import draw_from_embeddings, encode_images, load_adapter
from eeglib.reconstruction.image_prompts import draw_from_latents, encode_pictures, fit_latents
from eeglib.reconstruction.pictures import as_pictures, check_pairs

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from eeglib.chapter import Chapter
    from eeglib.reconstruction.picture_backbones import Backbone

AT_ONCE = 64
"""Image files opened at a time."""

SIDE = 64
"""Height and width at which pixels are compared: place, size and colour, no texture."""


def embed_images(
    chapter: Chapter, pipeline: DiffusionPipeline, trials: pandas.DataFrame
) -> np.ndarray:
    """Embed the image of each trial in the space that pictures are drawn from.

    Parameters
    ----------
    chapter : Chapter
    pipeline : diffusers.DiffusionPipeline
        Given the adapter here if the profile names one and it has none yet; from then on it
        draws from embeddings only.
    trials : pandas.DataFrame
        With ``image``.

    Returns
    -------
    array of float32, shape (n_trials, n_dims)
        By the adapter's image encoder; where the profile names none, by the teacher's CLIP.
    """
    settings = chapter.profile.reconstruction
    if not settings.adapter:
        file = chapter.input("04_train_teacher", "teacher.npz")
        return Teacher.load(file).of_trials(trials).features
    if getattr(pipeline.unet, "encoder_hid_proj", None) is None:
        load_adapter(pipeline, settings)
    names, row = np.unique(trials["image"], return_inverse=True)
    files = chapter.dataset.stimuli().set_index("image").loc[names, "file"].tolist()
    parts = [files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE)]
    return np.concatenate([encode_images(pipeline, open_pictures(part)) for part in parts])[row]


def draw_predicted(
    pipeline: DiffusionPipeline,
    settings: ReconstructionSettings,
    predicted: np.ndarray,
    prompts: Sequence[str],
    embeddings: np.ndarray,
    pictures: Sequence[Image.Image],
    steps: int = 10,
) -> list[Image.Image]:
    """Draw pictures from predicted embeddings: through the adapter, or else from latents.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
    settings : ReconstructionSettings
    predicted : array, shape (n_pictures, n_dims)
    prompts : sequence of str
        The seed of each is its position.
    embeddings : array, shape (n_images, n_dims)
        Of training images, from which latents are learned where there is no adapter.
    pictures : sequence of PIL.Image.Image
        The training images.
    steps : int
        Denoising steps; no more than the settings'.

    Returns
    -------
    list of PIL.Image.Image
    """
    drawing = settings.model_dump(include={"guidance_scale", "size"})
    drawing |= {"steps": min(steps, settings.steps)}
    seeds = range(len(prompts))
    if settings.adapter:
        return draw_from_embeddings(pipeline, predicted, prompts, seeds, **drawing)
    start = fit_latents(embeddings, encode_pictures(pipeline, pictures, settings.size))
    return draw_from_latents(
        pipeline,
        start.predict(predicted),
        prompts,
        seeds,
        batch_size=settings.batch_size,
        **drawing,
    )


def identify_pictures(
    shown: Sequence[Image.Image],
    drawn: Sequence[Image.Image],
    labels: np.ndarray,
    images: Sequence[str],
    networks: Sequence[Backbone],
    batch_size: int = 16,
    seed: int = 0,
) -> pandas.DataFrame:
    """Test whether pictures tell the image that they were drawn for from others of its class.

    Parameters
    ----------
    shown, drawn : sequence of pictures
        In the same order; see `eeglib.reconstruction.pictures.as_pictures`.
    labels : array of int, shape (n_pictures,)
    images : sequence of str
        Names of the images shown.
    networks : sequence of Backbone
        Compared are pixels, and every output of these that serves two-way identification.
    batch_size : int
        Pictures through a network at a time.
    seed : int
        Of permutations and intervals.

    Returns
    -------
    pandas.DataFrame
        As from `eeglib.reconstruction.identification.identify_within_class`, the means of comparison in brackets
        behind the metric.

    Notes
    -----
    From pictures drawn and shown the mean of their own kind and class is taken: what all drawings
    of a class share tells no image. The mean is the same for every image of the class, so that
    exchanging images within classes keeps the level of the test.
    """
    shown, drawn = as_pictures(shown, "shown"), as_pictures(drawn, "drawn")
    check_pairs(shown, drawn)
    labels = np.unique(labels, return_inverse=True)[1]
    pairs = {"pixels": [_pixels(of) for of in (shown, drawn)]}
    for network in networks:
        keys = [key for key, output in network.outputs.items() if "two-way" in output.scores]
        found = [network.describe(of, batch_size) for of in (shown, drawn)] if keys else []
        for key in keys:
            pairs[network.outputs[key].title] = [features[key] for features in found]
    tables = []
    for name, features in pairs.items():
        true, made = (_around_class_mean(of, labels) for of in features)
        means = np.zeros((labels.max() + 1, true.shape[1]))
        table = identify_within_class(made, true, labels, images, means, seed=seed)
        tables.append(table.assign(metric=[f"{metric} [{name}]" for metric in table["metric"]]))
    return pandas.concat(tables, ignore_index=True)


def _pixels(pictures: Sequence[np.ndarray]) -> np.ndarray:
    small = (Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX) for p in pictures)
    return np.stack([np.asarray(picture, dtype=np.float64).ravel() for picture in small])


def _around_class_mean(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    return features - means[labels]
