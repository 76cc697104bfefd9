"""Rival teachers lack what they should lack; gains are counted with trials and seeds."""

import json
from unittest.mock import Mock

import numpy as np
import pandas
import pytest
from scipy import special

from eeglib.decoding import networks
from eeglib.decoding.splits import Split
from eeglib.decoding.teacher_study import (
    ALONE,
    TEACHER,
    gains,
    mean_entropy,
    rival_teachers,
    sweep,
    train_with_teachers,
    verdict,
)
from eeglib.workflow.stages import site_folder

LABELS = np.arange(60) % 5


def logits():
    rng = np.random.default_rng(0)
    return rng.standard_normal((60, 5)) + 3 * np.eye(5)[LABELS]


def test_each_rival_lacks_one_thing():
    real = logits()
    rivals = rival_teachers(real, LABELS)
    rows = np.arange(60)
    shuffled = rivals["shuffled classes"]
    np.testing.assert_allclose(shuffled[rows, LABELS], real[rows, LABELS], rtol=1e-6)
    np.testing.assert_allclose(np.sort(shuffled), np.sort(real), rtol=1e-5)
    wrong = ~np.eye(5, dtype=bool)[LABELS]
    assert not np.isclose(shuffled[wrong], real[wrong]).any()
    drawn = rivals["random targets"]
    assert sorted(drawn[:, 0]) == pytest.approx(sorted(real[:, 0]), rel=1e-6)
    assert (drawn.argmax(axis=1) == LABELS).mean() < 0.5
    smooth = rivals["label smoothing"]
    assert (smooth.argmax(axis=1) == LABELS).all()
    assert mean_entropy(smooth) == pytest.approx(mean_entropy(real), abs=1e-5)
    assert np.ptp(smooth[wrong]) < 1e-5


def test_smoothing_at_its_limits():
    for teacher, targets in ((1e4 * np.eye(4), np.eye(4)[1]), (np.zeros((4, 4)), [0.25] * 4)):
        smooth = rival_teachers(teacher, np.arange(4))["label smoothing"]
        assert special.softmax(smooth[1]) == pytest.approx(targets, abs=1e-4)


def test_two_classes_have_no_likenesses_to_shuffle():
    labels = np.arange(8) % 2
    found = rival_teachers(3 * np.eye(2)[labels], labels)
    assert list(found) == ["random targets", "label smoothing"]


def predictions(rates, n_seeds=3, n_trials=200, n_classes=4):
    """Right in a given share of the trials, exactly, for each name."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, n_classes, n_trials)
    found = {}
    for name, rate in rates.items():
        right = np.arange(n_trials) < round(rate * n_trials)
        named = np.where(right, labels, (labels + 1) % n_classes)
        found[name] = np.broadcast_to(np.eye(n_classes)[named], (n_seeds, n_trials, n_classes))
    return found, labels


def test_gains_by_hand_and_their_verdicts():
    found, labels = predictions({ALONE: 0.5, TEACHER: 0.7, "label smoothing": 0.7})
    table = gains(found, labels, n_bootstrap=500)
    assert table.loc[TEACHER, "gain"] == pytest.approx(0.2)
    assert table.loc[TEACHER, "accuracy"] == pytest.approx(0.7)
    assert 0.1 < table.loc[TEACHER, "low"] < 0.2 < table.loc[TEACHER, "high"] < 0.3
    assert table.loc[ALONE, ["gain", "low", "high"]].tolist() == [0, 0, 0]
    assert "also gained with label smoothing" in verdict(table)
    found, labels = predictions({ALONE: 0.5, TEACHER: 0.5})
    assert "within the noise" in verdict(gains(found, labels, n_bootstrap=500))


def test_training_under_teachers_and_the_sweep(monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.standard_normal((60, 4, 5, 6)).astype(np.float32)
    images[np.arange(60), LABELS % 4] += 2
    split = Split(np.arange(30), np.arange(30, 45), np.arange(45, 60))
    training = {"max_epochs": 2, "batch_size": 10, "device": "cpu"}
    training |= {"alpha": 0.5, "temperature": 1.0}

    monkeypatch.setattr(networks, "N_PARAMETERS", 20_000)
    build = networks.residual_network((4, 5, 6), 5)
    found = train_with_teachers(
        build, images, LABELS, split, {ALONE: None, TEACHER: logits()}, (0, 1), **training
    )
    assert found[TEACHER].shape == (2, 15, 5)
    assert not np.array_equal(found[TEACHER], found[ALONE])
    table = sweep(build, images, LABELS, split, logits(), (0,), (0.5, 1.0), (1.0, 4.0), **training)
    assert table["parameter"].tolist() == ["alpha", "alpha", "T", "T"]
    assert table["accuracy"].iloc[0] == table["accuracy"].iloc[2]  # the same training
    assert (table["n"] == 15).all()


def test_in_the_made_up_world_of_chapter_5_knowledge_helps_and_softness_does_not(capsys):
    path = site_folder() / "notebooks" / "05_distill_student.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = {cell["id"]: "".join(cell["source"]) for cell in cells}
    names: dict = {}
    for cell in ("05-01", "world-02", "world-04", "world-05"):
        exec(code[cell], names)
    few = pandas.DataFrame([names["world_accuracies"](seed) for seed in range(3)])
    gain = few.sub(few["labels only"], axis=0).mean()
    assert gain["teacher"] > 0.04
    assert abs(gain["label smoothing"]) < 0.03
    world_accuracies = names["world_accuracies"]
    names["world_accuracies"] = lambda seed: dict(few.iloc[seed % 3])
    names["chapter"] = Mock()
    for cell in ("world-06", "world-07"):
        exec(code[cell], names)
    assert "Here what the teacher knows helps" in capsys.readouterr().out
    many = pandas.DataFrame([world_accuracies(seed, (20, 5, 20)) for seed in range(3)])
    assert 0 < (many["teacher"] - many["labels only"]).mean() < gain["teacher"]
