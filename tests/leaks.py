"""A check for every decoder: what it says of a test trial comes from that trial alone."""

import numpy as np

from eeglib.decoding.splits import Split


def assert_test_trials_teach_nothing(decode, trials, labels, split: Split, rtol=1e-5):
    """Neither the labels of test trials nor the other test trials change a prediction.

    Parameters
    ----------
    decode : callable
        ``decode(trials, labels)`` gives one prediction (array or number) per test trial.
    trials : array, shape (n_trials, n_chans, n_times)
    labels : array of int, shape (n_trials,)
    split : Split
    """
    rng, first = np.random.default_rng(0), split.test[0]
    others = trials.copy()
    noise = 10 * rng.standard_normal(others[split.test[1:]].shape)
    others[split.test[1:]] = noise + 5
    dealt = labels.copy()
    dealt[split.test] = np.roll(labels[split.test], 1)
    assert not np.array_equal(dealt, labels)
    before, after = np.asarray(decode(trials, labels)), np.asarray(decode(others, dealt))
    assert len(before) == len(split.test)
    np.testing.assert_allclose(after[0], before[0], rtol=rtol, atol=1e-7)
    assert not np.allclose(after[1:], before[1:])  # those that are noise now are seen to be
    assert first not in np.concatenate([split.training, split.validation])
