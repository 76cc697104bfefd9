"""Definitions of the picture scores: known answers, other implementations, chance."""

import numpy as np
import pytest
import torch
from scipy import linalg
from scipy.spatial.distance import correlation

from eeglib.reconstruction import picture_scores as scores


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_pixel_correlation_knows_identical_negative_unrelated_and_plain(rng):
    pictures = rng.random((4, 32, 32, 3))
    assert scores.pixel_correlation(pictures, 0.5 * pictures + 0.1) == pytest.approx(np.ones(4))
    assert scores.pixel_correlation(pictures, 1 - pictures) == pytest.approx(-np.ones(4))
    assert np.abs(scores.pixel_correlation(pictures, rng.random((4, 32, 32, 3)))).max() < 0.1
    assert scores.pixel_correlation(pictures, np.full_like(pictures, 0.3)) == pytest.approx(
        np.zeros(4)
    )


def test_structural_similarity_is_one_only_for_equal_pictures(rng):
    pictures = rng.random((3, 32, 32, 3)).astype(np.float32)
    assert scores.structural_similarity(pictures, pictures) == pytest.approx(np.ones(3))
    blurred = np.full_like(pictures, 0.5)
    assert scores.structural_similarity(pictures, blurred).max() < 0.1


def test_structural_similarity_by_its_formula_on_flat_pictures():
    """Without variance only the luminance term is left: (2ab + c) / (a^2 + b^2 + c)."""
    a, b, c = 0.2, 0.7, 0.01**2
    flat = [np.full((1, 16, 16, 3), value) for value in (a, b)]
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    assert scores.structural_similarity(*flat) == pytest.approx([expected], abs=1e-6)


def test_distance_and_similarity_of_features(rng):
    true, generated = rng.standard_normal((2, 6, 20))
    assert scores.correlation_distance(true, generated) == pytest.approx(
        [correlation(a, b) for a, b in zip(true, generated, strict=True)]
    )
    assert scores.correlation_distance(true, 2 * true + 5) == pytest.approx(np.zeros(6), abs=1e-12)
    assert scores.cosine_similarity(true, 3 * true) == pytest.approx(np.ones(6))
    assert scores.cosine_similarity(true, -true) == pytest.approx(-np.ones(6))


def test_two_way_identification_by_the_published_formula(rng):
    true = rng.standard_normal((30, 50))
    generated = true + 3 * rng.standard_normal((30, 50))
    r = np.corrcoef(true, generated)[:30, 30:]
    published = (r < np.diag(r)).sum(axis=0) / 29
    assert scores.two_way_identification(true, generated) == pytest.approx(published)
    assert scores.two_way_identification(true, true + 0.01).mean() == 1


def test_two_way_identification_of_permuted_pictures_is_one_half(rng):
    true = rng.standard_normal((40, 30))
    generated = true + rng.standard_normal((40, 30))
    draws = [
        scores.two_way_identification(true, generated[rng.permutation(40)]).mean()
        for _ in range(200)
    ]
    error = np.std(draws) / np.sqrt(len(draws))
    assert np.mean(draws) == pytest.approx(0.5, abs=4 * error)
    assert error < 0.01


def test_two_way_identification_gives_no_credit_to_one_picture_for_all(rng):
    true = rng.standard_normal((10, 8))
    same = np.tile(rng.standard_normal(8), (10, 1))
    assert scores.two_way_identification(true, same).mean() == pytest.approx(0.5)
    constant = np.ones((10, 8))
    assert scores.two_way_identification(true, constant).mean() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least 2"):
        scores.two_way_identification(true[:1], same[:1])


@pytest.mark.parametrize(("n_way", "top_k"), [(2, 1), (50, 1), (50, 5), (100, 1)])
def test_n_way_accuracy_of_unrelated_pictures_is_k_of_n(rng, n_way, top_k):
    true, generated = rng.standard_normal((2, 3000, 100))
    found = scores.n_way_accuracy(true, generated, n_way, top_k)
    error = found.std() / np.sqrt(len(found))
    assert found.mean() == pytest.approx(top_k / n_way, abs=4 * error)
    assert error < 0.02


def test_n_way_accuracy_of_a_classifier_that_says_nothing_is_exactly_chance(rng):
    true = rng.standard_normal((5, 1000))
    found = scores.n_way_accuracy(true, np.zeros((5, 1000)), n_way=50)
    assert found == pytest.approx(np.full(5, 1 / 50))


def test_n_way_accuracy_of_identical_pictures_is_one(rng):
    true = rng.standard_normal((5, 1000))
    assert (scores.n_way_accuracy(true, true) == 1).all()


def test_n_way_draws_converge_to_the_exact_mean(rng):
    true = rng.standard_normal((6, 60))
    generated = true + 2 * rng.standard_normal((6, 60))
    exact = scores.n_way_accuracy(true, generated, n_way=20, top_k=2)
    drawn = scores.n_way_accuracy(true, generated, n_way=20, top_k=2, n_draws=40_000, seed=1)
    assert drawn == pytest.approx(exact, abs=0.02)
    again = scores.n_way_accuracy(true, generated, 20, 2, n_draws=50, seed=1)
    assert (again == scores.n_way_accuracy(true, generated, 20, 2, n_draws=50, seed=1)).all()
    assert (again != scores.n_way_accuracy(true, generated, 20, 2, n_draws=50, seed=2)).any()


