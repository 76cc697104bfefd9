"""Drawings, captions and vocabulary on which the demo's models are trained."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from eeglib.datasets.stimuli import CLASSES, TRAINING_SEEDS, draw_stimulus
from eeglib.reconstruction.drawing import prompt

TEMPLATES = ("an image of a {class}", "a drawing of a {class}", "a picture of a {class}")
CONTEXT_LENGTH = 16
SIZE = 64


def training_drawings(per_class: int, first: int = 0, workers: int = 2) -> np.ndarray:
    """Draw images that no data set shows.

    Parameters
    ----------
    per_class : int
        Images of each of the 40 classes.
    first : int
        Number of the first seed after `TRAINING_SEEDS`; other numbers give other images.
    workers : int
        Processes.

    Returns
    -------
    array of uint8, shape (40, per_class, 64, 64, 3)
    """
    with ProcessPoolExecutor(workers) as pool:
        rows = pool.map(_draw_class, range(len(CLASSES)), [per_class] * 40, [first] * 40)
        return np.stack(list(rows))


def _draw_class(label: int, count: int, first: int) -> np.ndarray:
    seeds = range(TRAINING_SEEDS + first, TRAINING_SEEDS + first + count)
    return np.stack([np.asarray(draw_stimulus(label, seed, SIZE)) for seed in seeds])


def captions() -> list[list[str]]:
    """For each template, a caption for each of the 40 classes."""
    return [[prompt(c.name, template) for c in CLASSES] for template in TEMPLATES]


def save_tokenizer(folder: str | Path) -> int:
    """Write a CLIP tokenizer with a small vocabulary of its own; return the vocabulary's size.

    Byte-pair merges are learnt from the captions alone; words that never occurred are spelt
    byte by byte, so that any text is valid input.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1000, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator([text for row in captions() for text in row], trainer)
    merges = [
        tuple(pair) if not isinstance(pair, str) else tuple(pair.split(" "))
        for pair in json.loads(learner.to_str())["model"]["merges"]
    ]
    # CLIP looks for the end of the text at the largest token number, so that it comes last.
    tokens = alphabet + [a + "</w>" for a in alphabet] + ["".join(pair) for pair in merges]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)
    tokenizer.save_pretrained(str(folder))
    return len(vocabulary)
