"""From what the student says to what the image model is told (chapter 7)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from eeglib.profile import ReconstructionSettings

Condition = Literal["top-1", "top-k", "mixture"]
"""What of the posterior is drawn; see `condition_prompts`."""


@dataclass(frozen=True)
class Mixture:
    """Several prompts whose text embeddings are averaged before the model sees them.

    Attributes
    ----------
    prompts : tuple of str
    weights : tuple of float
        Positive, summing to 1.
    """

    prompts: tuple[str, ...]
    weights: tuple[float, ...]

    def __str__(self) -> str:
        return " + ".join(
            f"{w:.2f} {text}" for text, w in zip(self.prompts, self.weights, strict=True)
        )


def prompt(class_name: str, template: str = "an image of a {class}") -> str:
    """Put the name of a class into a sentence, with the right article.

    Parameters
    ----------
    class_name : str
        Such as ``banana``. Underscores become spaces; control characters are left out.
    template : str
        ``{class}`` is replaced; an ``a`` or ``an`` before it is made to fit.

    Raises
    ------
    ValueError
        If the template has no ``{class}``, or the name has no letter or digit.

    Notes
    -----
    Section 3.3 of the paper: "an image of a" and the predicted class.
    """
    if "{class}" not in template:
        raise ValueError(
            f"reconstruction.prompt is {template!r}; it must contain {{class}}, such as "
            "'an image of a {class}'."
        )
    name = " ".join(re.sub(r"[\x00-\x1f\x7f_]+", " ", str(class_name)).split())
    if not re.search(r"\w", name):
        raise ValueError(f"A class needs a name with a letter or digit, got {class_name!r}.")
    article = "an" if name[0].lower() in "aeiou" else "a"
    return re.sub(r"\ban?(?= \{class\})", article, template).replace("{class}", name)


def condition_prompts(
    posterior: np.ndarray,
    class_names: Sequence[str],
    condition: Condition = "top-1",
    template: str = "an image of a {class}",
    top_k: int = 3,
    seed: int = 0,
) -> list[str | Mixture]:
    """Turn the probabilities of each trial into what the image model is told.

    Parameters
    ----------
    posterior : array, shape (n_trials, n_classes)
        Probabilities; each row sums to 1.
    class_names : sequence of str, length n_classes
    condition : "top-1" | "top-k" | "mixture"
        The most probable class, as in the paper; one of the `top_k` most probable, drawn with
        its probability; or a mixture of their prompts, weighted by their probabilities.
    template : str
        See `prompt`.
    top_k : int
        Classes that take part.
    seed : int
        Of the draw in ``top-k``.

    Returns
    -------
    list of str or Mixture, length n_trials

    Raises
    ------
    ValueError
        If the posterior is none, does not fit the names, or `top_k` is not in 1 ... n_classes.
    """
    posterior = check_posterior(posterior, len(class_names))
    if not 1 <= top_k <= len(class_names):
        raise ValueError(
            f"reconstruction.top_k must lie in 1 ... {len(class_names)}, the number of classes, "
            f"got {top_k}."
        )
    texts = [prompt(name, template) for name in class_names]
    if condition == "top-1":
        return [texts[label] for label in posterior.argmax(axis=1)]
    labels = np.argsort(-posterior, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(posterior, labels, axis=1)
    weights = weights / weights.sum(axis=1, keepdims=True)
    if condition == "top-k":
        rng = np.random.default_rng(seed)
        drawn = [rng.choice(row, p=w) for row, w in zip(labels, weights, strict=True)]
        return [texts[label] for label in drawn]
    if condition != "mixture":
        raise ValueError(f"condition must be top-1, top-k or mixture, got {condition!r}.")
    return [_mixture(texts, *row) for row in zip(labels, weights, strict=True)]


def prompts_of_sets(
    posterior: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    settings: ReconstructionSettings,
    seed: int = 0,
) -> dict[str, list[str | Mixture]]:
    """Prompts of the sets of pictures that belong side by side.

    Parameters
    ----------
    posterior : array, shape (n_trials, n_classes)
    labels : array of int, shape (n_trials,)
        True classes.
    class_names : sequence of str, length n_classes
    settings : ReconstructionSettings
        ``prompt`` and ``top_k``; fewer than `top_k` classes take part where there are fewer.
    seed : int
        Of the random labels and of the draw by the posterior.

    Returns
    -------
    dict of str to list
        ``true label``, ``predicted label`` and ``random label`` (any class, the true one
        included), then what else can be made of a posterior: ``one of top k`` and ``mixture of
        top k``.
    """
    n = len(class_names)
    k = min(settings.top_k, n)
    texts = [prompt(name, settings.prompt) for name in class_names]
    rng = np.random.default_rng(seed)

    def told(condition: Condition) -> list[str | Mixture]:
        return condition_prompts(posterior, class_names, condition, settings.prompt, k, seed)

    return {
        "true label": [texts[label] for label in labels],
        "predicted label": told("top-1"),
        "random label": [texts[label] for label in rng.integers(0, n, len(labels))],
        f"one of top {k}": told("top-k"),
        f"mixture of top {k}": told("mixture"),
    }


def set_of_condition(condition: Condition, sets: Sequence[str]) -> str:
    """Name of the set, among those of `prompts_of_sets`, that a profile's condition asks for."""
    beginning = {"top-1": "predicted", "top-k": "one of", "mixture": "mixture"}[condition]
    return next(name for name in sets if name.startswith(beginning))


