"""The loss at its limits, and a training that keeps its promises."""

import contextlib
import inspect
import logging
import os
import signal
from functools import partial
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas
import pytest
import torch
from torch import nn
from torch.nn import functional

from eeglib.decoding import networks, training
from eeglib.decoding.splits import Split
from eeglib.decoding.training import (
    StudentOnGPU,
    TrainingError,
    average_predictions,
    distillation_loss,
    fit,
    fit_seeds,
    predict,
)
from eeglib.profile import TrainingSettings

SPLIT = Split(np.arange(65), np.arange(65, 85), np.arange(85, 105))
QUICK = {"max_epochs": 6, "batch_size": 16, "learning_rate": 1e-3, "device": "cpu"}
LOSSES = ["epoch", "training_loss", "validation_loss", "validation_accuracy"]
LABELS = np.arange(105) % 3


def images():
    values = np.random.default_rng(0).standard_normal((105, 6, 5, 6)).astype(np.float32)
    values[np.arange(105), LABELS] += 2
    return values


IMAGES = images()


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    monkeypatch.setattr(networks, "N_PARAMETERS", 20_000)


small_network = networks.residual_network((6, 5, 6), 3)


def train(labels=LABELS, inputs=IMAGES, build=small_network, **changed):
    return fit(build, inputs, labels, SPLIT, **QUICK | changed)


def accuracy(trained, labels=LABELS):
    return (predict(trained.network, IMAGES[85:]).argmax(axis=1) == labels[85:]).mean()


# --- the loss -------------------------------------------------------------------------------


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


def test_the_formula_by_hand():
    student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, 0.0]])
    s, t = np.exp([0.5, 0.0, -0.5]), np.exp([0.0, 1.0, 0.0])
    by_teacher = -np.sum(t / t.sum() * np.log(s / s.sum()))
    by_label = -np.log(np.exp(-1) / np.exp([1, 0, -1]).sum())
    found = distillation_loss(student, torch.tensor([2]), teacher, 0.3, 2.0)
    assert float(found) == pytest.approx(0.3 * by_label + 0.7 * by_teacher)


def test_gradient_has_no_factor_of_t_squared():
    student, labels = logits()
    student, sizes = student.double().requires_grad_(), []
    for temperature in (50.0, 100.0):
        loss = distillation_loss(student, labels, logits(1)[0].double(), 0.0, temperature)
        sizes.append(float(torch.autograd.grad(loss, student)[0].norm()))
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.05)


# --- what is learned ------------------------------------------------------------------------


def test_a_separable_problem_is_learned_and_permuted_labels_are_not():
    assert accuracy(train(max_epochs=12, learning_rate=3e-3)) >= 0.9
    rng, right = np.random.default_rng(1), []
    for seed in range(3):
        dealt = rng.permutation(LABELS)
        right.append(accuracy(train(dealt, seed=seed), dealt))
    assert 0.15 < np.mean(right) < 0.52


def test_a_teacher_alone_teaches():
    wrong, teacher = (LABELS + 1) % 3, 5 * np.eye(3)[LABELS]
    options = {"max_epochs": 12, "learning_rate": 3e-3, "teacher_logits": teacher}
    assert accuracy(train(wrong, alpha=0.0, **options)) >= 0.9
    assert accuracy(train(wrong, alpha=1.0, **options)) <= 0.1


def test_test_trials_have_no_influence():
    other, other_labels = IMAGES.copy(), LABELS.copy()
    other[85:], other_labels[85:] = np.nan, -7
    one, two = train(), train(other_labels, other)
    np.testing.assert_array_equal(predict(one.network, IMAGES), predict(two.network, IMAGES))


def test_the_unit_of_the_inputs_has_no_influence():
    size = np.float32(2) ** np.arange(-30, 0).reshape(6, 5, 1)  # powers of 2: no rounding
    one, two = train(inputs=1e3 * IMAGES), train(inputs=1e3 * IMAGES / size)
    found = predict(one.network, 1e3 * IMAGES), predict(two.network, 1e3 * IMAGES / size)
    np.testing.assert_allclose(*found, atol=1e-3)


# --- settings of section 3.6 ----------------------------------------------------------------


