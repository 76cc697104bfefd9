"""Measure reconstructed pictures, with their controls beside them (chapter 7).

Whoever draws from a class prompt should know that every score of such pictures is a function of
how often the class was right. So no score stands alone here: beside the pictures drawn from the
predicted class stand pictures drawn from the true class, the ceiling of that route, and pictures
drawn from a random class, its floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas
from scipy import stats

from eeglib.profile import EvaluationSettings, PictureSettings
from eeglib.reconstruction import picture_scores as scores
from eeglib.reconstruction.picture_backbones import Backbone, Output, load_backbone, resized
from eeglib.reconstruction.pictures import PictureError, as_pictures, check_pairs

CONTROLS = ("true label", "predicted label", "random label")
"""Names of the sets of pictures that belong side by side: ceiling, result, floor."""

N_PAIRINGS = 2
"""Wrong pairings from which the pixel scores' chance is computed."""

COLUMNS = ("metric", "value", "chance", "better", "n", "low", "high", "bias", "backbone")


def load_backbones(settings: PictureSettings, device: str = "cpu") -> list[Backbone]:
    """Load the networks that the settings name.

    Raises
    ------
    BackboneError
        If one cannot be had.
    """
    return [load_backbone(name, settings.weights, device=device) for name in settings.backbones]


def measure(
    true: Sequence,
    generated: Sequence,
    backbones: Sequence[Backbone],
    settings: PictureSettings,
    evaluation: EvaluationSettings | None = None,
    seed: int = 0,
    true_names: Sequence[str] | None = None,
    generated_names: Sequence[str] | None = None,
) -> pandas.DataFrame:
    """Measure one set of generated pictures against the true ones.

    Parameters
    ----------
    true, generated : sequence of pictures
        In the same order; see `as_pictures`.
    backbones : sequence of Backbone
        From `load_backbones`.
    settings : PictureSettings
    evaluation : EvaluationSettings | None
        Draws and confidence of the intervals.
    seed : int
        Of the bootstrap and of random pairings.
    true_names, generated_names : sequence of str | None
        See `check_pairs`.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. ``better`` is ``higher`` or ``lower``; ``n`` counts pictures.
        ``chance`` is what the same pictures score when each is paired with a wrong true picture;
        sets know no pairs, so that Inception score, FID and KID have none: their floor is the
        control with random labels. ``bias`` is the jackknife's estimate of how much the value is
        too high because n is small (below 0: too low).

    Notes
    -----
    Intervals: for scores of pairs the percentile bootstrap over pictures; for scores of sets the
    value and its jackknife error, see `eeglib.reconstruction.picture_scores.jackknife`.
    """
    sets = {"generated": generated}
    table = _measure_sets(
        true,
        sets,
        backbones,
        settings,
        evaluation or EvaluationSettings(),
        seed,
        true_names,
        generated_names,
    )
    return table.drop(columns="pictures")


def with_controls(
    true: Sequence,
    sets: Mapping[str, Sequence],
    backbones: Sequence[Backbone],
    settings: PictureSettings,
    evaluation: EvaluationSettings | None = None,
    seed: int = 0,
    true_names: Sequence[str] | None = None,
    generated_names: Sequence[str] | None = None,
) -> pandas.DataFrame:
    """Measure pictures beside their ceiling and their floor.

    Parameters
    ----------
    true : sequence of pictures
    sets : mapping of str to sequence of pictures
        One set for each of `CONTROLS`, and any others; all in the order of `true`.
    backbones, settings, evaluation, seed, true_names, generated_names
        As in `measure`.

    Returns
    -------
    pandas.DataFrame
        What `measure` gives for each set, with the column ``pictures`` for the set's name, the
        sets of one metric below each other.

    Raises
    ------
    PictureError
        If a control is missing, or as in `check_pairs`.
    """
    missing = [name for name in CONTROLS if name not in sets]
    if missing:
        raise PictureError(
            f"A score needs its controls beside it; missing: {', '.join(missing)}. Draw pictures "
            "from these labels with the same model, steps and seeds."
        )
    return _measure_sets(
        true,
        sets,
        backbones,
        settings,
        evaluation or EvaluationSettings(),
        seed,
        true_names,
        generated_names,
    )


