"""The ideal observer knows the simulation, noise and all; the comparison runs as a whole."""

import argparse
import re

import numpy as np
import pytest

from benchmarks import decoding
from benchmarks._ideal_observer import Observer, posterior

FEW = ("Fz", "Cz", "Pz", "Oz", "O1", "O2", "P7", "P8", "PO7", "PO8", "T7", "T8")
FILTER = decoding.FILTER


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small = {"n_classes": 4, "classes_per_session": 4, "channels": FEW, "pause": 2.0, "seed": 1}
    monkeypatch.setattr(decoding, "EXTRA", small)


def recording(folder, strength):
    options = argparse.Namespace(images=12, strength=strength)
    raw, epochs, truth = decoding._recording(folder, options)
    assert raw.shape == epochs.get_data(copy=False).shape
    return raw, epochs.metadata["label"].to_numpy(), truth


@pytest.mark.parametrize(("strength", "lowest", "highest"), [(0.0, 0.0, 0.5), (6.0, 0.6, 1.0)])
def test_the_ideal_observer(tmp_path, strength, lowest, highest):
    raw, labels, truth = recording(tmp_path, strength)
    found = posterior(truth, raw, FILTER)
    assert lowest <= (found.argmax(axis=1) == labels).mean() <= highest


def expected_over_measured(observer, raw, labels, frequency):
    """Mean power at a frequency that the observer expects, over that of the trials."""
    times = np.arange(raw.shape[-1]) / observer.truth.sfreq
    wave = observer.basis @ (np.hanning(len(times)) * np.exp(2j * np.pi * frequency * times))
    shape = len(observer.filters), len(observer.basis)
    seen = observer.seen(raw).reshape(-1, *shape)
    expected, measured = [], []
    for label in range(4):
        own = observer.truth.labels == label
        covariance = observer.covariance(own).reshape(*shape, *shape)
        expected.append(np.einsum("k,fkfl,l->", wave, covariance, wave.conj()).real)
        centred = seen[labels == label] - observer.mean(own).reshape(shape)
        measured.append((np.abs(centred @ wave) ** 2).sum(axis=-1).mean())
    return np.mean(expected) / np.mean(measured)


def test_the_observer_expects_the_power_that_trials_have(tmp_path):
    raw, labels, truth = recording(tmp_path, 2.0)

    def at(frequency, **change):
        observer = Observer(truth, raw.shape[-1], FILTER.model_copy(update=change))
        return expected_over_measured(observer, raw, labels, frequency)

    for frequency in (20, 35, 50, 60):
        assert at(frequency) == pytest.approx(1, abs=0.3)
    assert at(50, notch=None) > 2  # one that does not know of the notch is told apart


def values_of(line):
    name, *pairs = line.split()
    assert name == "decoding"
    return dict(pair.split("=") for pair in pairs)


def run(capsys, arguments):
    assert decoding.main([str(argument) for argument in arguments]) == 0
    out = capsys.readouterr().out
    return out, values_of(out.splitlines()[-1])


def test_a_simulated_recording(capsys):
    rows = "--rows lr_power kernel_decoder distillation_stft --networks --images 20"
    out, values = run(capsys, [*rows.split(), "--strength", 6, "--seeds", 0])
    names = [decoding.IDEAL, *decoding.RIEMANN, "LR on average square signal", "Kernel decoder"]
    for name in names:
        assert f"  {name} " in out
    assert "Knowledge distillation" not in out  # there is no teacher
    assert "phantom: left out" in out
    assert "uci: left out" in out
    assert set(values.values()) == {"not_run"}
    ceiling, ours = (float(re.search(rf"{n} .*?([01]\.\d+)", out)[1]) for n in (names[0], names[4]))
    assert 0.25 < ours < ceiling + 0.2


def test_phantom_trials_and_going_on_from_a_run_that_was_cut_off(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "EXTRA", {"extract": True, "n_classes": 4})
    (tmp_path / "a/MNE-eegbci-data").mkdir(parents=True)
    arguments = ["--parts", "phantom", "--data", tmp_path, "--write", tmp_path / "results"]
    arguments += "--rows lr_power distillation_stft kernel_decoder --epochs 1 --seeds 0 1".split()
    arguments += ["--riemann", "tangent space", "--networks", "ShallowFBCSPNet"]
    out, values = run(capsys, arguments)
    assert float(values["phantom_student_top1"]) < 0.9  # after one epoch
    best, name = re.match(r"(.*)\((.*)\)", values["phantom_best"]).groups()
    assert (name, float(best) > 0.3) == ("kernel_decoder", True)
    assert re.fullmatch(r"0\.[3-9]\d\d\(tangent_space\)", values["phantom_best_peer"])
    assert re.search(r"Kernel decoder .* minus ShallowFBCSPNet: \+0\.\d+ \[.*\], p 0\.", out)
    assert len((tmp_path / "results/decoding.csv").read_text().splitlines()) == 6
    for name in ("fit_predict", "_riemann", "_network"):
        monkeypatch.setattr(decoding, name, None)  # nothing is computed again
    again, same = run(capsys, arguments)
    assert same == values
    assert again in out


def test_people_left_out_one_by_one(capsys, tmp_path, monkeypatch):
    rng, subject = np.random.default_rng(0), np.repeat(np.arange(16), 6)
    cond = np.tile(["a", "b", "c"], 32)
    X = rng.standard_normal((96, 6, 64)).astype(np.float32)
    X[:, :3] *= 1 + 3 * (
        cond[:, np.newaxis, np.newaxis] == np.array(["a", "b", "c"])[:, np.newaxis]
    )
    names = ["A", "B", "C", "D", "E", "nd"]
    np.savez(
        tmp_path / "uci_eeg_objects.npz", X=X, cond=cond, subject=subject, ch_names=names, sfreq=128
    )
    monkeypatch.setattr(decoding, "CURVE", (3, 9))
    monkeypatch.setattr(decoding, "N_DRAWS", 1)
    arguments = ["--parts", "uci", "--data", tmp_path, "--networks", "--learning-curve"]
    out, values = run(capsys, [*arguments, "--riemann", "tangent space"])
    assert float(values["uci"]) > 0.8
    assert values["uci_best_peer"].endswith("(tangent_space)")
    assert re.search(r"kernel decoder minus tangent space: .\d", out)
    assert "    9 subjects " in out
    assert "falls as 1 / n" in out


def test_nobody_is_taught_by_himself_and_a_fifth_of_the_others_choose():
    subjects, splits = np.repeat(np.arange(16), 2), []

    def decode(split):
        splits.append([set(subjects[part]) for part in split])
        return np.full((len(split.test), 2), 0.5), ""

    decoding._left_out(decode, np.tile([0, 1], 16), subjects)
    decoding._left_out(decode, np.tile([0, 1], 16), subjects, 6, 1)
    for number, (train, validation, test) in enumerate(splits):
        assert test == {number % 16}
        assert not train & validation
        assert not (train | validation) & test
        assert (len(train), len(validation)) == ((12, 3) if number < 16 else (5, 1))
    assert splits[0][1] == {1, 6, 11}


def test_balanced_accuracy_by_hand():
    labels, subjects = np.array([0, 0, 0, 1, 0, 1]), np.array([0, 0, 0, 0, 1, 1])
    hits = np.array([1, 1, 0, 0, 0, 1.0])
    value, low, high, _ = decoding._balanced(labels, subjects, hits)
    assert value == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert low < value <= high
    assert decoding._balanced(labels, subjects, hits - hits)[3] == 1
