"""Is the particular image there, or only its class? Identification within classes (chapter 7).

Among images of one class, knowing the class is worth nothing: what is identified here is more
than any class prompt can hold. The test is fed by a regression from EEG to image embeddings, and
is itself tested on made-up trials in which the answer is known.
"""

from collections.abc import Sequence

import numpy as np
import pandas
from PIL import Image
from scipy import linalg, stats
from sklearn.covariance import LedoitWolf
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import GroupKFold

from eeglib.evaluation import mean_with_interval

PENALTIES = np.logspace(1, 7, 13)  # of the ridge regression: cross-validation chooses
SFREQ = 200.0  # of made-up trials, Hz
COLUMNS = ("metric", "value", "chance", "n", "low", "high", "p_value")


def two_way(similarity: np.ndarray) -> np.ndarray:
    """For each prediction (row) and image (column): how many of the other images are farther?

    Takes similarities; gives shares of the other images, of equally similar ones half. Where
    prediction i belongs to image i the diagonal holds the scores, whose mean is 0.5 by chance
    (Ozcelik and VanRullen, 2023, *Scientific Reports* 13, 15666, whose code counts ties as lost).
    """
    ranks = stats.rankdata(similarity.round(12), axis=1)
    return (ranks - 1) / (similarity.shape[1] - 1)


def identify_within_class(
    predicted: np.ndarray,
    embeddings: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    n_permutations: int = 2000,
    seed: int = 0,
) -> pandas.DataFrame:
    """Test whether predictions tell an image from others of its class.

    Takes what was predicted for *test* trials and the embeddings of their images, both of shape
    (n_trials, n_dims); both may be deviations from something that depends on the class alone. Near
    means a large cosine. Predictions for one image, by its name in `images`, are averaged.

    Gives a table with `COLUMNS`; rows ``within-class top-1`` (the image's own embedding is the
    nearest; chance: mean of 1 / images in the class) and ``within-class two-way`` (see `two_way`).
    ``n`` counts images of classes that have at least two; without one there are no rows. p-values
    come from exchanging images within classes, exact whatever the predictions are (Phipson and
    Smyth, 2010); intervals are Clopper-Pearson's and by bootstrap over images.
    """
    labels, names, both = np.asarray(labels), np.asarray(images), (predicted, embeddings)
    rng = np.random.default_rng(seed)
    scores, by_chance, sizes = [], np.zeros((n_permutations, 2)), []
    for label in np.unique(labels):
        own = labels == label
        pair = [pandas.DataFrame(x[own]).groupby(names[own]).mean() for x in both]
        n = len(pair[0])
        if n < 2:
            continue
        similarity = cosine_similarity(*pair).round(12)
        nearest = similarity == similarity.max(axis=1, keepdims=True)
        table = np.stack([nearest / nearest.sum(axis=1, keepdims=True), two_way(similarity)])
        scores.append(table.diagonal(axis1=1, axis2=2))
        sizes.append(n)
        exchanged = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
        by_chance += table[:, np.arange(n), exchanged].sum(axis=2).T
    if not sizes:
        return pandas.DataFrame(columns=COLUMNS)
    hits, wins = np.concatenate(scores, axis=1)
    n = len(hits)
    # A shared first place counts as a part of a hit, which no binomial interval allows for.
    exact = stats.binomtest(int(hits.sum().round(9)), n).proportion_ci(0.95)
    bootstrap = mean_with_interval(wins, floor=0, n_bootstrap=n_permutations, seed=seed)
    bounds = [(exact.low, exact.high), bootstrap[1:]]
    chances, rows = (len(sizes) / n, 0.5), []
    for i, (metric, values) in enumerate((("top-1", hits), ("two-way", wins))):
        as_good = np.sum(by_chance[:, i].round(9) >= values.sum().round(9))
        p_value = (1 + as_good) / (1 + n_permutations)
        rows.append((f"within-class {metric}", values.mean(), chances[i], n, *bounds[i], p_value))
    return pandas.DataFrame(rows, columns=COLUMNS)


def find_images(
    trials: np.ndarray,
    sfreq: float,
    embeddings: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    train: np.ndarray,
    test: np.ndarray,
    seed: int = 0,
) -> pandas.DataFrame:
    """Predict where within its class an image lies, and test the prediction.

    What is predicted from, and how: `noise_whitener`, `trial_features`, `predict_deviations`.
    Takes trials of shape (n_trials, n_chans, n_times) in any unit, `sfreq` in Hz, embeddings of
    shape (n_trials, n_dims); `train` and `test` are rows, no image in both. Gives the table of
    `identify_within_class`, the class of each test trial taken as known.
    """
    labels, names = np.asarray(labels), np.asarray(images)
    if common := set(names[train]) & set(names[test]):
        raise ValueError(f"{len(common)} images are in training and test. Split by image.")
    whitener = noise_whitener(trials[train], labels[train]).astype(np.float32)
    X = trial_features(np.matmul(whitener, np.asarray(trials, dtype=np.float32)), sfreq)
    test = np.asarray(test)[np.isin(labels[test], labels[train])]
    known = X[train], embeddings[train], labels[train], names[train]
    predicted = predict_deviations(*known, X[test], labels[test])
    true = embeddings[test] - _class_means(embeddings[train], labels[train], labels[test])
    return identify_within_class(predicted, true, labels[test], names[test], seed=seed)


