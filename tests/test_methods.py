"""Every method learns what can be learned, nothing from test trials, and follows its settings."""

import numpy as np
import pytest
from leaks import assert_test_trials_teach_nothing
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eeglib import evaluation
from eeglib.datasets import open_dataset
from eeglib.decoding import methods, networks
from eeglib.decoding.methods import METHODS, fit_predict, power_features, window_features
from eeglib.decoding.splits import Split, split_by_image
from eeglib.preprocessing import preprocess
from eeglib.profile import (
    METHOD_NAMES,
    BaselineSettings,
    DatasetSettings,
    ProfileError,
    load_profile,
)

N_CLASSES, N_TRIALS, SFREQ = 3, 120, 250.0
LABELS = np.arange(N_TRIALS) % N_CLASSES
SPLIT = Split(np.arange(60), np.arange(60, 84), np.arange(84, 120))
LOGITS = 4 * np.eye(N_CLASSES)[LABELS]
TRAINING = {"max_epochs": 20, "learning_rate": 1e-3, "batch_size": 12, "device": "cpu"}
SHORT = TRAINING | {"max_epochs": 1}


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(networks, "N_PARAMETERS", 50_000)


def trials(strength=2.0):
    rng = np.random.default_rng(0)
    data = rng.standard_normal((N_TRIALS, 6, 50))
    times = np.arange(50) / SFREQ
    data[np.arange(N_TRIALS), LABELS] += strength * (np.sin(2 * np.pi * 25 * times) + 0.5)
    return data


def features():
    rng = np.random.default_rng(1)
    return np.eye(8)[LABELS] * 3 + 0.2 * rng.standard_normal((N_TRIALS, 8))


def decode(name, data=None, labels=LABELS, split=SPLIT, order=slice(None), **options):
    """Probabilities of the test trials; images, hence the teacher, in some order."""
    options = {
        "sfreq": SFREQ,
        "n_classes": N_CLASSES,
        "teacher_logits": LOGITS[order],
        "teacher_features": features()[order],
        "training": SHORT,
        "window": 0.08,
        "step": 0.04,
    } | options
    return fit_predict(name, trials() if data is None else data, labels, split, **options)


@pytest.mark.parametrize("name", METHODS)
def test_a_separable_problem_is_learned(name):
    probabilities = decode(name, training=TRAINING)
    assert probabilities.shape == (36, N_CLASSES)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == LABELS[SPLIT.test]).mean() >= 0.8


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_learned_from_test_trials(name):
    assert_test_trials_teach_nothing(
        lambda data, labels: decode(name, data, labels), trials(0.7), LABELS, SPLIT
    )


@pytest.mark.parametrize("name", METHODS)
def test_another_seed_matters_where_there_is_one_and_seeds_are_averaged(name):
    data = trials(0.7)
    zero, one = (decode(name, data, seeds=(seed,)) for seed in (0, 1))
    np.testing.assert_array_equal(zero, decode(name, data))
    assert np.array_equal(zero, one) != METHODS[name].seeded
    both = decode(name, data, seeds=(0, 1))
    np.testing.assert_allclose(both, (zero + one) / 2, atol=1e-6)


# Which settings each method follows; all others must not matter to it.
SETTINGS = {
    "lr_windowed": {"sfreq"},
    "lr_windowed_pca": {"sfreq"},
    "cebra_knn": {"window", "step", "sfreq", "band", "teacher_features", "training"},
    "lstm": {"window", "step", "sfreq", "band", "training"},
    "conv1d": {"sfreq", "training"},
    "distillation_eeg": {"sfreq", "teacher_logits", "training"},
    "distillation_wavelet": {"sfreq", "wavelet", "band", "teacher_logits", "training"},
    "cnn_stft": {"window", "step", "sfreq", "band", "training"},
    "distillation_stft": {"window", "step", "sfreq", "band", "teacher_logits", "training"},
    "shallow_convnet": {"sfreq", "training"},
    "channel_mixing": {"sfreq", "teacher_logits", "training"},
    "kernel_decoder": {"sfreq"},
}


