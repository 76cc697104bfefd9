"""The benchmark of training runs through and its closing line can be read by a machine."""

import pytest

from benchmarks import training
from eeglib.decoding.networks import residual_network


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {
        "SHAPE": (8, 4, 21),
        "N_TRAINING": 128,
        "N_VALIDATION": 32,
        "N_CLASSES": 4,
    }.items():
        monkeypatch.setattr(training, name, value)


def test_the_closing_line(monkeypatch, capsys):
    monkeypatch.setattr(training.torch.cuda, "is_available", lambda: False)
    assert training.main(["--epochs", "2", "--repeats", "2", "--trials", "5"]) == 0
    out = capsys.readouterr().out.strip()
    assert "one epoch, DataLoader: median" in out
    name, *pairs = out.splitlines()[-1].split()
    values = {key: float(value) for key, value in (pair.split("=") for pair in pairs)}
    assert name == "training"
    assert set(values) == {
        "vs_bare_loop",
        "vs_dataloader",
        "student_50_epochs_s",
        "share_of_conv_rate",
        "trial_p99_ms",
    }
    assert 0 < values["share_of_conv_rate"] < 1
    assert min(values.values()) > 0


def test_what_is_measured_on_a_gpu_runs_on_a_cpu(capsys):
    assert 0 < training._busy_share("cpu", training._data())
    assert training._methods_seconds("cpu", epochs=1) > 0
    out = capsys.readouterr().out
    assert out.count("cpu: method ") == 10
    assert "computes" in out


def test_the_cost_of_the_student_is_known(monkeypatch):
    monkeypatch.setattr(training, "SHAPE", (128, 4, 21))
    stem = 128 * 31 * 4 * 21
    assert stem < training._multiplications(residual_network(training.SHAPE, 40)()) < 4e6