def test_the_defaults_are_the_papers():
    settings = TrainingSettings().model_dump(exclude={"seeds", "teacher_output"})
    parameters = inspect.signature(fit).parameters
    assert settings == {name: parameters[name].default for name in settings}
    paper = {"alpha": 0.5, "temperature": 1.0, "learning_rate": 3e-4, "batch_size": 64}
    paper |= {"gradient_clip": 1.0, "max_epochs": 50, "patience": 10}
    assert paper.items() <= settings.items()


@pytest.mark.parametrize(
    "change",
    [{"alpha": 0.9}, {"temperature": 3.0}, {"seed": 1}, {"weight_decay": 0.1}, {"batch_size": 8}],
)
def test_each_setting_changes_the_curve_and_nothing_else_does(change):
    options = {"max_epochs": 2, "teacher_logits": 4 * np.eye(3)[LABELS]}
    one, same = (train(**options).history[LOSSES] for _ in range(2))
    pandas.testing.assert_frame_equal(one, same)
    other = train(**options | change).history[LOSSES]
    assert np.abs(other - one)["training_loss"].min() > 1e-4


class Watched(nn.Module):
    """A linear network that notes its batches."""

    def __init__(self):
        super().__init__()
        self.layer, self.sizes, self.last = nn.Linear(180, 3), [], []

    def forward(self, inputs):
        if self.training:
            self.sizes.append(len(inputs))
            self.last.append(inputs.sum(dim=(1, 2, 3)).tolist())
        return self.layer(inputs.flatten(1))


def test_gradients_are_clipped_by_norm_and_the_learning_rate_is_adams(monkeypatch):
    norms, rates = [], set()

    class Spy(torch.optim.Adam):
        def step(self, closure=None):
            loss = super().step(closure)
            gradients = [p.grad for group in self.param_groups for p in group["params"]]
            norms.append(float(nn.utils.get_total_norm(gradients)))
            rates.update(group["lr"] for group in self.param_groups)
            return loss

    monkeypatch.setattr(torch.optim, "Adam", Spy)
    train(build=Watched, inputs=100 * IMAGES)
    assert max(norms) == pytest.approx(1.0, rel=1e-4)
    assert rates == {QUICK["learning_rate"]}
    norms.clear()
    train(build=Watched, inputs=100 * IMAGES, gradient_clip=None)
    assert max(norms) > 10


def test_each_epoch_goes_through_the_trials_in_batches_in_another_order():
    network = train(build=Watched, batch_size=20, max_epochs=2).network
    assert network.sizes == [20, 20, 20, 5] * 2
    first, second = np.concatenate(network.last).reshape(2, 65)
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(sorted(first), sorted(IMAGES[:65].sum(axis=(1, 2, 3))), rtol=1e-3)


def test_a_last_batch_of_one_trial_sits_out():
    assert len(SPLIT.training) % 32 == 1
    assert train(build=Watched, batch_size=32, max_epochs=1).network.sizes == [32, 32]
    one_cell = networks.residual_network(
        (6, 1, 1), 3
    )  # whose map of one place is 1 x 1 from the start
    found = train(inputs=IMAGES[..., :1, :1], build=one_cell, batch_size=32, max_epochs=1)
    assert len(found.history) == 1


def test_the_best_epoch_is_kept_and_patience_ends_training():
    dealt = np.random.default_rng(0).permutation(LABELS)
    trained = train(dealt, max_epochs=40, patience=3, learning_rate=1e-2)
    history = trained.history
    assert len(history) == trained.best_epoch + 3 < 40
    best = history.loc[history["validation_loss"].idxmin()]
    assert best["epoch"] == trained.best_epoch
    found = predict(trained.network, IMAGES[65:85])
    loss = -np.log(found[np.arange(20), dealt[65:85]]).mean()
    assert loss == pytest.approx(best["validation_loss"], rel=1e-4)
    right = (found.argmax(axis=1) == dealt[65:85]).mean()
    assert right == pytest.approx(best["validation_accuracy"])


# --- interrupted, repeated, averaged --------------------------------------------------------


