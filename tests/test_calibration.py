"""Temperatures that are known are found; the calibration error by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from eeglib.decoding.calibration import (
    Calibrated,
    calibrated,
    expected_calibration_error,
    fit_temperature,
)
from eeglib.decoding.teacher import softmax


def drawn(n_trials=20_000):
    """Logits, and labels drawn from what they say."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((n_trials, 5))
    ranks = np.cumsum(softmax(logits), axis=1)
    return logits, (rng.random((n_trials, 1)) > ranks).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(temperature):
    logits, labels = drawn()
    found = fit_temperature(softmax(logits * temperature), labels)
    assert found == pytest.approx(temperature, rel=0.03)


def test_calibration_lowers_the_error_and_changes_no_ranking():
    logits, labels = drawn(5000)
    sure = softmax(3 * logits)
    network = calibrated(nn.Identity(), sure, labels)
    after = torch.softmax(network(torch.as_tensor(np.log(sure))), dim=1).numpy()
    assert expected_calibration_error(sure, labels) > 0.1
    assert expected_calibration_error(after, labels) < 0.03
    np.testing.assert_array_equal(after.argsort(axis=1), sure.argsort(axis=1))


def test_a_temperature_divides_the_logits():
    logits = torch.randn(3, 4)
    torch.testing.assert_close(Calibrated(nn.Identity(), 2.0)(logits), logits / 2)


def test_the_calibration_error_by_hand():
    # Confidences 0.9 (right, wrong), 0.6 (right), and 1.0 (right) in bins of a tenth.
    probabilities = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.0, 1.0]])
    labels = np.array([0, 0, 0, 1])
    # 0.9 and 1.0 share the last bin: |2.8 - 2| + |0.6 - 1|, over 4 trials.
    assert expected_calibration_error(probabilities, labels, 10) == pytest.approx(1.2 / 4)
    assert expected_calibration_error(np.eye(2)[labels], labels) == 0
    # 0.9 -> bin 9, 1.0 -> bin 9; with 5 bins 0.6 is alone in its bin too.
    assert expected_calibration_error(probabilities, labels, 1) == pytest.approx(0.4 / 4)


def test_impossible_certainty_has_a_finite_temperature():
    assert 0.05 <= fit_temperature(np.eye(3), np.array([0, 1, 1])) <= 20
