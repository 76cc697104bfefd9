"""Measure the demo's models: ``python -m tools.evaluate_demo_models``.

Does the CLIP model name drawings that it never saw? Does it recognise what the diffusion model
draws? Are those pictures more than copies of the drawings it was trained on?
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.stats import binomtest

from eeglib.datasets.stimuli import CLASSES
from eeglib.decoding.teacher import DEMO_CLIP
from eeglib.reconstruction.drawing import load_pipeline, reconstruct
from tools.drawings import SIZE, captions, training_drawings
from tools.train_demo_clip import HELD_OUT


def load_demo_clip():
    """The demo's CLIP, its preprocessing of images and its tokenizer."""
    import open_clip

    name = f"local-dir:{DEMO_CLIP}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)


def name_pictures(pictures: list[Image.Image]) -> np.ndarray:
    """Which of the 40 classes the demo's CLIP sees in each picture.

    Returns
    -------
    array of int, shape (n_pictures,)
        Index into `CLASSES` of the caption "an image of a ..." whose embedding is nearest.
    """
    import torch

    model, preprocess, tokenizer = load_demo_clip()
    with torch.no_grad():
        text = model.encode_text(tokenizer(captions()[0]), normalize=True)
        batch = torch.stack([preprocess(picture) for picture in pictures])
        image = model.encode_image(batch, normalize=True)
    return (image @ text.T).argmax(dim=1).numpy()


def nearest(pictures: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar one of other pictures.

    Parameters
    ----------
    pictures : array of uint8, shape (n, ...)
    others : array of uint8, shape (m, ...)

    Returns
    -------
    index : array of int, shape (n,)
    distance : array, shape (n,)
        Root mean square difference of the pixels, on their scale of 0 to 255.
    """
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    best, index = np.full(len(flat), np.inf), np.zeros(len(flat), dtype=int)
    for first in range(0, len(others), 1000):
        chunk = others[first : first + 1000].reshape(-1, flat.shape[1]).astype(np.float32)
        squared = (flat**2).sum(1)[:, None] + (chunk**2).sum(1) - 2 * flat @ chunk.T
        column = squared.argmin(axis=1)
        value = squared[np.arange(len(flat)), column]
        index = np.where(value < best, first + column, index)
        best = np.minimum(best, value)
    return index, np.sqrt(np.maximum(best, 0) / flat.shape[1])


def share(hits: np.ndarray) -> str:
    """A share with its exact 95 % interval."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95)
    return f"{hits.mean():.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"


def sheet(pictures: np.ndarray, titles: list[str], columns: int) -> Image.Image:
    """Pictures, shape (n, 64, 64, 3), in rows, each under its title."""
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * 100, rows * 116), "white")
    pen = ImageDraw.Draw(page)
    for number, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
        x, y = number % columns * 100, number // columns * 116
        page.paste(Image.fromarray(picture).resize((96, 96)), (x + 2, y + 16))
        pen.text((x + 2, y + 2), title[:16], fill="black")
    return page


def main(out: Path, n_seeds: int, per_class: int, steps: int, guidance_scale: float) -> None:
    """Print every figure of the model card and write two sheets of pictures."""
    out.mkdir(parents=True, exist_ok=True)
    labels = np.repeat(np.arange(len(CLASSES)), n_seeds)
    held_out = training_drawings(n_seeds, HELD_OUT).reshape(-1, SIZE, SIZE, 3)
    named = name_pictures([Image.fromarray(drawing) for drawing in held_out])
    print(
        f"held-out drawings named by CLIP: {share(named == labels)}, n = {len(labels)}, "
        f"chance {1 / len(CLASSES):.3f}"
    )

    pipeline = load_pipeline("demo", device="cpu")
    prompts = [captions()[0][label] for label in labels]
    started = time.perf_counter()
    drawn = reconstruct(
        pipeline,
        prompts,
        list(range(n_seeds)) * len(CLASSES),
        steps=steps,
        guidance_scale=guidance_scale,
        size=SIZE,
        batch_size=8,
    )
    seconds = (time.perf_counter() - started) / len(drawn)
    named = name_pictures(drawn)
    print(
        f"pictures of the diffusion model named by CLIP: {share(named == labels)}, "
        f"n = {len(labels)}, {steps} steps, guidance {guidance_scale:g}, {seconds:.2f} s each"
    )
    for label in np.unique(labels[named != labels]):
        taken = [CLASSES[other].name for other in named[labels == label] if other != label]
        print(f"  {CLASSES[label].name}: {len(taken)} of {n_seeds} taken for {', '.join(taken)}")

    pixels = np.stack([np.asarray(picture) for picture in drawn])
    sheet(pixels, [CLASSES[label].name for label in labels], n_seeds).save(out / "drawn.png")
    training = training_drawings(per_class).reshape(-1, SIZE, SIZE, 3)
    index, distance = nearest(pixels, training)
    _, usual = nearest(held_out, training)
    for name, values in (("pictures", distance), ("held-out drawings", usual)):
        low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
        print(
            f"distance of {name} to the nearest training drawing: median {median:.1f}, "
            f"5 to 95 % {low:.1f} to {high:.1f}, smallest {values.min():.1f}"
        )
    pairs = np.stack([pixels, training[index]], axis=1)[::n_seeds].reshape(-1, SIZE, SIZE, 3)
    titles = [t for label in labels[::n_seeds] for t in (CLASSES[label].name, "nearest training")]
    sheet(pairs, titles, 8).save(out / "nearest.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/evaluate_demo"))
    parser.add_argument("--seeds", type=int, default=8, help="pictures of each class")
    parser.add_argument(
        "--per-class", type=int, default=400, help="drawings of each class that trained the models"
    )
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=4.0)
    given = parser.parse_args()
    main(given.out, given.seeds, given.per_class, given.steps, given.guidance_scale)