@pytest.mark.parametrize("name", METHODS)
def test_each_method_follows_its_settings_and_no_others(name):
    changes = {
        "sfreq": 500.0,
        "window": 0.12,
        "step": 0.02,
        "wavelet": "db2",
        "band": (14.0, 55.0),
        "teacher_logits": np.roll(LOGITS, 1, axis=1),
        "teacher_features": features()[::-1],
        "training": SHORT | {"learning_rate": 0.01},
    }
    if name in ("cnn_stft", "distillation_stft"):
        changes["sfreq"] = 300.0  # windows of 24 times in place of 20
    before = decode(name, trials(0.7))
    for setting, value in changes.items():
        after = decode(name, trials(0.7), **{setting: value})
        follows = not np.array_equal(after, before)
        assert follows == (setting in SETTINGS.get(name, ())), setting


@pytest.mark.parametrize("name", METHODS)
def test_a_class_that_the_subject_lacks_has_a_column_all_the_same(name):
    probabilities = decode(name, n_classes=5, teacher_logits=np.pad(LOGITS, ((0, 0), (0, 2))))
    assert probabilities.shape == (36, 5)
    evaluation.score(probabilities, LABELS[SPLIT.test], n_bootstrap=10)


def test_a_class_without_training_trials_gets_nothing():
    few = Split(np.flatnonzero(LABELS[:60] != 1), SPLIT.validation, SPLIT.test)
    assert (decode("lr_power", split=few)[:, 1] == 0).all()
    assert (decode("lr_power", split=few)[:, 2] > 0).all()


def test_the_table_has_the_papers_methods_in_its_order_and_the_profile_knows_them():
    beyond = [name for name in METHODS if "(not in the paper)" in METHODS[name].title]
    assert list(METHODS) == [*evaluation.TABLE_1.index, *beyond] == list(METHOD_NAMES)
    assert list(BaselineSettings().methods) == list(evaluation.TABLE_1.index)
    assert [n for n, method in METHODS.items() if method.needs_teacher] == [
        "cebra_knn",
        "distillation_eeg",
        "distillation_wavelet",
        "distillation_stft",
        "channel_mixing",
    ]
    with pytest.raises(ProfileError, match=r"baselines.methods.0: Input should be 'lr_power',"):
        load_profile("demo", {"baselines.methods": ["lr_powr"]})


@pytest.mark.parametrize("lacking", ["teacher_logits", "teacher_features"])
def test_without_a_teacher_its_pupils_say_so(lacking):
    with pytest.raises(ValueError, match="needs the teacher's logits and features"):
        decode("distillation_stft", **{lacking: None})


def test_power_is_the_mean_square_over_times():
    times = np.arange(1000) / 1000
    data = np.stack([np.sin(2 * np.pi * 20 * times), 3 * np.sin(2 * np.pi * 20 * times)])[None]
    np.testing.assert_allclose(power_features(data), [[0.5, 4.5]], rtol=1e-5)


def test_windows_of_80_ms_are_means_and_move_by_half_their_length():
    ramp = np.arange(240.0)[None, None]
    expected = [39.5, 79.5, 119.5, 159.5, 199.5]
    np.testing.assert_allclose(window_features(ramp, 1000)[0], expected, rtol=1e-6)
    assert window_features(ramp[..., :30], 1000).shape == (1, 1)
    assert window_features(ramp[..., :30], 1).shape == (1, 30)
    two = np.stack([ramp[0, 0], -ramp[0, 0]])[None]
    np.testing.assert_allclose(window_features(two, 1000)[0], expected + [-e for e in expected])


