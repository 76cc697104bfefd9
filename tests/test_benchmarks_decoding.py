"""The ideal observer knows the simulation: far above chance with a strong response, at chance
without one."""

import argparse

import pytest

from benchmarks import decoding
from benchmarks._ideal_observer import posterior
from eeglib.datasets.simulated import Options
from eeglib.profile import FilteringSettings

FEW = ("Fz", "Cz", "Pz", "Oz", "O1", "O2", "P7", "P8", "PO7", "PO8", "T7", "T8")


@pytest.mark.parametrize(("strength", "lowest", "highest"), [(0.0, 0.0, 0.5), (6.0, 0.6, 1.0)])
def test_the_ideal_observer(tmp_path, monkeypatch, strength, lowest, highest):
    small = {"n_classes": 4, "classes_per_session": 4, "channels": FEW, "pause": 2.0}
    known = Options.model_fields
    assert set(small) <= set(known)
    monkeypatch.setattr(decoding, "EXTRA", small)
    options = argparse.Namespace(images=12, seed=1)
    raw, epochs, truth = decoding._recording(tmp_path, strength, options)
    assert raw.shape == epochs.get_data(copy=False).shape
    labels = epochs.metadata["label"].to_numpy()
    found = posterior(truth, raw, FilteringSettings(band=decoding.BAND))
    assert lowest <= (found.argmax(axis=1) == labels).mean() <= highest