def noise_whitener(trials: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mixture of channels that makes noise white (Guggenmos et al., 2018, *NeuroImage* 173)."""
    # Samples that follow each other are alike; 20,000 of them give the same covariance.
    step = max(1, len(trials) * trials.shape[-1] // 20_000)
    trials = np.asarray(trials[..., ::step], dtype=np.float64)
    noise = [x - x.mean(axis=0) for x in (trials[labels == label] for label in np.unique(labels))]
    samples = np.concatenate(noise).swapaxes(1, 2).reshape(-1, trials.shape[1])
    values, vectors = np.linalg.eigh(LedoitWolf().fit(samples).covariance_)
    # A flat channel stays flat; it is not blown up.
    root = np.where(values > 1e-12 * values.max(), values, np.inf) ** -0.5
    return (vectors * root) @ vectors.T


def trial_features(trials: np.ndarray, sfreq: float, window: float = 0.04) -> np.ndarray:
    """Means over windows (s), which hold evoked responses, and log powers, which hold rhythms."""
    n_trials, n_chans, n_times = trials.shape
    length = round(window * sfreq)
    n_windows = n_times // length
    cut = trials[..., : n_windows * length].reshape(n_trials, n_chans, n_windows, length)
    power = np.log(np.maximum(np.mean(cut**2, axis=-1), np.finfo(np.float32).tiny))
    return np.concatenate([cut.mean(axis=-1), power], axis=1).reshape(n_trials, -1)


def predict_deviations(
    X: np.ndarray,
    Y: np.ndarray,
    labels: np.ndarray,
    images: Sequence[str],
    X_test: np.ndarray,
    labels_test: np.ndarray,
) -> np.ndarray:
    """Ridge regression from trials to how an image's embedding deviates from its class's mean.

    Features and embeddings enter as deviations from the mean of their class, so that neither the
    class nor what goes with it, such as drift between blocks, can help or choose the penalty.
    """
    # In cross-validation the means come from the folds that train: deviations from a mean that
    # includes the fold left out sum to zero with it and would predict it.
    penalty_errors = np.zeros(len(PENALTIES))
    for train, test in GroupKFold(5).split(X, groups=images):
        test = test[np.isin(labels[test], labels[train])]  # a class may lie in one fold alone
        part = (X[train], Y[train], labels[train])
        true = Y[test] - _class_means(Y[train], labels[train], labels[test])
        predicted = _ridge(*part, X[test], labels[test], PENALTIES)
        penalty_errors += [np.sum((true - of_penalty) ** 2) for of_penalty in predicted]
    best = PENALTIES[penalty_errors.argmin()]
    return _ridge(X, Y, labels, X_test, labels_test, [best])[0]


def _ridge(X, Y, labels, X_test, labels_test, penalties) -> list[np.ndarray]:
    """Deviations that ridge regression predicts, for each penalty; one decomposition for all."""
    deviations = X - _class_means(X, labels, labels)
    scale = deviations.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1)
    U, s, Vt = linalg.svd(deviations / scale, full_matrices=False)
    inputs = (X_test - _class_means(X, labels, labels_test)) / scale @ Vt.T
    targets = U.T @ (Y - _class_means(Y, labels, labels))
    return [inputs @ ((s / (s**2 + p))[:, np.newaxis] * targets) for p in penalties]


def _class_means(values: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The mean over the rows of a class, for each wanted label."""
    means = pandas.DataFrame(np.asarray(values, dtype=np.float64)).groupby(labels).mean()
    return means.loc[wanted].to_numpy()


def made_up_trials(
    pictures: Sequence[Image.Image], labels: np.ndarray, image_share: float, seed: int = 0
) -> np.ndarray:
    """Make up a trial for each picture: noise that channels share, and a response to its pixels.

    Of the response's variance over pictures, `image_share` (0 to 1) belongs to the single picture
    and not to its class, one of `labels`; its standard deviation is a fifth of the noise's.
    Gives an array of shape (n_pictures, 32 channels, 100 times at `SFREQ`), without unit.
    """
    rng = np.random.default_rng(seed)
    small = [p.convert("RGB").resize((8, 8), Image.Resampling.BOX) for p in pictures]
    pixels = np.stack([np.asarray(picture, dtype=float).ravel() for picture in small])
    of_class = _class_means(pixels, labels, labels)
    parts = [of_class - of_class.mean(axis=0), pixels - of_class]
    own_class, own_image = (part / part.std() for part in parts)
    drive = np.sqrt(1 - image_share) * own_class + np.sqrt(image_share) * own_image
    response = drive @ rng.standard_normal((drive.shape[1], 32 * 100)) / np.sqrt(drive.shape[1])
    noise = rng.standard_normal((32, 32)) @ rng.standard_normal((len(pictures), 32, 100))
    return 0.2 * response.reshape(noise.shape) + noise / np.sqrt(32)