class Interruptible(nn.Module):
    """A network that is stopped by Ctrl-C in a batch of training, while that is set."""

    at = None

    def __init__(self):
        super().__init__()
        self.layers, self.n_batches = small_network().layers, 0

    def forward(self, inputs):
        self.n_batches += self.training
        if self.n_batches == Interruptible.at and self.training:
            raise KeyboardInterrupt
        return self.layers(inputs)


@pytest.mark.parametrize("batch", [9, 10])  # the first of epoch 3, or in the middle of it
def test_training_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, batch):
    whole, handler = train(build=Interruptible), signal.getsignal(signal.SIGINT)
    options = {"build": Interruptible, "checkpoint": tmp_path / "state"}
    monkeypatch.setattr(Interruptible, "at", batch)
    with pytest.raises(KeyboardInterrupt):
        train(**options)
    assert signal.getsignal(signal.SIGINT) is handler
    (folder,) = tmp_path.iterdir()
    monkeypatch.setattr(Interruptible, "at", None)
    other = train(**options | {"seed": 1})  # not a continuation
    assert other.network.n_batches == 6 * 4
    resumed = train(**options)
    assert resumed.network.n_batches == 4 * 4
    pandas.testing.assert_frame_equal(resumed.history[LOSSES], whole.history[LOSSES])
    assert resumed.history["seconds"].is_monotonic_increasing
    np.testing.assert_array_equal(predict(resumed.network, IMAGES), predict(whole.network, IMAGES))
    assert not folder.exists()


class Terminated(Interruptible):
    """A network whose process is told to end in the first batch."""

    def forward(self, inputs):
        if self.training and self.n_batches == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().forward(inputs)


