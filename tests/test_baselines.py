"""Every row learns a separable problem and is at chance on permuted labels."""

import mne
import numpy as np
import pandas
import pytest

from eeglib.decoding.methods import ROWS, BaselineError, fit_rows
from eeglib.decoding.splits import Split
from eeglib.decoding.teacher import Teacher
from eeglib.decoding.trial_features import power_features, window_features
from eeglib.profile import Profile

N_CLASSES, N_TRIALS, SFREQ = 3, 120, 250.0
LABELS = np.arange(N_TRIALS) % N_CLASSES
SPLIT = Split(np.arange(60), np.arange(60, 84), np.arange(84, 120))
PROFILE = Profile(
    name="test",
    timefrequency={"window": 0.08, "step": 0.04},
    training={
        "max_epochs": 20,
        "learning_rate": 1e-3,
        "batch_size": 12,
        "device": "cpu",
    },
)
LOGITS = 4 * np.eye(N_CLASSES)[LABELS]


def trials(strength=2.0):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((N_TRIALS, 6, 50))
    times = np.arange(50) / SFREQ
    data[np.arange(N_TRIALS), LABELS] += strength * (np.sin(2 * np.pi * 25 * times) + 0.5)
    return data


def features():
    rng = np.random.default_rng(1)
    return np.eye(8)[LABELS] * 3 + 0.2 * rng.standard_normal((N_TRIALS, 8))


@pytest.mark.parametrize("name", ROWS)
def test_a_separable_problem_is_learned_and_permuted_labels_are_not(name):
    right = []
    for order in (np.arange(N_TRIALS), np.random.default_rng(3).permutation(N_TRIALS)):
        found = ROWS[name].fit_predict(
            trials(), SFREQ, LABELS[order], SPLIT, PROFILE, LOGITS[order], features()[order]
        )
        assert found.shape == (36, N_CLASSES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
        right.append((found.argmax(axis=1) == LABELS[order][SPLIT.test]).mean())
    assert right[0] >= 0.85
    assert right[1] <= 0.55  # the 99.5th percentile of guessing is 0.53


@pytest.mark.parametrize("name", ["lr_power", "lr_windowed_pca", "cebra_knn", "cnn_stft"])
def test_test_labels_have_no_influence_and_seeds_work_both_ways(name):
    def found(labels, seed):
        return ROWS[name].fit_predict(
            trials(0.7),
            SFREQ,
            labels,
            SPLIT,
            PROFILE,
            LOGITS,
            features(),
            seed=seed,
            n_classes=N_CLASSES,
        )

    changed = LABELS.copy()
    changed[SPLIT.test] = 0
    np.testing.assert_array_equal(found(LABELS, 0), found(changed, 0))
    assert np.array_equal(found(LABELS, 0), found(LABELS, 1)) != ROWS[name].seeded


def test_the_table_has_the_papers_rows_in_its_order():
    assert list(ROWS) == [
        "lr_power",
        "lr_windowed",
        "lr_windowed_pca",
        "cebra_knn",
        "lstm",
        "conv1d",
        "distillation_eeg",
        "distillation_wavelet",
        "cnn_stft",
        "distillation_stft",
        "kernel_decoder",
        "source_decoder",
    ]
    assert [n for n, r in ROWS.items() if r.needs_teacher] == [
        "cebra_knn",
        "distillation_eeg",
        "distillation_wavelet",
        "distillation_stft",
    ]


def test_power_in_both_readings():
    times = np.arange(1000) / 1000
    data = np.stack([np.sin(2 * np.pi * 20 * times), 3 * np.sin(2 * np.pi * 20 * times)])[None]
    np.testing.assert_allclose(power_features(data), [[0.5, 4.5]], rtol=1e-5)
    np.testing.assert_allclose(
        power_features(data, "channels")[0], 5 * np.sin(2 * np.pi * 20 * times) ** 2, atol=1e-5
    )
    with pytest.raises(ValueError, match="times or channels"):
        power_features(data, "trials")


def test_windows_are_means_and_move_by_half_their_length():
    ramp = np.arange(240.0)[None, None]
    np.testing.assert_allclose(
        window_features(ramp, 1000)[0], [39.5, 79.5, 119.5, 159.5, 199.5], rtol=1e-6
    )
    assert window_features(ramp[..., :30], 1000).shape == (1, 1)


def epochs():
    info = mne.create_info(6, SFREQ, "eeg")
    metadata = pandas.DataFrame({"label": LABELS, "image": [f"i{n}" for n in range(N_TRIALS)]})
    return mne.EpochsArray(trials(), info, metadata=metadata, verbose=False)


def test_rows_without_a_teacher_are_left_out_and_seeds_averaged(caplog):
    profile = PROFILE.model_copy(
        update={"training": PROFILE.training.model_copy(update={"seeds": (0, 1)})}
    )
    names = ["lr_power", "cnn_stft", "distillation_stft"]
    found = fit_rows(names, epochs(), SPLIT, profile, n_classes=5)
    assert list(found) == ["lr_power", "cnn_stft"]
    assert "distillation_stft is left out" in caplog.text
    assert found["cnn_stft"].shape == (36, 5)
    parts = [
        ROWS["cnn_stft"].fit_predict(
            trials(), SFREQ, LABELS, SPLIT, profile, seed=seed, n_classes=5
        )
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(found["cnn_stft"], np.mean(parts, axis=0), atol=1e-6)
    teacher = Teacher(LOGITS, features(), pandas.DataFrame(), [])
    with_teacher = fit_rows(["distillation_stft"], epochs(), SPLIT, PROFILE, teacher)
    assert with_teacher["distillation_stft"].shape == (36, 3)


def test_unknown_rows_and_missing_parts_are_refused():
    with pytest.raises(BaselineError, match="names 'lr_powr'; there are: lr_power"):
        fit_rows(["lr_powr"], epochs(), SPLIT, PROFILE)
    with pytest.raises(BaselineError, match="needs the teacher's logits"):
        ROWS["distillation_stft"].fit_predict(trials(), SFREQ, LABELS, SPLIT, PROFILE)
    with pytest.raises(BaselineError, match="as many labels"):
        ROWS["lr_power"].fit_predict(trials()[:50], SFREQ, LABELS, SPLIT, PROFILE)
