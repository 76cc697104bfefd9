"""Files with the true structure of the real data sets, of any size, filled with noise.

What is known of the real files is in ``book/data_sets.md``; no real file was at hand.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal

from eeglib.datasets.stimuli import CLASSES

SUBJECT_ORDER = (4, 1, 6, 3, 2, 5)
"""Order of the subjects in the real EEG-ImageNet file."""

FULL = {"n_classes": 40, "images_per_class": 50, "subjects": SUBJECT_ORDER}


def eeg_imagenet(
    n_classes: int = 4,
    images_per_class: int = 5,
    subjects: tuple[int, ...] = (4, 1),
    n_chans: int = 128,
    lengths: tuple[int, int] | None = (491, 545),
    missing_images: int = 0,
    missing_trials: int = 0,
    dtype: str = "float32",
    seed: int = 0,
) -> dict[str, Any]:
    """Content of a raw EEG-ImageNet file: counts, with means and stddevs.

    ``lengths`` None draws them like those of the real file (491 to 1527, 10 from 700 on).
    """
    import torch

    rng = np.random.default_rng(seed)
    classes = rng.permutation(n_classes)
    images = [f"{CLASSES[c].wnid}_{100 + n}" for c in classes for n in range(images_per_class)]
    image_labels = np.repeat(classes, images_per_class)
    keep = np.sort(rng.permutation(len(images))[missing_images:])
    images, image_labels = [images[i] for i in keep], image_labels[keep]
    order = rng.permutation(len(images))
    # Counts of 0.5 and 0.1 microvolts; a long stretch of noise from which every trial is cut.
    counts_per_microvolt = np.r_[np.full(32, 2.0), np.full(max(n_chans - 32, 0), 10.0)][:n_chans]
    white = rng.standard_normal((n_chans, 60_000), dtype=np.float32)
    noise = signal.lfilter([1], [1, -0.97], white, axis=1)
    noise *= (12 / noise.std(axis=1) * counts_per_microvolt)[:, None]
    noise = torch.from_numpy(np.rint(noise).astype(dtype))
    numbers = [(s, i) for s in subjects for i in order]
    first = next((n for n, (s, _) in enumerate(numbers) if s == 1), 0)
    del numbers[first : first + missing_trials]  # in the real file they are subject 1's
    sizes = _lengths(len(numbers), lengths, rng)
    starts = rng.permutation(60_000 - sizes.max())[: len(numbers)]
    dataset = [
        {
            "eeg": noise[:, start : start + size].clone(),
            "image": int(image),
            "label": int(image_labels[image]),
            "subject": int(subject),
        }
        for (subject, image), start, size in zip(numbers, starts, sizes, strict=True)
    ]
    return {
        "dataset": dataset,
        "labels": [c.wnid for c in CLASSES[:n_classes]],
        "images": images,
        "means": noise.float().mean(dim=1, keepdim=True),
        "stddevs": noise.float().std(dim=1, keepdim=True),
    }


def _lengths(n_trials: int, bounds: tuple[int, int] | None, rng: np.random.Generator) -> np.ndarray:
    if bounds is not None:
        return rng.integers(*bounds, size=n_trials, endpoint=True)
    short = rng.choice((498, 499, 500), size=n_trials)
    sizes = np.where(rng.random(n_trials) < 0.45, short, rng.integers(505, 538, size=n_trials))
    odd = rng.permutation(n_trials)[:25]
    sizes[odd[:15]] = rng.integers(601, 700, size=len(odd[:15]))
    sizes[odd[15:]] = np.linspace(700, 1527, len(odd[15:])).astype(int)
    sizes[rng.permutation(n_trials)[:1]] = 491
    return sizes


def write_torch(path: Path, content: Any, zipped: bool = True) -> Path:
    """Save as torch does now, or as it did before version 1.6."""
    import torch

    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def splits(content: dict[str, Any], n_splits: int = 6, seed: int = 0) -> dict[str, Any]:
    """Splits by image, as published: lists of row numbers for train, val and test."""
    rng, dataset, result = np.random.default_rng(seed), content["dataset"], []
    images = np.array([trial["image"] for trial in dataset])
    labels = np.array([trial["label"] for trial in dataset])
    for _ in range(n_splits):
        part = {}
        for label in np.unique(labels):
            own = rng.permutation(np.unique(images[labels == label]))
            n_held = max(1, len(own) // 6)
            part |= dict.fromkeys(own[:n_held], "test")
            part |= dict.fromkeys(own[n_held : 2 * n_held], "val")
            part |= dict.fromkeys(own[2 * n_held :], "train")
        parts = np.array([part[image] for image in images])
        result.append({k: np.flatnonzero(parts == k).tolist() for k in ("train", "val", "test")})
    return {"splits": result}


def write_image_order(path: Path, content: dict[str, Any]) -> Path:
    """Images in the order of presentation: class after class, as `eeg_imagenet` names them."""
    path.write_text("".join(f"{name}.JPEG\n" for name in content["images"]), encoding="utf-8")
    return path


def write_pictures(folder: Path, names: list[str], nested: bool = True, size: int = 8) -> None:
    """Small pictures, ``<wnid>/<name>.JPEG`` or all in one folder."""
    from PIL import Image

    for number, name in enumerate(names):
        place = folder / name.split("_")[0] if nested else folder
        place.mkdir(parents=True, exist_ok=True)
        color = (number * 37 % 256, number * 91 % 256, 128)
        Image.new("RGB", (size, size), color).save(place / f"{name}.JPEG")


def things(
    n_images: int = 12,
    n_repetitions: int = 4,
    n_chans: int = 17,
    n_times: int = 100,
    sfreq: float = 100.0,
    extra_times: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Content of a THINGS-EEG2 file; ``extra_times`` 50 at 250 Hz is the form of NICE and ATM."""
    from mne.channels import make_standard_montage

    rng = np.random.default_rng(seed)
    shape = (n_images, n_repetitions, n_chans, n_times)
    names = make_standard_montage("biosemi64").ch_names
    first = -0.2 if extra_times or n_times == 100 else 0.0
    return {
        "preprocessed_eeg_data": rng.standard_normal(shape),
        "ch_names": names[-n_chans:],
        "times": first + np.arange(n_times + extra_times) / sfreq,
    }


