"""The loss at its limits, and a training loop that keeps its promises."""

import logging

import numpy as np
import pandas
import pytest
import torch
from torch import nn
from torch.nn import functional

from eeglib.decoding.distillation import (
    TrainingError,
    average_predictions,
    distillation_loss,
    fit,
    fit_seeds,
    predict,
    residual_network,
)
from eeglib.decoding.networks import ResidualCNN
from eeglib.decoding.splits import Split
from eeglib.decoding.training_data import TrainingPart
from eeglib.profile import TrainingSettings

SPLIT = Split(np.arange(65), np.arange(65, 85), np.arange(85, 105))
QUICK = TrainingSettings(max_epochs=6, batch_size=16, learning_rate=1e-3, device="cpu")


def small_network():
    return ResidualCNN(6, 5, 6, 3, n_parameters=200_000)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    labels = np.arange(105) % 3
    images = rng.standard_normal((105, 6, 5, 6)).astype(np.float32)
    images[np.arange(105), labels] += 2
    return images, labels


def logits(seed=0, n=7, c=5):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, c, generator=generator), torch.arange(n) % c


def test_alpha_one_is_cross_entropy():
    student, labels = logits()
    expected = functional.cross_entropy(student, labels)
    torch.testing.assert_close(distillation_loss(student, labels, logits(1)[0], 1.0), expected)
    torch.testing.assert_close(distillation_loss(student, labels, None, 0.3), expected)


def test_a_teacher_that_is_certain_is_a_label():
    student, labels = logits()
    certain = 1e4 * functional.one_hot(labels, 5).float()
    expected = functional.cross_entropy(student, labels)
    torch.testing.assert_close(distillation_loss(student, labels, certain, 0.0), expected)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_a_student_equal_to_the_teacher_keeps_the_teachers_entropy(temperature):
    student, labels = logits()
    p = functional.softmax(student / temperature, dim=1)
    entropy = -(p * p.log()).sum(dim=1).mean()
    found = distillation_loss(student, labels, student, 0.0, temperature)
    torch.testing.assert_close(found, entropy)


def test_high_temperature_forgets_both():
    student, labels = logits()
    found = distillation_loss(student, labels, logits(1)[0], 0.0, 1e6)
    assert float(found) == pytest.approx(np.log(5), abs=1e-4)


def test_the_formula_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    s, t = np.exp([0.5, 0.0, -0.5]), np.exp([0.0, 1.0, 0.0])
    by_teacher = -np.sum(t / t.sum() * np.log(s / s.sum()))
    by_label = -np.log(np.exp(-1) / np.exp([1, 0, -1]).sum())
    found = distillation_loss(student, torch.tensor([2]), teacher, 0.3, 2.0)
    assert float(found) == pytest.approx(0.3 * by_label + 0.7 * by_teacher)


def test_gradient_is_right_and_there_is_no_factor_of_t_squared():
    student, labels = logits()
    student, teacher = student.double().requires_grad_(), logits(1)[0].double()
    assert torch.autograd.gradcheck(
        lambda s: distillation_loss(s, labels, teacher, 0.4, 3.0), (student,)
    )
    sizes = []
    for temperature in (50.0, 100.0):
        (gradient,) = torch.autograd.grad(
            distillation_loss(student, labels, teacher, 0.0, temperature), student
        )
        sizes.append(float(gradient.norm()))
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.05)


def test_impossible_losses_are_refused():
    student, labels = logits()
    with pytest.raises(TrainingError, match=r"alpha must lie in 0 \.\.\. 1"):
        distillation_loss(student, labels, student, 1.5)
    with pytest.raises(TrainingError, match="temperature above 0"):
        distillation_loss(student, labels, student, 0.5, 0.0)
    with pytest.raises(TrainingError, match="one shape"):
        distillation_loss(student, labels, student[:, :3])


def test_a_separable_problem_is_learned(problem):
    images, labels = problem
    settings = QUICK.model_copy(update={"max_epochs": 15, "learning_rate": 3e-3})
    student = fit(small_network, images, labels, SPLIT, settings)
    accuracy = (predict(student.network, images[85:]).argmax(axis=1) == labels[85:]).mean()
    assert accuracy >= 0.9


