"""The benchmark of training runs through and its closing line can be read by a machine."""

import numpy as np

from benchmarks import training
from eeglib.splits import Split


def test_the_closing_line(monkeypatch, capsys):
    monkeypatch.setattr(training, "SHAPE", (8, 21, 23))
    monkeypatch.setattr(training, "N_TRAINING", 128)
    monkeypatch.setattr(training, "N_VALIDATION", 32)
    parts = np.arange(128), np.arange(128, 160), np.array([])
    monkeypatch.setattr(training, "SPLIT", Split(*parts))
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: False)
    assert training.main(["--epochs", "2", "--repeats", "1", "--trials", "5"]) == 0
    name, *pairs = capsys.readouterr().out.strip().splitlines()[-1].split()
    values = {key: float(value) for key, value in (pair.split("=") for pair in pairs)}
    assert name == "training"
    assert set(values) == {
        "cpu_speedup", "student_50_epochs_s", "share_of_conv_rate", "trial_p99_ms"
    }
    assert 0 < values["share_of_conv_rate"] < 1
    assert min(values.values()) > 0