def write_things(path: Path, content: Any, form: str = "numpy") -> Path:
    """Save with ``np.save`` (a 0-d array around the dict) or with ``pickle.dump``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "numpy":
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def write_image_metadata(path: Path, concepts: list[str], images_per_concept: int) -> Path:
    """Lists of images and concepts, the same for training and test."""
    folders = [f"{n + 1:05d}_{c.replace(' ', '_')}" for n, c in enumerate(concepts)]
    letters = "bcdefghijklmnopqrstuvw"
    lists = {
        "img_files": [
            f"{f[6:]}_{n // 10 + 1:02d}{letters[n % 10]}.jpg"
            for f in folders for n in range(images_per_concept)
        ],
        "img_concepts": [f for f in folders for _ in range(images_per_concept)],
    }  # fmt: skip
    content = {f"{part}_{key}": v for part in ("train", "test") for key, v in lists.items()}
    np.save(path, content, allow_pickle=True)
    return path


def write_full_things(path: Path, shape: tuple[int, ...] = (16540, 4, 63, 250)) -> Path:
    """A file of full size, written piece by piece: never more than a few megabytes in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = things(1, shape[1], shape[2], shape[3], 250.0, 50)
    content = pickle.dumps(small | {"preprocessed_eeg_data": _Huge(shape)}, protocol=3)
    before, after = content.split(b"C" + bytes([len(_Huge.mark)]) + _Huge.mark)
    left = 8 * int(np.prod(shape))
    piece = np.random.default_rng(0).standard_normal(2**21).tobytes()
    with open(path, "wb") as file:
        file.write(before + pickle.BINBYTES8 + struct.pack("<Q", left))
        while left:
            left -= file.write(piece[:left])
        file.write(after)
    return path


class _Huge:
    """Pickles like an array of doubles, with a mark where the numbers go."""

    mark = b"numbers"

    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape

    def __reduce__(self) -> tuple:
        function, arguments, state = np.zeros(1).__reduce__()
        return function, arguments, (*state[:1], self.shape, *state[2:4], self.mark)
