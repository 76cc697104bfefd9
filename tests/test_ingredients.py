"""Each ingredient at its limits, and in a training that still learns."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from eeglib.decoding.distillation import TrainingError, fit, predict, residual_network
from eeglib.decoding.ingredients import augment, embedding_loss, mixed, shift_in_time
from eeglib.decoding.networks import ResidualCNN, SqueezeExcitation, count_parameters
from eeglib.decoding.splits import Split
from eeglib.decoding.training import TrainingRun, distillation_loss, train
from eeglib.decoding.training_data import TrainingData
from eeglib.profile import IngredientSettings, TrainingSettings

SPLIT = Split(np.arange(64), np.arange(64, 84), np.arange(84, 104))
LABELS = np.arange(104) % 3
SETTINGS = TrainingSettings(max_epochs=20, batch_size=16, learning_rate=2e-3, device="cpu")
ALL = IngredientSettings(
    time_shift=1,
    channel_dropout=0.1,
    noise=0.1,
    mixup=0.2,
    averaging=0.8,
    embedding=0.5,
    attention=True,
    calibration=True,
)


def images():
    found = np.random.default_rng(0).standard_normal((104, 6, 5, 6)).astype(np.float32)
    found[np.arange(104), LABELS] += 2
    return found


def embeddings():
    rng = np.random.default_rng(1)
    return rng.standard_normal((3, 7))[LABELS] + 0.1 * rng.standard_normal((104, 7)) + 5


def small_network(attention=False):
    return ResidualCNN(6, 5, 6, 3, n_parameters=200_000, attention=attention)


def fitted(ingredients, settings=SETTINGS, seed=0, **options):
    return fit(
        lambda: small_network(ingredients.attention),
        images(),
        LABELS,
        SPLIT,
        settings,
        4 * np.eye(3)[LABELS],
        seed,
        ingredients=ingredients,
        teacher_features=embeddings(),
        **options,
    )


def test_shifts_go_both_ways_and_zeros_enter():
    times = torch.arange(1.0, 6)
    batch = times.expand(5, 2, 3, 5).clone()
    shift_in_time(batch, 2)
    expected = [[3, 4, 5, 0, 0], [2, 3, 4, 5, 0], [1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 0, 1, 2, 3]]
    for trial, wanted in zip(batch, expected, strict=True):
        torch.testing.assert_close(trial, torch.tensor(wanted).float().expand(2, 3, 5))
    with pytest.raises(TrainingError, match="is 5, but an image has only 5 columns"):
        shift_in_time(batch, 5)


def test_whole_channels_are_dropped_and_the_others_scaled():
    torch.manual_seed(0)
    batch = torch.ones(200, 50, 3, 4)
    augment(batch, IngredientSettings(channel_dropout=0.2))
    values = batch.flatten(2)
    assert (values == values[..., :1]).all()
    assert set(values.unique().tolist()) == {0.0, 1.25}
    assert float((values == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    with pytest.raises(TrainingError, match="the only channel"):
        augment(torch.ones(2, 1, 3, 4), IngredientSettings(channel_dropout=0.2))


def test_noise_has_its_size_and_nothing_is_done_unasked():
    torch.manual_seed(0)
    batch = torch.zeros(50, 10, 8, 9)
    augment(batch, IngredientSettings(noise=0.3))
    assert float(batch.std()) == pytest.approx(0.3, rel=0.02)
    before = batch.clone()
    augment(batch, IngredientSettings())
    torch.testing.assert_close(batch, before)


def test_mixup_mixes_trials_and_its_loss_is_that_of_mixed_targets():
    torch.manual_seed(0)
    batch = torch.randn(8, 2, 3)
    found, share, order = mixed(batch, 1.0)
    torch.testing.assert_close(found, share * batch + (1 - share) * batch[order])
    labels, logits = torch.arange(8) % 3, torch.randn(8, 3)
    one_hot = functional.one_hot(labels, 3).float()
    targets = share * one_hot + (1 - share) * one_hot[order]
    both = share * distillation_loss(logits, labels, None) + (1 - share) * distillation_loss(
        logits, labels[order], None
    )
    torch.testing.assert_close(both, functional.cross_entropy(logits, targets))
    shares = [mixed(batch, 0.2)[1] for _ in range(2000)]
    assert np.var(shares) == pytest.approx(0.25 / 1.4, rel=0.05)  # of Beta(0.2, 0.2)


def test_the_loss_of_embeddings_is_one_less_the_cosine():
    found, targets = torch.tensor([[1.0, 0], [0, 2], [3, 3]]), torch.tensor([[2.0, 0]] * 3)
    expected = 1 - (1 + 0 + np.sqrt(0.5)) / 3
    assert float(embedding_loss(found, targets)) == pytest.approx(expected, rel=1e-6)


def test_the_average_of_the_weights_by_hand():
    data = TrainingData.of(images(), LABELS, SPLIT, None, None, torch.device("cpu"))
    settings = SETTINGS.model_copy(update={"max_epochs": 2, "batch_size": 32})
    run = TrainingRun(small_network(), settings, data, 0, None, IngredientSettings(averaging=0.8))
    seen = []
    run.optimizer.register_step_post_hook(
        lambda *_: seen.append(run.network.layers[-1].weight.detach().clone())
    )
    train(run, data, progress=False)
    expected = seen[0]
    for weight in seen[1:]:
        expected = 0.8 * expected + 0.2 * weight
    torch.testing.assert_close(run.judged.layers[-1].weight.detach(), expected)
    assert len(seen) == 4
    assert not torch.allclose(expected, seen[-1])


def test_attention_weighs_filters_from_zero_to_one_at_the_same_size():
    layer = SqueezeExcitation(8)
    maps = torch.randn(2, 8, 3, 3)
    weights = layer(maps) / maps
    assert (weights > 0).all()
    assert (weights < 1).all()
    torch.testing.assert_close(weights, weights[..., :1, :1].expand_as(weights))
    nn.init.zeros_(layer.weights[3].weight)
    nn.init.zeros_(layer.weights[3].bias)
    torch.testing.assert_close(layer(maps), maps / 2)
    network = residual_network((128, 21, 23), 40, attention=True)()
    assert 1_100_000 <= count_parameters(network) <= 1_200_000


@pytest.mark.parametrize("name", IngredientSettings.model_fields)
def test_with_each_ingredient_a_separable_problem_is_learned(name):
    student = fitted(IngredientSettings(**{name: getattr(ALL, name)}))
    named = predict(student.network, images()[84:]).argmax(axis=1)
    assert (named == LABELS[84:]).mean() >= 0.85


def test_all_together_resume_where_they_were_interrupted(tmp_path):
    settings = SETTINGS.model_copy(update={"max_epochs": 5})
    whole = fitted(ALL, settings)
    file = tmp_path / "state.pt"
    fitted(ALL, settings.model_copy(update={"max_epochs": 2}), checkpoint=file)
    resumed = fitted(ALL, settings, checkpoint=file)
    np.testing.assert_allclose(
        predict(resumed.network, images()), predict(whole.network, images()), atol=1e-5
    )
    with pytest.raises(TrainingError, match="of another network, seed, setting"):
        fitted(ALL.model_copy(update={"noise": 0.2}), settings, checkpoint=file)


def test_seeds_both_ways():
    settings = SETTINGS.model_copy(update={"max_epochs": 2})
    one, same, other = (
        predict(fitted(ALL, settings, seed).network, images()) for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(one, same, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3


def test_embeddings_need_a_teacher_and_the_residual_network():
    wanted = IngredientSettings(embedding=1.0)
    with pytest.raises(TrainingError, match="needs the teacher's features"):
        fit(small_network, images(), LABELS, SPLIT, SETTINGS, ingredients=wanted)
    with pytest.raises(TrainingError, match="not for Sequential"):
        fit(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(180, 3)),
            images(),
            LABELS,
            SPLIT,
            SETTINGS,
            ingredients=wanted,
            teacher_features=embeddings(),
        )
    with pytest.raises(TrainingError, match="teacher features for 3"):
        fit(
            small_network,
            images(),
            LABELS,
            SPLIT,
            SETTINGS,
            ingredients=wanted,
            teacher_features=np.ones((3, 7)),
        )
