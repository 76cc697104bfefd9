"""What a teacher adds: the same student with other teachers, alphas and temperatures (chapter 5).

Three things may make it better: the teacher knows which classes look alike, its targets are merely
soft, or the seed was lucky. Each control takes one away.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas
from scipy import optimize, special

from eeglib.decoding.training import fit, fit_seeds, predict
from eeglib.evaluation import bootstrap_interval

ALONE = "labels only"
TEACHER = "CLIP teacher"


def rival_teachers(logits: np.ndarray, labels: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Teachers that lack one thing each that the real one has, by name: float32 as `logits`.

    ``shuffled classes``: what the teacher says about each wrong class goes to another wrong class,
    the same one for all images of a class; as sure as the real one, but its likenesses are false.
    Left out for 2 classes, of which only one is wrong. ``random targets``: each trial hears what
    the teacher said about a trial drawn at random; as soft, but about nothing. ``label smoothing``:
    the true class, and the same little for every other; as soft, but knows no likenesses.
    """
    logits = np.asarray(logits, dtype=np.float64)
    n_trials, n_classes = logits.shape
    rng = np.random.default_rng(seed)
    rivals = {}
    if n_classes > 2:
        shuffled = rivals["shuffled classes"] = logits.copy()
        for label in np.unique(labels):
            others = np.roll(rng.permutation(np.delete(np.arange(n_classes), label)), 1)
            order = np.empty(n_classes, dtype=int)
            order[label], order[np.roll(others, 1)] = label, others  # no wrong class stays
            shuffled[labels == label] = logits[labels == label][:, order]
    rivals["random targets"] = logits[rng.permutation(n_trials)]
    # The logit of the true class, 0 for others, that leaves targets of the same mean entropy.
    true = np.eye(n_classes)[labels]
    entropy = np.clip(mean_entropy(logits), 1e-9, np.log(n_classes) - 1e-9)
    height = optimize.brentq(lambda height: mean_entropy(height * true[:1]) - entropy, 0, 50)
    rivals["label smoothing"] = height * true
    return {name: values.astype(np.float32) for name, values in rivals.items()}


def mean_entropy(logits: np.ndarray) -> float:
    """Mean entropy of the softmax of logits (n_trials, n_classes), in nats."""
    return float(special.entr(special.softmax(logits, axis=1)).sum(axis=1).mean())


def train_with_teachers(
    build_network, inputs, labels, split, teachers, seeds, **training
) -> dict[str, np.ndarray]:
    """Probabilities of the test trials by teacher, each (n_seeds, n_test_trials, n_classes).

    Arguments as in `eeglib.decoding.training.fit`; `teachers` holds the logits of each, None where
    the labels alone teach. For each seed the networks start from the same weights.
    """
    problem, test = (build_network, inputs, labels, split), inputs[split.test]
    predictions = {}
    for name, logits in teachers.items():
        trained = fit_seeds(*problem, teacher_logits=logits, seeds=seeds, **training)
        predictions[name] = np.stack([predict(one.network, test) for one in trained])
    return predictions


def gains(
    predictions: Mapping[str, np.ndarray], labels: np.ndarray, **bootstrap: float
) -> pandas.DataFrame:
    """Accuracy under each teacher, and its gain over the labels alone.

    Takes what `train_with_teachers` gave, `ALONE` among it. The interval is a bootstrap over trials
    and seeds: a seed's network is compared with the one that started from the same weights alone.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``teacher``: ``accuracy`` (mean over seeds), ``sd_seeds`` (NaN for one seed),
        ``gain``, ``low``, ``high``, ``chance``, ``n`` (trials), ``n_seeds``.
    """
    hits = {name: p.argmax(axis=2) == labels for name, p in predictions.items()}
    n_seeds, n_trials = hits[ALONE].shape
    rows = {}
    for name, hit in hits.items():
        gain = hit.astype(float) - hits[ALONE]
        gain = gain.repeat(2, axis=0) if n_seeds == 1 else gain  # one seed can only be drawn again

        def mean(seeds, trials, axis=-1, gain=gain):
            return gain[seeds[..., np.newaxis], trials[..., np.newaxis, :]].mean(axis=(-2, -1))

        accuracies = pandas.Series(hit.mean(axis=1))
        found = bootstrap_interval(mean, *gain.shape, **bootstrap) if name != ALONE else (0.0,) * 3
        rows[name] = accuracies.mean(), accuracies.std(), *found
    columns = ["accuracy", "sd_seeds", "gain", "low", "high"]
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=columns)
    table = table.assign(chance=np.bincount(labels).max() / n_trials, n=n_trials, n_seeds=n_seeds)
    return table.rename_axis("teacher")


def verdict(table: pandas.DataFrame, teacher: str = TEACHER) -> str:
    """What the table of `gains` allows to say about a teacher, in a sentence."""
    row = table.loc[teacher]
    gain = f"{row['gain']:+.3f}, interval {row['low']:+.3f} to {row['high']:+.3f}"
    gain += f" ({int(row['n_seeds'])} seeds, {int(row['n'])} test trials)"
    if row["low"] <= 0 <= row["high"]:
        text = f"The teacher's gain in top-1 accuracy is {gain}: within the noise. These trials do"
        return f"{text} not show that the teacher helps, nor that it does not."
    text = f"The teacher changes top-1 accuracy by {gain}: more than the noise."
    rivals = table.drop(index=[teacher, ALONE])
    matched = rivals.index[rivals["gain"] >= row["low"]]
    if row["gain"] > 0 and len(matched):
        text += f" But so much is also gained with {' and '.join(matched)}."
    return text


def sweep(
    build_network, inputs, labels, split, teacher_logits, seeds, alphas, temperatures, **training
) -> pandas.DataFrame:
    """Change alpha, then T, and keep the rest; `training` holds the values that are kept.

    Columns ``parameter`` (alpha or T), ``value, seed, accuracy, chance, n``: accuracy on the
    *validation* trials, since whoever picks a setting by the test trials has used them up.
    """
    true = labels[split.validation]

    @cache  # the values of `training` themselves are in both lists
    def accuracy(alpha: float, temperature: float, seed: int) -> float:
        options = training | {"alpha": alpha, "temperature": temperature, "seed": seed}
        options["teacher_logits"] = teacher_logits
        network = fit(build_network, inputs, labels, split, **options).network
        return float((predict(network, inputs[split.validation]).argmax(axis=1) == true).mean())

    alpha, temperature = training["alpha"], training["temperature"]
    tried = [("alpha", value, value, temperature) for value in alphas]
    tried += [("T", value, alpha, value) for value in temperatures]
    rows = [(name, v, seed, accuracy(a, t, seed)) for name, v, a, t in tried for seed in seeds]
    table = pandas.DataFrame(rows, columns=["parameter", "value", "seed", "accuracy"])
    return table.assign(chance=np.bincount(true).max() / len(true), n=len(true))