def score_table(table: pandas.DataFrame) -> pandas.DataFrame:
    """Scores to read: a row per score, a column per control, with interval, chance, bias and n.

    Parameters
    ----------
    table : pandas.DataFrame
        From `with_controls`.

    Returns
    -------
    pandas.DataFrame
        Cells read ``value [low, high]``. ``chance`` and ``bias`` are those of the predicted label.
    """
    rows = {}
    for metric, of_metric in table.groupby("metric", sort=False):
        sets = of_metric.set_index("pictures")
        own = sets.loc[CONTROLS[1]]
        cells = {
            name: f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
            for name, row in zip(CONTROLS, sets.loc[list(CONTROLS)].itertuples(), strict=True)
        }
        chance = "" if np.isnan(own["chance"]) else f"{own['chance']:.3f}"
        bias = f"{own['bias']:+.3f}" if own["bias"] else ""
        rows[metric] = cells | {
            "chance": chance,
            "better": own["better"],
            "bias": bias,
            "n": int(own["n"]),
        }
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("score")


def expected_from_accuracy(
    table: pandas.DataFrame, accuracy: float, chance: float
) -> pandas.DataFrame:
    """What the controls and the accuracy alone would give for the predicted label.

    Parameters
    ----------
    table : pandas.DataFrame
        From `with_controls`.
    accuracy : float
        Share of the pictures drawn from the right class.
    chance : float
        The same for random labels: 1 / number of classes.

    Returns
    -------
    pandas.DataFrame
        One row per score of pairs: ``metric, expected, measured, low, high, n``.

    Notes
    -----
    A class prompt knows nothing but the class: a picture of the right class scores on average what
    the true label's pictures score, ``c``, and one of another class what a wrong class scores.
    With ``f`` for random labels the expected score is ``f + (a - chance) / (1 - chance) (c - f)``,
    as far as the wrong classes are wrong at random.
    """
    share = (accuracy - chance) / (1 - chance)
    rows = []
    for metric, of_metric in table[table["chance"].notna()].groupby("metric", sort=False):
        sets = of_metric.set_index("pictures")
        ceiling, found, floor = (sets.loc[name] for name in CONTROLS)
        expected = floor["value"] + share * (ceiling["value"] - floor["value"])
        rows.append((metric, expected, found["value"], found["low"], found["high"], found["n"]))
    columns = ["metric", "expected", "measured", "low", "high", "n"]
    return pandas.DataFrame(rows, columns=columns).set_index("metric")


# --- tables -----------------------------------------------------------------------------------


def _measure_sets(
    true, sets, backbones, settings, evaluation, seed, true_names, generated_names
) -> pandas.DataFrame:
    true = as_pictures(true, "true pictures")
    checked = {name: as_pictures(given, f"{name} pictures") for name, given in sets.items()}
    for name, pictures in checked.items():
        try:
            check_pairs(true, pictures, true_names, generated_names)
        except PictureError as error:
            raise PictureError(f"Set {name!r}: {error}") from None
    rows = Rows(evaluation, seed)
    small_true = _small(true)
    for name, pictures in checked.items():
        rows.pixels(name, small_true, _small(pictures))
    for backbone in backbones:
        features = backbone.describe(true, settings.batch_size)
        for name, pictures in checked.items():
            found = backbone.describe(pictures, settings.batch_size)
            for key, output in backbone.outputs.items():
                rows.features(name, backbone.name, output, features[key], found[key], settings)
    table = pandas.DataFrame(rows.found, columns=["pictures", *COLUMNS])
    order = {metric: i for i, metric in enumerate(dict.fromkeys(table["metric"]))}
    return table.sort_values("metric", key=lambda m: m.map(order), kind="stable", ignore_index=True)