def test_a_teacher_alone_teaches(problem):
    images, labels = problem
    teacher = 5 * np.eye(3)[labels]
    wrong = (labels + 1) % 3
    settings = QUICK.model_copy(update={"max_epochs": 15, "learning_rate": 3e-3, "alpha": 0.0})
    student = fit(small_network, images, wrong, SPLIT, settings, teacher)
    assert (predict(student.network, images[85:]).argmax(axis=1) == labels[85:]).mean() >= 0.9


def test_permuted_labels_give_chance(problem):
    images, labels = problem
    rng, right = np.random.default_rng(1), []
    for seed in range(4):
        dealt = rng.permutation(labels)
        student = fit(small_network, images, dealt, SPLIT, QUICK, seed=seed)
        right += list(predict(student.network, images[85:]).argmax(axis=1) == dealt[85:])
    assert 0.15 < np.mean(right) < 0.52


def test_test_trials_have_no_influence(problem):
    images, labels = problem
    changed_images, changed_labels = images.copy(), labels.copy()
    changed_images[85:], changed_labels[85:] = np.nan, -7
    one = fit(small_network, images, labels, SPLIT, QUICK)
    two = fit(small_network, changed_images, changed_labels, SPLIT, QUICK)
    np.testing.assert_array_equal(predict(one.network, images), predict(two.network, images))


def test_seeds_both_ways_and_the_callers_random_numbers_stay(problem):
    images, labels = problem
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (
        predict(
            fit(small_network, images, labels, SPLIT, QUICK, seed=s, deterministic=True).network,
            images,
        )
        for s in (1, 1, 2)
    )
    torch.testing.assert_close(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_the_best_epoch_is_kept_and_patience_ends_training(problem):
    images, labels = problem
    dealt = np.random.default_rng(0).permutation(labels)
    settings = QUICK.model_copy(update={"max_epochs": 40, "patience": 3, "learning_rate": 1e-2})
    student = fit(small_network, images, dealt, SPLIT, settings)
    history = student.history
    assert len(history) == student.best_epoch + 3 < 40
    best = history.loc[history["validation_loss"].idxmin()]
    assert best["epoch"] == student.best_epoch
    found = predict(student.network, images[65:85])
    loss = -np.log(found[np.arange(20), dealt[65:85]]).mean()
    assert loss == pytest.approx(best["validation_loss"], rel=1e-4)


def test_training_goes_on_where_it_was_interrupted(problem, tmp_path):
    images, labels = problem
    whole = fit(small_network, images, labels, SPLIT, QUICK)
    file = tmp_path / "state.pt"
    shorter = QUICK.model_copy(update={"max_epochs": 2})
    fit(small_network, images, labels, SPLIT, shorter, checkpoint=file)
    resumed = fit(small_network, images, labels, SPLIT, QUICK, checkpoint=file)
    np.testing.assert_allclose(
        predict(resumed.network, images), predict(whole.network, images), atol=1e-6
    )
    columns = ["epoch", "training_loss", "validation_loss"]
    pandas.testing.assert_frame_equal(resumed.history[columns], whole.history[columns])
    again = fit(small_network, images, labels, SPLIT, QUICK, checkpoint=file)
    assert again.history["seconds"].equals(resumed.history["seconds"])


def test_another_trainings_or_a_damaged_checkpoint_is_refused(problem, tmp_path):
    images, labels = problem
    file = tmp_path / "state.pt"
    fit(small_network, images, labels, SPLIT, QUICK, checkpoint=file)
    with pytest.raises(TrainingError, match="of another network, seed"):
        fit(small_network, images, labels, SPLIT, QUICK, seed=1, checkpoint=file)
    with pytest.raises(TrainingError, match="of another network, seed"):
        fit(small_network, images * 2, labels, SPLIT, QUICK, checkpoint=file)
    for content in (b"", b"nonsense", file.read_bytes()[:1000]):
        file.write_bytes(content)
        with pytest.raises(TrainingError, match="cannot be read"):
            fit(small_network, images, labels, SPLIT, QUICK, checkpoint=file)


def test_a_last_batch_of_one_trial_does_not_stop_training(problem):
    images, labels = problem
    settings = QUICK.model_copy(update={"batch_size": 32, "max_epochs": 1})
    assert len(SPLIT.training) % 32 == 1
    one_cell = residual_network((6, 1, 1), 3)  # whose map of one place is 1 x 1 from the start
    assert len(fit(one_cell, images[..., :1, :1], labels, SPLIT, settings).history) == 1


def test_the_unit_of_the_images_has_no_influence(problem):
    images, labels = problem
    size = np.float32(2) ** np.arange(-30, 0).reshape(6, 5, 1)  # powers of 2: no rounding
    one = fit(small_network, 1e3 * images, labels, SPLIT, QUICK)
    two = fit(small_network, 1e3 * images / size, labels, SPLIT, QUICK)
    np.testing.assert_allclose(
        predict(one.network, 1e3 * images), predict(two.network, 1e3 * images / size), atol=1e-3
    )


def test_each_batch_is_its_trials_in_any_order_of_axes():
    images = torch.randn(9, 4, 3, 5)
    last = images.contiguous(memory_format=torch.channels_last)
    for stored in (images, last, images[:, :, 0].clone()):
        part = TrainingPart(stored, torch.arange(9))
        orders = torch.tensor([3, 1, 8, 0]).split(3)
        for (rows, found), expected in zip(part.batches(orders), orders, strict=True):
            assert rows is expected
            torch.testing.assert_close(found, stored[expected])
            assert found.stride() == stored.stride()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": np.arange(50) % 3}, "105 trials but 50 labels"),
        ({"labels": (np.arange(105) % 3).astype(float)}, "must be integers"),
        ({"labels": np.arange(105) % 9}, "3 outputs, but labels run from 0 to 8"),
        ({"teacher_logits": np.zeros((50, 3))}, "teacher logits for 50"),
        ({"teacher_logits": np.zeros((105, 4))}, "the teacher 4 classes"),
        ({"teacher_logits": np.full((105, 3), np.nan)}, "teacher logits of the training part"),
        ({"images": np.full((105, 6, 5, 6), np.inf)}, "trials of the training part"),
        ({"split": Split(np.arange(1), np.arange(5), np.arange(5))}, "part has 1 trials"),
    ],
)
def test_unusable_input_is_refused(problem, change, words):
    images, labels = problem
    given = {"images": images, "labels": labels, "split": SPLIT, "settings": QUICK} | change
    with pytest.raises(TrainingError, match=words):
        fit(small_network, **given)