def check_posterior(posterior: np.ndarray, n_classes: int) -> np.ndarray:
    """Refuse what cannot be the probabilities of classes.

    Parameters
    ----------
    posterior : array, shape (n_trials, n_classes)
    n_classes : int

    Returns
    -------
    array of float64, shape (n_trials, n_classes)

    Raises
    ------
    ValueError
        If the shape differs, or a row has a negative value, one that is not finite, or a sum
        other than 1.
    """
    posterior = np.asarray(posterior, dtype=np.float64)
    if posterior.ndim != 2 or posterior.shape[1] != n_classes:
        raise ValueError(
            f"A posterior must have shape (n_trials, {n_classes}), one column per class name, "
            f"got {posterior.shape}."
        )
    sums = posterior.sum(axis=1)
    bad = ~(np.isfinite(posterior).all(axis=1) & (posterior >= 0).all(axis=1))
    bad |= ~(np.abs(sums - 1) < 1e-3)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"{int(bad.sum())} of {len(posterior)} trials have no posterior: probabilities must "
            f"be at least 0 and sum to 1, those of trial {row} sum to {sums[row]:.4g} with a "
            f"smallest value of {posterior[row].min():.4g}. Were logits given? Then apply "
            "scipy.special.softmax."
        )
    return posterior


def embedded(pipeline: DiffusionPipeline, texts: Sequence[str | Mixture]) -> dict[str, Any]:
    """Text embeddings of prompts and mixtures, as arguments of a Stable Diffusion pipeline.

    Parameters
    ----------
    pipeline : diffusers.DiffusionPipeline
        With ``encode_prompt``: Stable Diffusion 1, 2 or XL.
    texts : sequence of str or Mixture

    Returns
    -------
    dict
        ``prompt_embeds``, tensor of shape (n_texts, n_tokens, n_features); for XL models also
        ``pooled_prompt_embeds``.

    Notes
    -----
    A mixture's embedding is the weighted mean of its prompts' embeddings, token by token. Text
    encoders never met such means in training: a mixture of two animals need not give an animal.
    """
    import torch

    mixtures = [t if isinstance(t, Mixture) else Mixture((t,), (1.0,)) for t in texts]
    distinct = list(dict.fromkeys(text for m in mixtures for text in m.prompts))
    with torch.no_grad():
        found = pipeline.encode_prompt(
            prompt=distinct,
            device=pipeline.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
    weights = torch.zeros(len(mixtures), len(distinct))
    for row, mixture in zip(weights, mixtures, strict=True):
        for text, weight in zip(mixture.prompts, mixture.weights, strict=True):
            row[distinct.index(text)] += weight
    names = {0: "prompt_embeds", 2: "pooled_prompt_embeds"}  # 1 and 3 are their negatives
    return {
        name: torch.einsum("md,d...->m...", weights.to(found[i]), found[i])
        for i, name in names.items()
        if i < len(found)
    }


def _mixture(texts: Sequence[str], labels: np.ndarray, weights: np.ndarray) -> Mixture:
    shares = [(texts[c], round(float(w), 4)) for c, w in zip(labels, weights, strict=True)]
    shares = [(text, share) for text, share in shares if share > 0]
    total = sum(share for _, share in shares)
    return Mixture(tuple(text for text, _ in shares), tuple(share / total for _, share in shares))
