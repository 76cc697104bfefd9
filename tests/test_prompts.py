"""What the image model is told: known answers, what is no posterior, mixtures of prompts."""

import numpy as np
import pytest

from eeglib.profile import ReconstructionSettings
from eeglib.reconstruction.prompts import (
    Mixture,
    check_posterior,
    condition_prompts,
    prompts_of_sets,
    set_of_condition,
)

NAMES = ["banana", "iron", "pizza", "African elephant"]
POSTERIOR = np.array([[0.6, 0.3, 0.1, 0.0], [0.0, 0.0, 0.0, 1.0]])


def test_the_most_probable_class_is_told():
    assert condition_prompts(POSTERIOR, NAMES) == [
        "an image of a banana", "an image of an African elephant",
    ]  # fmt: skip


def test_a_mixture_weighs_the_most_probable_by_their_probability():
    unsure, sure = condition_prompts(POSTERIOR, NAMES, "mixture", top_k=2)
    assert unsure.prompts == ("an image of a banana", "an image of an iron")
    assert unsure.weights == pytest.approx((2 / 3, 1 / 3), abs=1e-4)
    assert str(unsure) == "0.67 an image of a banana + 0.33 an image of an iron"
    assert sure == Mixture(("an image of an African elephant",), (1.0,))


def test_one_of_the_most_probable_is_drawn_as_often_as_it_is_probable():
    rows = np.tile(POSTERIOR[:1], (4000, 1))
    drawn = condition_prompts(rows, NAMES, "top-k", top_k=2, seed=1)
    assert drawn.count("an image of a banana") / 4000 == pytest.approx(2 / 3, abs=0.03)
    assert "an image of a pizza" not in drawn
    assert drawn == condition_prompts(rows, NAMES, "top-k", top_k=2, seed=1)
    assert drawn != condition_prompts(rows, NAMES, "top-k", top_k=2, seed=2)


@pytest.mark.parametrize(
    ("posterior", "message"),
    [
        ([[0.5, 0.2, 0.1, 0.1]], r"trial 0 sum to 0\.9"),
        ([[0.25] * 4, [3.0, -1.0, -1.0, 0.0]], "1 of 2 trials .* trial 1 .* smallest value of -1"),
        ([[np.nan, 1, 0, 0]], "sum to nan"),
        ([[0.5, 0.5]], r"shape \(n_trials, 4\)"),
        ([0.25] * 4, r"got \(4,\)"),
    ],
)
def test_what_is_no_posterior_is_refused(posterior, message):
    with pytest.raises(ValueError, match=message):
        check_posterior(np.array(posterior), 4)
    with pytest.raises(ValueError, match=message):
        condition_prompts(np.array(posterior), NAMES, "mixture")


def test_top_k_and_condition_are_checked():
    with pytest.raises(ValueError, match=r"top_k must lie in 1 \.\.\. 4"):
        condition_prompts(POSTERIOR, NAMES, "mixture", top_k=5)
    with pytest.raises(ValueError, match="top-1, top-k or mixture"):
        condition_prompts(POSTERIOR, NAMES, "best")


def test_the_sets_hold_ceiling_floor_and_what_else_a_posterior_gives():
    rows, labels = np.tile(POSTERIOR, (50, 1)), np.tile([1, 3], 50)
    settings = ReconstructionSettings(top_k=9)
    sets = prompts_of_sets(rows, labels, NAMES, settings, seed=3)
    names = ["true label", "predicted label", "random label", "one of top 4", "mixture of top 4"]
    assert list(sets) == names
    assert sets["true label"][:2] == ["an image of an iron", "an image of an African elephant"]
    assert sets["predicted label"] == condition_prompts(rows, NAMES)
    assert set(sets["random label"]) == {
        f"an image of {a} {n}" for a, n in zip(("a", "an", "a", "an"), NAMES, strict=True)
    }
    assert [set_of_condition(c, names) for c in ("top-1", "top-k", "mixture")] == [
        names[1], names[3], names[4],
    ]  # fmt: skip