class Rows:
    """Rows of a table, with intervals, as scores are added; used by `measure`."""

    def __init__(self, evaluation: EvaluationSettings, seed: int) -> None:
        self.evaluation, self.seed = evaluation, seed
        self.found: list[tuple] = []

    def pixels(self, pictures: str, true: np.ndarray, generated: np.ndarray) -> None:
        """Add PixCorr and SSIM."""
        wrong = _wrong_pairings(len(true), self.seed)
        for metric, score in (
            ("PixCorr", scores.pixel_correlation),
            ("SSIM", scores.structural_similarity),
        ):
            chance = np.mean([score(true, generated[other]) for other in wrong])
            self._pairs(pictures, metric, score(true, generated), chance, "higher", "pixels")

    def features(
        self, pictures: str, backbone: str, output: Output,
        true: np.ndarray, generated: np.ndarray, settings: PictureSettings,
    ) -> None:  # fmt: skip
        """Add the scores that an output serves."""
        title = output.title
        for kind in output.scores:
            if kind == "n-way":
                n_way = settings.n_way
                values = scores.n_way_accuracy(
                    true, generated, n_way, settings.top_k, settings.n_draws, self.seed
                )
                metric, chance = f"{n_way}-way top-{settings.top_k}", settings.top_k / n_way
                self._pairs(pictures, f"{metric}{_own(title)}", values, chance, "higher", backbone)
            elif kind == "two-way":
                values = scores.two_way_identification(true, generated)
                self._pairs(pictures, f"{title} two-way", values, 0.5, "higher", backbone)
            elif kind in PAIR_SCORES:
                score, better = PAIR_SCORES[kind]
                chance = _chance(score, true, generated)
                self._pairs(
                    pictures, f"{title} {kind}", score(true, generated), chance, better, backbone
                )
            else:
                self._set(pictures, kind, _own(title), true, generated, backbone)

    def _pairs(self, pictures, metric, values, chance, better, backbone) -> None:
        rng = np.random.default_rng(self.seed)
        n, tail = len(values), (1 - self.evaluation.confidence) / 2
        drawn = rng.integers(0, n, (self.evaluation.n_bootstrap, n))
        low, high = np.quantile(values[drawn].mean(axis=1), [tail, 1 - tail])
        self.found.append(
            (pictures, metric, float(values.mean()), float(chance), better, n, float(low),
             float(high), 0.0, backbone)
        )  # fmt: skip

    def _set(self, pictures, kind, own, true, generated, backbone) -> None:
        metric, better, score = SET_SCORES[kind]

        def statistic(kept: np.ndarray) -> float:
            return score(true[kept], generated[kept])

        n = len(true)
        value = statistic(np.arange(n))
        error = bias = np.nan
        if n > 2:
            error, bias = scores.jackknife(statistic, n, seed=self.seed)
        reach = error * stats.norm.ppf((1 + self.evaluation.confidence) / 2)
        self.found.append(
            (pictures, metric + own, value, np.nan, better, n, value - reach, value + reach,
             bias, backbone)
        )  # fmt: skip


PAIR_SCORES = {
    "similarity": (scores.cosine_similarity, "higher"),
    "distance": (scores.correlation_distance, "lower"),
}
SET_SCORES = {
    "inception-score": ("Inception score", "higher", lambda _, b: scores.inception_score(b)),
    "fid": ("FID", "lower", scores.frechet_distance),
    "kid": ("KID", "lower", scores.kernel_distance),
}


# --- pieces -----------------------------------------------------------------------------------


def _own(title: str) -> str:
    """What marks a score that is not the published one: the network in brackets."""
    return f" [{title}]" if title else ""


def _chance(score, true: np.ndarray, generated: np.ndarray) -> float:
    """Mean over all wrong pairings."""
    n = len(true)
    shifted = [score(true, np.roll(generated, k, axis=0)).mean() for k in range(1, n)]
    return float(np.mean(shifted))


def _wrong_pairings(n: int, seed: int) -> list[np.ndarray]:
    """Random orders in which no picture keeps its place."""
    around = np.random.default_rng(seed).permutation(n)
    found = []
    for shift in range(1, min(n, N_PAIRINGS + 1)):
        order = np.empty(n, dtype=int)
        order[around] = np.roll(around, shift)
        found.append(order)
    return found


def _small(pictures: list[np.ndarray]) -> np.ndarray:
    """All pictures at the size at which pixels are compared, float32 in [0, 1]."""
    import torch

    return np.stack(
        [
            resized(values.permute(2, 0, 1)[None].float() / 255, scores.SIDE)[0].permute(1, 2, 0)
            for values in map(torch.tensor, pictures)
        ]
    )