def test_divergence_is_an_error(problem):
    images, labels = problem

    class Explodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(180, 3)

        def forward(self, x):
            return self.layer(x.flatten(1)) * (1e30 if self.training else 1) * 1e30

    with pytest.raises(TrainingError, match="training diverged"):
        fit(Explodes, images, labels, SPLIT, QUICK)


def test_several_seeds_are_averaged(problem):
    images, labels = problem
    settings = QUICK.model_copy(update={"seeds": (0, 1), "max_epochs": 2})
    students = fit_seeds(small_network, images, labels, SPLIT, settings)
    assert [s.seed for s in students] == [0, 1]
    parts = [predict(s.network, images) for s in students]
    average = average_predictions(students, images)
    np.testing.assert_allclose(average, np.mean(parts, axis=0))
    np.testing.assert_allclose(average.sum(axis=1), 1, atol=1e-5)


def test_batches_of_prediction_have_no_influence(problem):
    network = small_network()
    np.testing.assert_allclose(
        predict(network, problem[0], 7), predict(network, problem[0]), atol=1e-6
    )
    with pytest.raises(TrainingError, match="no trials"):
        predict(network, problem[0][:0])


def test_epochs_are_logged_where_there_is_no_terminal(problem, caplog):
    images, labels = problem
    settings = QUICK.model_copy(update={"max_epochs": 2})
    with caplog.at_level(logging.INFO, logger="eeglib.decoding.training"):
        fit(small_network, images, labels, SPLIT, settings)
    assert "Epoch 2: training loss" in caplog.text


def test_the_builder_of_the_paper():
    assert residual_network((128, 21, 23), 40)()(torch.zeros(1, 128, 21, 23)).shape == (1, 40)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(problem):
    settings = QUICK.model_copy(update={"device": "cuda"})
    with pytest.raises(TrainingError, match="PyTorch sees no GPU"):
        fit(small_network, *problem, SPLIT, settings)
