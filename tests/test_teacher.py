"""The teacher: CLIP's own CLS token, a classifier that ignores test images, honest failures."""

import json

import numpy as np
import open_clip
import pandas
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from eeglib.decoding.splits import Split
from eeglib.decoding.teacher import (
    Teacher,
    TeacherError,
    cls_tokens,
    fit_teacher,
    load_clip,
)

TEST = np.arange(50, 60)
SPLIT = Split(np.arange(40), np.arange(40, 50), TEST)
LABELS = np.arange(60) % 5
TRAINING = {"learning_rate": 1e-2, "max_epochs": 300, "patience": 20}


def fitted(features, labels=LABELS, **changed):
    return fit_teacher(features, labels, SPLIT, **TRAINING | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small open_clip model with random weights, saved as open_clip saves models."""
    path = tmp_path_factory.mktemp("clip")
    config = {
        "model_cfg": {
            "embed_dim": 8,
            "vision_cfg": {
                "image_size": 32,
                "patch_size": 16,
                "layers": 2,
                "width": 24,
                "head_width": 12,
            },
            "text_cfg": {
                "context_length": 8,
                "vocab_size": 32,
                "width": 8,
                "heads": 2,
                "layers": 1,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    torch.manual_seed(0)
    model = open_clip.CLIP(
        **{k: config["model_cfg"][k] for k in ("embed_dim", "vision_cfg", "text_cfg")}
    )
    (path / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    return path


@pytest.fixture(scope="module")
def clip(folder):
    return load_clip(str(folder))


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"image_{i}.png" for i in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    return (2 * np.eye(12)[LABELS] + rng.standard_normal((60, 12)) * 0.5).astype(np.float32)


def test_tokens_are_what_the_encoder_projects(clip, files):
    tokens = cls_tokens(clip, files, batch_size=2)
    assert tokens.shape == (5, 24)
    assert tokens.dtype == np.float32
    pictures = torch.stack([clip.prepare(Image.open(f)) for f in files])
    with torch.no_grad():
        projected = clip.encoder(pictures)
        np.testing.assert_allclose(
            torch.from_numpy(tokens) @ clip.encoder.proj, projected, atol=1e-5
        )


def test_the_shipped_model_has_tokens(files):
    clip = load_clip("demo")
    assert cls_tokens(clip, files).std(axis=0).min() > 0
    assert not any(p.requires_grad for p in clip.encoder.parameters())


@pytest.mark.parametrize("content", [b"not a picture", b"\x89PNG\r\n\x1a\n", None])
def test_an_unusable_file_is_named(clip, files, content):
    files[1].unlink() if content is None else files[1].write_bytes(content)
    with pytest.raises(TeacherError, match=r"image_1\.png is no readable image"):
        cls_tokens(clip, files, batch_size=2)


def test_pictures_of_any_mode_are_read(clip, tmp_path):
    paths = []
    for mode in ("L", "RGBA", "P", "CMYK"):
        paths.append(tmp_path / f"{mode}.tiff")
        Image.new(mode, (20, 60)).save(paths[-1])
    assert np.isfinite(cls_tokens(clip, paths)).all()


@pytest.mark.parametrize(
    ("model", "weights", "words"),
    [
        ("ViT-L-15", "openai", "'ViT-L-15' not found"),
        ("ViT-L-14", None, "needs openai"),
        ("ViT-L-14", "openia", "teacher.weights is 'openia'"),
    ],
)
def test_names_that_do_not_exist_are_refused_before_any_download(model, weights, words):
    with pytest.raises(TeacherError, match=words):
        load_clip(model, weights)


def test_a_folder_without_a_model_or_with_damaged_weights_is_refused(folder, tmp_path):
    with pytest.raises(TeacherError, match=r"no open_clip_config.json.*ViT-L-14"):
        load_clip(str(tmp_path))
    (tmp_path / "open_clip_config.json").write_text((folder / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(TeacherError, match="could not be loaded"):
        load_clip(str(tmp_path))


def test_a_hub_out_of_reach_is_explained(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match="place the files by hand"):
        load_clip("hf-hub:nobody/nothing")


def test_weights_of_openai_get_their_activation(monkeypatch):
    seen = {}

    def create(name, **options):
        seen[name] = options
        raise RuntimeError("no network")

    monkeypatch.setattr("open_clip.create_model_from_pretrained", create)
    for weights in ("openai", "laion2b_s32b_b82k"):
        with pytest.raises(TeacherError, match="no network"):
            load_clip("ViT-L-14", weights)
        assert seen["ViT-L-14"]["force_quick_gelu"] == (weights == "openai")


def test_a_tower_without_cls_token_is_refused(monkeypatch):
    def create(name, **options):
        return open_clip.create_model("RN50", pretrained=None), None

    monkeypatch.setattr("open_clip.create_model_from_pretrained", create)
    with pytest.raises(TeacherError, match="ModifiedResNet, which has no CLS token"):
        load_clip("RN50", "openai")


def test_the_classifier_learns_and_stops(features):
    teacher = fitted(features)
    assert (teacher.logits.argmax(axis=1) == LABELS)[TEST].mean() >= 0.9
    assert teacher.logits.shape == (60, 5)
    best = teacher.history["validation_loss"].min()
    logits = torch.from_numpy(teacher.logits[40:50])
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS[40:50]))
    assert float(loss) == pytest.approx(best, rel=1e-4)
    history = fitted(features, patience=2, learning_rate=0.5).history
    assert len(history) == history["validation_loss"].idxmin() + 3


def test_test_images_and_their_labels_have_no_influence(features):
    other_features, other_labels = features.copy(), LABELS.copy()
    other_features[TEST] *= 100
    other_labels[TEST] = 3
    one = fitted(features, max_epochs=20)
    two = fitted(other_features, other_labels, max_epochs=20)
    np.testing.assert_array_equal(one.logits[:50], two.logits[:50])


def test_the_unit_of_a_feature_has_no_influence(features):
    size = np.float32(2) ** np.arange(12)  # powers of 2: no rounding
    one, two = (fitted(f, max_epochs=5).logits for f in (features, features * size))
    np.testing.assert_allclose(one, two, atol=1e-4)
    features = np.c_[features, np.ones(60, np.float32)]  # one that never changes
    assert np.isfinite(fitted(features, max_epochs=2).logits).all()


def test_permuted_labels_give_chance(features):
    right = []
    for seed in range(6):
        dealt = np.random.default_rng(seed).permutation(LABELS)
        teacher = fitted(features, dealt, max_epochs=40, seed=seed)
        right += list((teacher.logits.argmax(axis=1) == dealt)[TEST])
    assert 0.06 < np.mean(right) < 0.37


def test_seeds_both_ways(features):
    one, same, other = (fitted(features, max_epochs=3, seed=seed).logits for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-4


def test_saved_and_loaded_for_trials(features, tmp_path):
    teacher = fitted(features, max_epochs=3)
    names = [f"n{i}" for i in range(60)]
    teacher.save(tmp_path / "teacher.npz", names)
    trials = pandas.DataFrame({"image": ["n7", "n3", "n7"]})
    loaded = Teacher.load(tmp_path / "teacher.npz")
    found = loaded.of_trials(trials)
    np.testing.assert_array_equal(found.logits, teacher.logits[[7, 3, 7]])
    np.testing.assert_array_equal(found.features, features[[7, 3, 7]])
    with pytest.raises(TeacherError, match="not seen 1 of the images shown, such as 'other'"):
        loaded.of_trials(pandas.DataFrame({"image": ["n7", "other"]}))


def test_both_readings_of_equation_2():
    logits = np.array([[4.0, 0, -1], [0, 3, 0]], dtype=np.float32)
    teacher = Teacher(logits, np.zeros((2, 5), np.float32))
    np.testing.assert_array_equal(teacher.outputs("logits"), logits)
    probabilities = teacher.outputs("probabilities")
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.log(probabilities[1, 1] / probabilities[1, 0]), 3, rtol=1e-5)
