"""The benchmark of ingredients: judgements by hand, and a small run that is not run twice."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import decoding, ingredients

FEW = ("Fz", "Cz", "Pz", "Oz", "O1", "O2", "P7", "P8", "PO7", "PO8", "T7", "T8")


def test_trials_are_judged_by_the_log_loss_of_their_class():
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1]])
    labels = np.array([0, 1])
    np.testing.assert_allclose(ingredients.log_loss(probabilities, labels), -np.log([0.5, 0.1]))
    # Half of the others' confident guesses are wrong: their temperature evens everything out.
    others = np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1])
    judged = ingredients._judge([(probabilities, labels, *others)])
    np.testing.assert_array_equal(judged.right, [1, 0])
    assert judged.before == pytest.approx((abs(0.5 - 1) + abs(0.9 - 0)) / 2)
    np.testing.assert_allclose(judged.calibrated, np.log(2), atol=0.06)


def test_every_recipe_lacks_or_has_one():
    recipes = ingredients._recipes()
    names = list(ingredients.INGREDIENTS)
    assert recipes["none"] == {}
    for name in names:
        assert list(recipes[name]) == [name]
        assert set(names) - set(recipes[f"all without {name}"]) == {name}
    assert list(recipes["all"]) == names


def test_the_smallest_recipe_that_is_as_good_as_the_best_is_chosen():
    up_and_down = 0.1 * np.tile([1.0, -1.0], 100)  # a scatter of mean 0, in "all" alone
    found = {
        name: SimpleNamespace(loss=change + up_and_down * (name == "all"))
        for name, change in {"none": 1.0, "a": 0.001, "b": 0.5, "all": 0.0}.items()
    }
    recipes = {"none": {}, "a": {"a": 1}, "b": {"b": 1}, "all": {"a": 1, "b": 1}}
    assert ingredients._choice(recipes, found) == "a"
    found["a"].loss = found["a"].loss + 0.1
    assert ingredients._choice(recipes, found) == "all"


def test_a_small_run_and_its_closing_line(tmp_path, monkeypatch, capsys):
    small = {"n_classes": 4, "classes_per_session": 4, "channels": FEW, "pause": 2.0}
    monkeypatch.setattr(decoding, "EXTRA", small)
    monkeypatch.setattr(ingredients, "INGREDIENTS", {"channel_dropout": 0.2, "noise": 0.5})
    monkeypatch.setattr(ingredients, "N_BOOTSTRAP", 50)
    given = ["--cache", str(tmp_path), "--images", "20", "--seeds", "0", "1", "--epochs", "2"]
    assert ingredients.main(given) == 0
    out = capsys.readouterr().out
    name, *pairs = out.splitlines()[-1].split()
    assert name == "ingredients"
    assert {pair.split("=")[0] for pair in pairs} == {
        "chosen",
        "validation_loss",
        "validation_loss_plain",
        "test_top1",
        "test_top1_plain",
        "calibration_error",
        "seconds",
    }
    assert "all without noise" in out
    monkeypatch.setattr(ingredients, "_train", None)  # nothing is trained a second time
    assert ingredients.main(given) == 0
    again = capsys.readouterr().out
    assert "Simulating" not in again
    assert out.endswith(again)
