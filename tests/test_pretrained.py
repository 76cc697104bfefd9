"""The demo's models: ordinary files for ordinary libraries, and good at what they are for."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from eeglib.datasets.stimuli import CLASSES, TRAINING_SEEDS, draw_stimulus
from eeglib.decoding.teacher import DEMO_CLIP
from eeglib.reconstruction.drawing import PRETRAINED, load_pipeline, reconstruct
from tools import evaluate_demo_models as evaluate
from tools import train_demo_clip, train_demo_diffusion
from tools.drawings import CONTEXT_LENGTH, SIZE, captions, training_drawings


@pytest.fixture(scope="module")
def held_out() -> np.ndarray:
    return training_drawings(4, train_demo_clip.HELD_OUT).reshape(-1, SIZE, SIZE, 3)


@pytest.fixture
def few_drawings(monkeypatch):
    """Spares the trainings most of the drawing: noise will do to see that they run."""

    def noise(per_class, first=0, workers=2):
        return np.random.default_rng(first).integers(
            0, 256, (40, min(per_class, 4), SIZE, SIZE, 3), np.uint8
        )

    monkeypatch.setattr(train_demo_clip, "training_drawings", noise)
    monkeypatch.setattr(train_demo_diffusion, "training_drawings", noise)


def weights(folder) -> dict[str, torch.Tensor]:
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            part = file.parent.relative_to(folder)
            found |= {f"{part}.{key}": tensors.get_tensor(key) for key in tensors.keys()}
    return found


# --- files ----------------------------------------------------------------------------------


def test_files_are_small_and_safe():
    files = [
        f for p in (DEMO_CLIP, PRETRAINED / "demo_diffusion") for f in p.rglob("*") if f.is_file()
    ]
    assert sum(f.stat().st_size for f in files) < 15_000_000
    assert {f.suffix for f in files} <= {".json", ".safetensors"}


@pytest.mark.parametrize("folder", [DEMO_CLIP, PRETRAINED / "demo_diffusion"], ids=lambda f: f.name)
def test_weights_are_half_precision_and_finite(folder):
    tensors = [t for t in weights(folder).values() if t.is_floating_point()]
    assert len(tensors) > 50
    assert {t.dtype for t in tensors} == {torch.float16}
    assert all(torch.isfinite(t).all() for t in tensors)


def test_model_card_names_what_was_trained():
    card = (DEMO_CLIP.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("train_demo_clip", "train_demo_diffusion", "MIT", "seed", str(TRAINING_SEEDS)):
        assert word in card


def test_training_drawings_come_from_seeds_of_their_own():
    drawings = training_drawings(1, first=3, workers=1)
    assert drawings.shape == (40, 1, SIZE, SIZE, 3)
    expected = np.asarray(draw_stimulus(7, TRAINING_SEEDS + 3))
    np.testing.assert_array_equal(drawings[7, 0], expected)


# --- words ----------------------------------------------------------------------------------


def test_every_caption_fits_and_differs_and_any_text_is_valid():
    _, _, tokenizer = evaluate.load_demo_clip()
    everything = [text for row in captions() for text in row]
    tokens = tokenizer(everything)
    assert tokens.shape == (len(everything), CONTEXT_LENGTH)
    assert len({tuple(row.tolist()) for row in tokens}) == len(everything)
    end = tokens.max()
    assert (tokens == end).any(dim=1).all()  # none was cut
    odd = tokenizer(["", "a 漢字 \x00 \u200b", "word " * 99])
    assert odd.min() >= 0
    assert odd.max() == end


def test_tokenizers_of_both_models_agree():
    _, _, tokenizer = evaluate.load_demo_clip()
    other = load_pipeline("demo").tokenizer
    for text in captions()[0]:
        assert tokenizer.tokenizer(text).input_ids == other(text).input_ids


# --- what they can --------------------------------------------------------------------------


def test_clip_names_drawings_that_it_never_saw(held_out):
    named = evaluate.name_pictures([Image.fromarray(drawing) for drawing in held_out])
    labels = np.repeat(np.arange(40), 4)
    assert (named == labels).mean() > 0.9
    assert (named == np.roll(labels, 4)).mean() < 0.1  # a neighbour's name is no answer


def test_pipeline_draws_what_the_prompt_says():
    pipeline = load_pipeline("demo", device="cpu")
    drawn = reconstruct(pipeline, captions()[0], [11] * 40, steps=20, batch_size=10)
    named = evaluate.name_pictures(drawn)
    wrong = [CLASSES[label].name for label in range(40) if named[label] != label]
    assert len(wrong) <= 8, wrong


# --- training and measuring -----------------------------------------------------------------


def test_clip_training_is_seeded_and_makes_a_model_that_open_clip_loads(
    few_drawings, tmp_path, monkeypatch
):
    made = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        train_demo_clip.train(tmp_path / name, per_class=4, epochs=1, seed=seed)
        made.append(weights(tmp_path / name))
    first, again, other = made
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)
    monkeypatch.setattr(evaluate, "DEMO_CLIP", tmp_path / "one")
    assert len(evaluate.name_pictures([draw_stimulus(0, 0)])) == 1


def test_diffusion_training_goes_on_from_its_checkpoint(few_drawings, tmp_path):
    folder, work = tmp_path / "pipeline", tmp_path / "work"
    steps, minutes = [], 0.01
    for _ in range(2):
        train_demo_diffusion.main(folder, work, 4, (0.01, minutes), seed=0)
        state = torch.load(work / "denoiser.pt", weights_only=True)
        steps.append(state["steps"])
        minutes = state["spent"] / 60 + 0.01  # a slow machine's step may outlast its time
    assert 0 < steps[0] < steps[1]
    [picture] = reconstruct(load_pipeline(folder), ["an image of a banana"], [0], steps=2)
    assert picture.size == (SIZE, SIZE)
    train_demo_diffusion.main(tmp_path / "further", tmp_path / "new", 4, (0, 0), 1, start=folder)
    first, further = weights(folder), weights(tmp_path / "further")
    assert all(torch.equal(first[key], further[key]) for key in first)  # no minute, no change


def test_the_models_are_data_not_code():
    assert not list(DEMO_CLIP.parent.rglob("*.py"))
