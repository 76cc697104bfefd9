"""The benchmark on a GPU: quiet where there is none, and its tiny variant runs through."""

import pytest
import torch

from benchmarks import gpu_run, training


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert gpu_run.main([]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_the_tiny_variant_runs_through(monkeypatch, capsys):
    student = {"student_s": 1.0, "vs_dataloader": 2.0}  # tested beside the benchmark of training
    monkeypatch.setattr(training, "_on_device", lambda *_: student)
    monkeypatch.setattr(training, "_busy_share", lambda *_: 0.5)
    assert gpu_run.main(["--smoke", "--epochs", "1", "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "group/01_download_data   " in out
    name, *pairs = out.splitlines()[-1].split()
    figures = dict(pair.split("=") for pair in pairs)
    assert name == "gpu"
    assert list(figures) == [
        "demo_s",
        "paper_subject_s",
        "student_50_epochs_s",
        "rows_s",
        "speedup_vs_dataloader",
        "busy_share",
    ]
    assert [figures.pop(name) for name in ("rows_s", "paper_subject_s")] == ["skipped"] * 2
    assert min(map(float, figures.values())) > 0


def test_what_does_not_finish_is_stopped_and_called_so(tmp_path, capsys):
    assert gpu_run._run(["--profile", "demo", "--only", "01"], tmp_path / "run", 0) is None
    assert "--profile demo" in capsys.readouterr().out
