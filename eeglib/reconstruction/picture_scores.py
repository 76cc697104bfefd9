"""How alike pictures are, as numbers: every definition used in chapter 7, arrays in, arrays out.

Scores of a pair (one number per picture) say how much of *this* picture came through; scores of
a set (one number in all) say whether the pictures look like pictures. What the features are is
the business of `eeglib.reconstruction.picture_backbones`; tables with intervals are built in
`eeglib.reconstruction.image_metrics`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

SIDE = 425
"""Height and width at which pixels are compared, as in the papers that introduced the scores."""


# --- pairs, by pixels -------------------------------------------------------------------------


def pixel_correlation(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """PixCorr: correlation of the pixels of each pair of pictures.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, height, width, 3)
        Values in [0, 1] or [0, 255]; only their linear relation counts.

    Returns
    -------
    array, shape (n_pictures,)
        Pearson's r in [-1, 1]; 0 where a picture has one colour only.

    Notes
    -----
    Ozcelik and VanRullen (2023), *Scientific Reports* 13, 15666: all pixels and colours as one
    vector, pictures at 425 x 425 pixels (`SIDE`).
    """
    return _row_correlation(_flat(true), _flat(generated))


def structural_similarity(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """SSIM of the grey-scale versions of each pair of pictures.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, height, width, 3)
        Values in [0, 1]; at least 11 pixels a side.

    Returns
    -------
    array, shape (n_pictures,)
        In [-1, 1]; 1 for equal pictures.

    Notes
    -----
    Wang et al. (2004), *IEEE Transactions on Image Processing* 13, 600, with their Gaussian
    window (sigma 1.5 pixels) and population covariances, computed by scikit-image; pictures at
    425 x 425 pixels (`SIDE`) as in Ozcelik and VanRullen (2023).
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as ssim

    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return np.array(
        [
            ssim(rgb2gray(a), rgb2gray(b), data_range=1.0, **options)
            for a, b in zip(true, generated, strict=True)
        ]
    )


# --- pairs, by features -----------------------------------------------------------------------