@pytest.mark.parametrize("name", ["lr_power", "lr_windowed"])
def test_logistic_regression_is_fitted_on_training_trials_with_the_best_penalty(name):
    data = trials(0.4)
    inputs = power_features(data) if name == "lr_power" else window_features(data, SFREQ)
    train, validation, test = SPLIT.training, SPLIT.validation, SPLIT.test
    inputs = StandardScaler().fit(inputs[train]).transform(inputs)
    models = [
        LogisticRegression(C=c).fit(inputs[train], LABELS[train]) for c in (1e-3, 0.01, 0.1, 1)
    ]
    losses = [
        -np.log(m.predict_proba(inputs[validation])[np.arange(24), LABELS[validation]]).mean()
        for m in models
    ]
    best = models[int(np.argmin(losses))]
    np.testing.assert_allclose(decode(name, data), best.predict_proba(inputs[test]), atol=1e-5)


def test_principal_components_hold_95_percent_of_the_standardised_training_trials_variance(
    monkeypatch,
):
    fitted = []

    class Watched(methods.PCA):
        def fit(self, inputs, labels=None):
            result = super().fit(inputs)
            np.testing.assert_allclose(inputs.std(axis=0), 1, rtol=1e-4)
            fitted.append((len(inputs), self.explained_variance_ratio_.sum()))
            return result

    monkeypatch.setattr(methods, "PCA", Watched)
    decode("lr_windowed_pca")
    assert {n for n, _ in fitted} == {60}
    assert all(0.95 <= share < 0.99 for _, share in fitted)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lstm", (6, 5, 4)),
        ("conv1d", (6, 50)),
        ("distillation_eeg", (6, 50)),
        ("distillation_wavelet", (6, 2, 50)),
        ("cnn_stft", (6, 5, 4)),
        ("distillation_stft", (6, 5, 4)),
        ("shallow_convnet", (6, 50)),
        ("channel_mixing", (6, 50)),
    ],
)
def test_what_networks_see_and_whom_they_hear(monkeypatch, name, shape):
    calls = []

    def watched(build, inputs, *args, **options):
        calls.append((inputs.shape[1:], options["teacher_logits"] is not None))
        return fit(build, inputs, *args, **options)

    fit = methods.fit
    monkeypatch.setattr(methods, "fit", watched)
    decode(name, band=(14.0, 55.0))
    assert calls == [(shape, METHODS[name].needs_teacher)]


def test_neighbouring_times_are_averaged_where_the_rate_is_high():
    assert [methods._thinning(rate) for rate in (100, 250, 399, 400, 1000)] == [1, 1, 1, 2, 5]
    np.testing.assert_allclose(methods._thinned(np.arange(12.0)[None, None], 1000), [[[2, 7]]])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Trials of the real recording that comes with the package: 10 invented classes."""
    options = {"extract": True, "n_classes": 10}
    settings = DatasetSettings(name="eegmmidb", subjects=(1,), options=options)
    dataset = open_dataset(settings, tmp_path_factory.mktemp("run"))
    return preprocess(dataset, 1, notch=(59.0, 61.0)).epochs


@pytest.mark.parametrize(
    ("name", "max_epochs"),
    [("cnn_stft", 8), ("lstm", 10), ("channel_mixing", 12), ("shallow_convnet", 40)],
)
def test_networks_read_real_eeg(real, name, max_epochs):
    labels = real.metadata["label"].to_numpy()
    split = split_by_image(real.metadata, 0.6, 0.2, 0.2, seed=0)
    training = {"max_epochs": max_epochs, "learning_rate": 3e-3, "batch_size": 16}
    probabilities = fit_predict(
        name,
        real.get_data(copy=False),
        labels,
        split,
        sfreq=real.info["sfreq"],
        n_classes=10,
        teacher_logits=4 * np.eye(10)[labels],
        teacher_features=np.eye(10)[labels],
        training=training | {"device": "cpu"},
        window=0.15,
        step=0.025,
        band=(14.0, 70.0),
    )
    right = (probabilities.argmax(axis=1) == labels[split.test]).sum()
    assert binomtest(right, len(split.test), 0.1, alternative="greater").pvalue < 0.01