def test_n_way_exact_mean_by_drawing_classes_one_by_one(rng):
    """The definition word for word, against the hypergeometric shortcut."""
    true, generated = rng.standard_normal((2, 1, 12))
    label = true[0].argmax()
    others = np.delete(np.arange(12), label)
    wins = []
    for _ in range(20_000):
        picked = rng.choice(others, 4, replace=False)
        wins.append((generated[0, picked] > generated[0, label]).sum() < 1)
    assert scores.n_way_accuracy(true, generated, 5, 1)[0] == pytest.approx(np.mean(wins), abs=0.02)


@pytest.mark.parametrize(("n_way", "top_k"), [(11, 1), (5, 5), (1, 1), (5, 0)])
def test_n_way_refuses_impossible_choices(rng, n_way, top_k):
    logits = rng.standard_normal((2, 10))
    with pytest.raises(ValueError, match=r"1 <= top_k < n_way <= 10"):
        scores.n_way_accuracy(logits, logits, n_way, top_k)


def test_inception_score_at_its_limits():
    certain = 100 * np.eye(10).repeat(3, axis=0)
    assert scores.inception_score(certain) == pytest.approx(10, rel=1e-6)
    assert scores.inception_score(np.zeros((30, 10))) == pytest.approx(1)
    assert scores.inception_score(100 * np.eye(10)[[4] * 30]) == pytest.approx(1)


def gaussian_with(mean, covariance, n, rng):
    """n vectors whose mean and covariance are exactly the given ones."""
    drawn = rng.standard_normal((n, len(mean)))
    drawn -= drawn.mean(axis=0)
    whitened = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_two_gaussians_by_hand(rng):
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2."""
    a = gaussian_with(np.zeros(3), np.diag([1.0, 4.0, 9.0]), 50, rng)
    b = gaussian_with(np.array([1.0, 0.0, 2.0]), np.diag([4.0, 4.0, 1.0]), 60, rng)
    assert scores.frechet_distance(a, b) == pytest.approx(5 + 1 + 0 + 4)
    assert scores.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_full_covariances_by_the_matrix_root(rng):
    roots = rng.standard_normal((2, 4, 4))
    one, two = (r @ r.T + np.eye(4) for r in roots)
    a = gaussian_with(np.ones(4), one, 30, rng)
    b = gaussian_with(np.zeros(4), two, 30, rng)
    expected = 4 + np.trace(one + two - 2 * linalg.sqrtm(one @ two).real)
    assert scores.frechet_distance(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("n", [12, 200])
def test_frechet_distance_equals_torch_fidelity(rng, n):
    """With fewer pictures than features, too, where covariances are singular."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    a, b = rng.standard_normal((2, n, 40)) * np.linspace(0.5, 2, 40) + [[[0]], [[0.3]]]
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = fid_statistics_to_metric(*statistics, verbose=False)
    assert scores.frechet_distance(a, b) == pytest.approx(
        expected["frechet_inception_distance"], rel=1e-4
    )


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    same = [scores.kernel_distance(*rng.standard_normal((2, 8, 16))) for _ in range(2000)]
    error = np.std(same) / np.sqrt(len(same))
    assert np.mean(same) == pytest.approx(0, abs=4 * error)
    assert min(same) < 0
    a, b = rng.standard_normal((2, 100, 16))
    assert scores.kernel_distance(a, b + 1) > 10 * np.std(same)


def test_frechet_distance_is_biased_where_the_kernel_distance_is_not(rng):
    """What the chapter says about few pictures: the same two distributions, n small and large."""
    small = np.mean([scores.frechet_distance(*rng.standard_normal((2, 10, 16))) for _ in range(50)])
    large = scores.frechet_distance(*rng.standard_normal((2, 2000, 16)))
    assert small > 20 * large


def test_kernel_distance_by_its_definition(rng):
    a, b = rng.standard_normal((2, 5, 3))
    k = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    within = np.mean([k(a[i], a[j]) + k(b[i], b[j]) for i, j in pairs])
    across = np.mean([k(x, y) for x in a for y in b])
    assert scores.kernel_distance(a, b) == pytest.approx(within - 2 * across)


def test_jackknife_of_a_mean_is_the_textbook_standard_error(rng):
    values = rng.standard_normal(30)
    error, bias = scores.jackknife(lambda kept: values[kept].mean(), 30)
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(30))
    assert bias == pytest.approx(0, abs=1e-12)
    _, bias = scores.jackknife(lambda kept: values[kept].var(), 30)
    assert bias == pytest.approx(-values.var(ddof=1) / 30)


def test_jackknife_interval_of_the_kernel_distance_covers(rng):
    hits = 0
    for _ in range(100):
        a, b = rng.standard_normal((2, 60, 8))
        value = scores.kernel_distance(a, b)
        error, _ = scores.jackknife(
            lambda kept, a=a, b=b: scores.kernel_distance(a[kept], b[kept]), 60, n_groups=20
        )
        hits += abs(value) < 1.96 * error
    assert hits >= 85


@pytest.mark.parametrize(
    "score",
    [
        scores.cosine_similarity,
        scores.correlation_distance,
        scores.two_way_identification,
        scores.frechet_distance,
        scores.kernel_distance,
    ],
)
def test_features_that_are_none_are_refused(score):
    good = np.ones((3, 4))
    with pytest.raises(ValueError, match="shape"):
        score(np.ones(3), good)
    with pytest.raises(ValueError, match="NaN"):
        score(good, np.full((3, 4), np.nan))


def test_sets_of_one_picture_are_refused():
    one, two = np.ones((1, 4)), np.ones((2, 4))
    for score in (scores.frechet_distance, scores.kernel_distance):
        with pytest.raises(ValueError, match="at least 2"):
            score(two, one)
