"""The ideal observer knows the simulation, noise and all; the comparison runs as a whole."""

import argparse

import numpy as np
import pytest

from benchmarks import decoding
from benchmarks._ideal_observer import Observer, posterior
from eeglib.profile import FilteringSettings

FEW = ("Fz", "Cz", "Pz", "Oz", "O1", "O2", "P7", "P8", "PO7", "PO8", "T7", "T8")
FILTER = FilteringSettings(band=decoding.BAND)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    small = {"n_classes": 4, "classes_per_session": 4, "channels": FEW, "pause": 2.0}
    monkeypatch.setattr(decoding, "EXTRA", small)


def recording(folder, strength):
    options = argparse.Namespace(images=12, seed=1)
    raw, epochs, truth = decoding._recording(folder, strength, options)
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


def test_the_whole_comparison_and_its_closing_line(capsys):
    arguments = "--strengths 6 --images 20 --networks ShallowFBCSPNet --epochs 2"
    arguments += " --methods lr_power cnn_stft"
    assert decoding.main(arguments.split()) == 0
    out = capsys.readouterr().out
    names = ["ideal observer", decoding.OURS, *decoding.RIEMANN, "ShallowFBCSPNet"]
    for name in (*names, "LR on average square signal", "Plain CNN on spectrograms"):
        assert f"  {name} " in out
    name, *pairs = out.splitlines()[-1].split()
    values = dict(pair.split("=") for pair in pairs)
    assert name == "decoding"
    assert set(values) == {"sim_share_of_ceiling", "sim_best_peer"}
    assert 0.5 < float(values["sim_share_of_ceiling"]) < 1.5