def cosine_similarity(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the features of each pair; "CLIP similarity" with CLIP's.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, n_features)

    Returns
    -------
    array, shape (n_pictures,)
        In [-1, 1].
    """
    return np.sum(_unit(_checked(true)) * _unit(_checked(generated)), axis=1)


def correlation_distance(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """One minus the correlation of the features of each pair; lower is better.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, n_features)

    Returns
    -------
    array, shape (n_pictures,)
        In [0, 2]; 1 for unrelated features.

    Notes
    -----
    Ozcelik and VanRullen (2023) report it for EfficientNet-B1 and SwAV (ResNet-50), both after
    average pooling.
    """
    return 1 - _row_correlation(_checked(true), _checked(generated))


def two_way_identification(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """How often a generated picture is nearer to its true picture than to another true one.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, n_features)
        In the same order.

    Returns
    -------
    array, shape (n_pictures,)
        For each generated picture the share of the n_pictures - 1 others that its own true
        picture beats; their mean is the score. Chance is 0.5.

    Raises
    ------
    ValueError
        With fewer than two pictures.

    Notes
    -----
    Ozcelik and VanRullen (2023), as used for AlexNet(2), AlexNet(5), Inception and CLIP: near
    means correlated. A tie counts one half, where the published code counts it as lost; without
    ties both are the same.
    """
    true, generated = _standard(_checked(true)), _standard(_checked(generated))
    if len(true) < 2:
        raise ValueError("Two-way identification needs at least 2 pictures, got 1.")
    similarity = generated @ true.T
    own = similarity.diagonal()[:, np.newaxis]
    tied = np.abs(similarity - own) < 1e-12
    won = np.where(tied, 0.5, similarity < own)
    return (won.sum(axis=1) - 0.5) / (len(true) - 1)  # without the pair itself, which ties


def n_way_accuracy(
    true_logits: np.ndarray,
    generated_logits: np.ndarray,
    n_way: int = 50,
    top_k: int = 1,
    n_draws: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """N-way top-K accuracy: does a classifier see the true picture's class in the generated one?

    Parameters
    ----------
    true_logits, generated_logits : array, shape (n_pictures, n_classes)
        What a classifier of photographs (ImageNet's 1,000 classes) says about each picture.
    n_way : int
        Classes to choose from: that of the true picture and n_way - 1 others at random.
    top_k : int
        The class must be among the top_k of these.
    n_draws : int | None
        How often the others are drawn; papers say 50 (some code 40). None gives the exact mean
        over all possible draws, which needs no seed.
    seed : int
        Of the draws.

    Returns
    -------
    array, shape (n_pictures,)
        Share of draws won, in [0, 1]; chance is top_k / n_way.

    Raises
    ------
    ValueError
        If n_way exceeds the classifier's classes or top_k is not below n_way.

    Notes
    -----
    Chen et al. (2023), *CVPR*, "Seeing beyond the brain" (MinD-Vis). The true picture's class is
    the classifier's first choice for it. Let r other classes of C - 1 outrank it in the generated
    picture; the number of those among the n_way - 1 drawn is hypergeometric, and the exact mean
    is the probability that it is below top_k. Classes that tie count as ranked at random, so that
    a picture about which the classifier says nothing scores chance; in the published code the
    true class wins all ties.
    """
    true_logits, generated_logits = _checked(true_logits), _checked(generated_logits)
    n_classes = true_logits.shape[1]
    if not 1 <= top_k < n_way <= n_classes:
        raise ValueError(
            f"N-way top-K needs 1 <= top_k < n_way <= {n_classes} (the classifier's classes), "
            f"got n_way={n_way}, top_k={top_k}."
        )
    rows, label = np.arange(len(true_logits)), true_logits.argmax(axis=1)
    own = generated_logits[rows, label][:, np.newaxis]
    above = (generated_logits > own).sum(axis=1)
    tied = (generated_logits == own).sum(axis=1) - 1
    rng = np.random.default_rng(seed)
    return np.array(
        [
            _won(a, t, n_classes - 1, n_way - 1, top_k, n_draws, rng)
            for a, t in zip(above, tied, strict=True)
        ]
    )


def _won(above: int, tied: int, others: int, drawn: int, top_k: int, n_draws, rng) -> float:
    """Probability that fewer than top_k of the drawn classes outrank the true one."""
    ranks = np.arange(above, above + tied + 1)
    if n_draws is None:
        return float(stats.hypergeom.cdf(top_k - 1, others, ranks, drawn).mean())
    ranks = rng.choice(ranks, n_draws)
    return float(np.mean(rng.hypergeometric(ranks, others - ranks, drawn) < top_k))


# --- sets -------------------------------------------------------------------------------------


def inception_score(logits: np.ndarray) -> float:
    """Inception score of a set: each picture clearly of one class, the classes varied.

    Parameters
    ----------
    logits : array, shape (n_pictures, n_classes)
        Of the generated pictures.

    Returns
    -------
    float
        Between 1 and the smaller of n_pictures and n_classes.

    Notes
    -----
    Salimans et al. (2016), *NeurIPS*: the exponential of the mean Kullback-Leibler divergence of
    p(class | picture) from p(class), computed by torch-fidelity in one split. Published figures
    average ten splits of 5,000 pictures; with few pictures the score is too low, and sets of
    different sizes cannot be compared.
    """
    import torch
    from torch_fidelity.metric_isc import isc_features_to_metric

    features = torch.from_numpy(np.ascontiguousarray(_checked(logits)))
    result = isc_features_to_metric(features, splits=1, shuffle=False)
    return float(result["inception_score_mean"])


def frechet_distance(true: np.ndarray, generated: np.ndarray) -> float:
    """FID: Frechet distance between Gaussians fitted to the features of two sets.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, n_features)
        The sets may differ in size.

    Returns
    -------
    float
        0 for equal means and covariances.

    Raises
    ------
    ValueError
        With fewer than two pictures in a set.

    Notes
    -----
    Heusel et al. (2017), *NeurIPS*: ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. With
    ``S = A^T A`` the trace of the root is the nuclear norm of ``A1 A2^T``, which stays exact
    where there are fewer pictures than features and the covariances are singular.

    Too high by an amount that grows as pictures get fewer (Chong and Forsyth, 2020, *CVPR*):
    for 2,048 features and fewer than some 10,000 pictures the bias can exceed the distance.
    Compare only sets of the same size, and read the controls first.
    """
    true, generated = _checked(true), _checked(generated)
    roots = [_covariance_root(x) for x in (true, generated)]
    shift = np.sum((true.mean(axis=0) - generated.mean(axis=0)) ** 2)
    spread = sum(np.sum(root**2) for root in roots)
    common = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    return float(max(shift + spread - 2 * common, 0.0))


def kernel_distance(true: np.ndarray, generated: np.ndarray) -> float:
    """KID: squared maximum mean discrepancy between the features of two sets.

    Parameters
    ----------
    true, generated : array, shape (n_pictures, n_features)

    Returns
    -------
    float
        0 on average for two sets from one distribution, so that single values may be negative.

    Raises
    ------
    ValueError
        With fewer than two pictures in a set.

    Notes
    -----
    Binkowski et al. (2018), *ICLR*: kernel ``(x . y / n_features + 1)^3``, unbiased estimator,
    computed by torch-fidelity on all pictures at once, where published figures average 100
    subsets of 1,000. For independent sets it has no bias at any size; of pictures drawn for these
    very true ones it is too low by 2 / n of what a pair has in common. With few pictures it is
    above all uncertain: read the interval.
    """
    from torch_fidelity.metric_kid import kernel_mmd

    true, generated = _checked(true), _checked(generated)
    if min(len(true), len(generated)) < 2:
        raise ValueError("KID needs at least 2 pictures in each set.")
    options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_coef0": 1.0}
    return float(kernel_mmd(true, generated, kid_kernel_poly_gamma=None, **options))


def jackknife(
    statistic: Callable[[np.ndarray], float], n: int, n_groups: int = 40, seed: int = 0
) -> tuple[float, float]:
    """Standard error and bias of a statistic of a set, by leaving out one group at a time.

    Parameters
    ----------
    statistic : callable
        Takes the positions of the pictures to keep, an array of int.
    n : int
        Number of pictures.
    n_groups : int
        Groups to leave out in turn; each single picture where n is smaller.
    seed : int
        Of the division into groups.

    Returns
    -------
    error, bias : float

    Notes
    -----
    Efron and Tibshirani (1993), *An Introduction to the Bootstrap*, chapter 11. The bootstrap is
    no choice here: it repeats pictures, and repeated pictures look like a set of too little
    variety, which inflates all distances between sets.
    """
    groups = np.array_split(np.random.default_rng(seed).permutation(n), min(n, n_groups))
    everything = np.arange(n)
    left = np.array([statistic(np.delete(everything, group)) for group in groups])
    error = np.sqrt((len(left) - 1) * np.mean((left - left.mean()) ** 2))
    bias = (len(left) - 1) * (left.mean() - statistic(everything))
    return float(error), float(bias)


# --- pieces -----------------------------------------------------------------------------------


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(
            f"Features must have shape (n_pictures, n_features), got {features.shape}."
        )
    if not np.isfinite(features).all():
        raise ValueError("Features hold NaN or infinite values. Were the weights loaded?")
    return features


def _flat(pictures: np.ndarray) -> np.ndarray:
    pictures = np.asarray(pictures, dtype=np.float32)
    return pictures.reshape(len(pictures), -1)


def _standard(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    # What rounding leaves of a constant row is not a pattern.
    noise = np.linalg.norm(centred, axis=1) <= 1e-6 * np.linalg.norm(rows, axis=1)
    centred[noise] = 0
    return _unit(centred)


def _unit(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 1e-12)


def _row_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(_standard(a) * _standard(b), axis=1, dtype=np.float64)


def _covariance_root(features: np.ndarray) -> np.ndarray:
    """A matrix A with A^T A the covariance, of as few rows as possible."""
    if len(features) < 2:
        raise ValueError("FID needs at least 2 pictures in each set.")
    centred = features - features.mean(axis=0)
    root = np.linalg.qr(centred, mode="r") if len(centred) > centred.shape[1] else centred
    return root / np.sqrt(len(features) - 1)