def test_a_process_that_is_told_to_end_does_end():
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        train(build=Terminated)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_callers_random_numbers_stay():
    torch.manual_seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    state = np.random.get_state()[1].copy()
    train(max_epochs=1)
    torch.testing.assert_close(torch.rand(3), expected[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_several_seeds_are_averaged():
    trained = fit_seeds(small_network, IMAGES, LABELS, SPLIT, **QUICK, seeds=(0, 1))
    assert len(trained) == 2
    parts = [predict(t.network, IMAGES, batch_size=7) for t in trained]
    average = average_predictions(trained, IMAGES)
    np.testing.assert_allclose(average, np.mean(parts, axis=0), atol=1e-6)
    np.testing.assert_allclose(average.sum(axis=1), 1, atol=1e-5)
    assert np.abs(parts[0] - parts[1]).max() > 1e-3


def test_epochs_are_logged_where_there_is_no_terminal_and_lightning_is_silent(caplog, capfd):
    with caplog.at_level(logging.INFO):
        train(max_epochs=2)
    assert "Epoch 2: training loss" in caplog.text
    assert len(caplog.records) == 2
    assert capfd.readouterr() == ("", "")


# --- where a GPU is -------------------------------------------------------------------------

TEACHER = {"teacher_logits": 4 * np.eye(3)[LABELS]}
STEP = StudentOnGPU.step
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU")


class FakeGraph:
    """A CUDA graph that replays the step on the processor; capturing it computes nothing."""

    made: ClassVar = []

    def __init__(self):
        self.n_replays, self.step = 0, None
        self.made.append(self)

    def replay(self):
        self.n_replays += 1
        self.step()


@pytest.fixture
def fake_graphs(monkeypatch):
    """Let the student of a GPU be trained on the processor."""
    stream = SimpleNamespace(wait_stream=lambda other: None)
    step, capturing = StudentOnGPU.step, []

    def recorded(student, *batch):
        if not capturing:
            return step(student, *batch)
        capturing[0].step = lambda: step(student, *batch)
        return None

    @contextlib.contextmanager
    def capture(graph, stream):
        capturing.append(graph)
        yield
        capturing.clear()

    fakes = {"Stream": lambda: stream, "current_stream": lambda: stream, "CUDAGraph": FakeGraph}
    fakes |= {"stream": contextlib.nullcontext, "graph": capture}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(StudentOnGPU, "step", recorded)
    monkeypatch.setattr(StudentOnGPU, "stream", None)
    monkeypatch.setattr(training, "Student", partial(StudentOnGPU, gradient_clip=1.0))
    monkeypatch.setattr(FakeGraph, "made", [])
    return FakeGraph.made


@pytest.mark.parametrize("batch_size", [16, 20, 65])
def test_replayed_steps_are_the_same_steps(request, batch_size):
    options = {"batch_size": batch_size, "max_epochs": 4, **TEACHER}
    expected = train(**options)
    graphs = request.getfixturevalue("fake_graphs")
    replayed = train(**options)
    full, n_batches = 65 // batch_size, (65 - (65 % batch_size == 1)) / batch_size
    n_small = 4 * (n_batches != full)
    assert [graph.n_replays for graph in graphs] == [4 * full - 3 + (full < 3) * n_small]
    pandas.testing.assert_frame_equal(replayed.history[LOSSES], expected.history[LOSSES])
    found = predict(replayed.network, IMAGES), predict(expected.network, IMAGES)
    np.testing.assert_array_equal(*found)


def test_interrupted_training_goes_on_with_a_graph_of_its_own(tmp_path, fake_graphs, monkeypatch):
    whole = train(build=Interruptible)
    monkeypatch.setattr(Interruptible, "at", 14)
    with pytest.raises(KeyboardInterrupt):
        train(build=Interruptible, checkpoint=tmp_path / "state")
    monkeypatch.setattr(Interruptible, "at", None)
    resumed = train(build=Interruptible, checkpoint=tmp_path / "state")
    assert [graph.n_replays for graph in fake_graphs] == [21, 11, 9]
    pandas.testing.assert_frame_equal(resumed.history[LOSSES], whole.history[LOSSES])


def test_what_cannot_be_captured_is_trained_all_the_same(fake_graphs, monkeypatch, caplog):
    expected = train(max_epochs=3)

    @contextlib.contextmanager
    def refuse(graph, stream):
        yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", refuse)
    monkeypatch.setattr(StudentOnGPU, "step", STEP)
    with caplog.at_level("WARNING"):
        trained = train(max_epochs=3)
    assert caplog.text.count("No CUDA graph") == 1
    assert len(trained.history) == len(expected.history)


def lstm():
    return networks.LSTMClassifier(6, 5, 6, 3)


@needs_gpu
@pytest.mark.parametrize("build", [small_network, lstm])
def test_a_gpu_learns_the_same_with_a_graph_and_without(monkeypatch, build):
    inputs = IMAGES if build is small_network else IMAGES.reshape(105, 6, 5, 6)
    monkeypatch.setattr(networks, "DROPOUT", 0.25 if build is small_network else 0.0)
    options = {"inputs": inputs, "build": build, "device": "cuda", "max_epochs": 3, **TEACHER}
    graph = train(**options).history
    monkeypatch.setattr(StudentOnGPU, "WARM_UP", 10**9)
    eager = train(**options).history
    np.testing.assert_allclose(graph[LOSSES], eager[LOSSES], rtol=1e-3, atol=1e-3)


@needs_gpu
def test_other_dropout_is_drawn_in_each_replay():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = nn.Linear(180, 3), nn.Dropout(0.5)
            self.register_buffer("patterns", torch.zeros(6 * 4, 16 * 3))
            self.register_buffer("n", torch.zeros(1, dtype=torch.int64))

        def forward(self, inputs):
            logits = self.layer(inputs.flatten(1))
            dropped = self.drop(torch.ones_like(logits))
            if self.training and len(inputs) == 16:
                self.patterns.index_copy_(0, self.n, dropped.flatten()[None])
                self.n += 1
            return logits * dropped

    found = train(build=Counting, device="cuda", patience=99).network.state_dict()
    patterns = found["patterns"][: int(found["n"])].cpu().numpy()
    assert len(patterns) > 4
    assert len(np.unique(patterns, axis=0)) == len(patterns)


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [IMAGES * np.nan, IMAGES * 1e37])
def test_divergence_is_an_error(inputs):
    with pytest.raises(TrainingError, match="Training diverged in epoch"):
        train(inputs=inputs, build=Watched)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error():
    with pytest.raises(TrainingError, match="PyTorch sees no GPU"):
        train(device="cuda")


def test_trials_lie_on_the_device_as_convolutions_like_them():
    tensor = training.on_device(IMAGES.astype(np.float64), torch.device("cpu"))
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert training.on_device(LABELS.astype(np.int8), torch.device("cpu")).dtype == torch.int64
