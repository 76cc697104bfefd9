"""Trials, prompts, pipelines and pictures: known answers, one seed per picture, bad input."""

import http.server
import json
import shutil
import threading

import numpy as np
import pandas
import pytest
import torch
from PIL import Image

from eeglib.reconstruction.drawing import (
    ReconstructionError,
    choose_trials,
    fingerprint,
    load_pipeline,
    open_shown,
    picture_seeds,
    prompt,
    reconstruct,
    trajectory,
)

QUICK = {"steps": 3, "guidance_scale": 3.0, "size": 64}
PROMPTS = ["an image of a banana", "an image of an African elephant", "an image of a banana"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained pipeline with all the parts of the shipped one."""
    from tools.drawings import save_tokenizer
    from tools.train_demo_diffusion import build, save_pipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("a pipeline")
    save_pipeline(folder, build(save_tokenizer(folder / "tokenizer")))
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    return load_pipeline(folder)


@pytest.fixture
def calls(pipeline, monkeypatch):
    """How many pictures each call of the pipeline drew, and what its text encoder read."""
    drawn, read, kind = [], [], type(pipeline)
    call, encode = kind.__call__, kind.encode_prompt

    def counting(self, **kwargs):
        drawn.append(len(kwargs["prompt_embeds"]))
        return call(self, **kwargs)

    def reading(self, prompt, *args, **kwargs):
        read.extend(prompt or [])
        return encode(self, prompt, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", counting)
    monkeypatch.setattr(kind, "encode_prompt", reading)
    return drawn, read


def pixels(picture) -> np.ndarray:
    return np.asarray(picture, dtype=int)


# --- trials and prompts ---------------------------------------------------------------------


def test_trials_are_chosen_one_per_class_in_turn():
    metadata = pandas.DataFrame(
        {"label": [2, 1, 1, 0, 1, 0], "order": [5, 0, 1, 3, 2, 4]}, index=[9, 8, 7, 6, 5, 4]
    )
    np.testing.assert_array_equal(choose_trials(metadata, 5), [1, 3, 0, 2, 5])
    assert len(choose_trials(metadata, 100)) == 6
    np.testing.assert_array_equal(choose_trials(metadata.assign(order=-1), 3), [0, 1, 3])


def test_trials_whose_order_nobody_kept_are_drawn_too(pipeline):
    """Order -1: randomised trials, THINGS-EEG2, EEG-ImageNet without its file of the order."""
    trials = pandas.DataFrame({"order": [7, -1, 0]}, index=[30, 20, 10])
    assert picture_seeds(trials) == [7, 1, 0]
    unknown = picture_seeds(trials.assign(order=-1))
    assert unknown == [0, 1, 2]
    pictures = reconstruct(pipeline, PROMPTS[:1] * 3, unknown, **QUICK)
    assert len({picture.tobytes() for picture in pictures}) == 3


def test_what_was_shown_is_opened_in_the_order_of_the_trials_and_checked(tmp_path):
    names = ["banana", "iron", "pizza"]
    for grey, name in enumerate(names):
        Image.new("L", (20, 20), grey).save(tmp_path / f"{name}.png")
    files = [tmp_path / f"{name}.png" for name in names]
    stimuli = pandas.DataFrame({"image": list("abc"), "class_name": names, "file": files})
    trials = pandas.DataFrame({"image": list("ca"), "class_name": ["pizza", "banana"]})
    shown = open_shown(stimuli, trials)
    assert [picture.getpixel((0, 0)) for picture in shown] == [(2, 2, 2), (0, 0, 0)]
    swapped = trials.assign(class_name=["banana", "pizza"])
    with pytest.raises(ReconstructionError, match=r"2 of 2 .*first c\."):
        open_shown(stimuli, swapped)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("banana", "an image of a banana"),
        ("African elephant", "an image of an African elephant"),
        ("giant_panda\n", "an image of a giant panda"),
        ("{class}", "an image of a {class}"),
        ("Käse 漢字", "an image of a Käse 漢字"),
    ],
)
def test_prompt_has_the_right_article_and_no_odd_characters(name, expected):
    assert prompt(name) == expected


def test_prompt_follows_the_template():
    assert prompt("iron", "a photo of a {class}, a {class}") == "a photo of an iron, an iron"
    with pytest.raises(ReconstructionError, match=r"must contain \{class\}"):
        prompt("banana", "an image of a banana")
    with pytest.raises(ReconstructionError, match="letter or digit"):
        prompt(" \n-")


# --- pictures -------------------------------------------------------------------------------


def test_a_picture_depends_on_its_prompt_and_seed_alone(pipeline):
    jobs = list(zip(PROMPTS, [1, 1, 2], strict=True))
    together = reconstruct(pipeline, PROMPTS, [1, 1, 2], **QUICK, batch_size=3)
    alone = [reconstruct(pipeline, [text], [seed], **QUICK)[0] for text, seed in jobs]
    for one, other in zip(together, alone, strict=True):
        assert one.size == (64, 64)
        assert np.abs(pixels(one) - pixels(other)).max() <= 1  # rounding
    assert np.abs(pixels(together[0]) - pixels(together[2])).mean() > 1  # another seed
    assert np.abs(pixels(together[0]) - pixels(together[1])).max() > 0  # another prompt


def test_prompts_that_are_encoded_once_draw_what_prompts_draw(pipeline):
    [picture] = reconstruct(pipeline, PROMPTS[1:2], [5], **QUICK)
    [plain] = pipeline(
        prompt=PROMPTS[1], num_inference_steps=3, guidance_scale=3.0, height=64, width=64,
        generator=torch.Generator().manual_seed(5),
    ).images  # fmt: skip
    assert np.abs(pixels(picture) - pixels(plain)).max() <= 1


def test_drawing_is_in_batches_each_prompt_read_once_and_never_again(pipeline, calls, tmp_path):
    drawn, read = calls
    options = {**QUICK, "batch_size": 2, "cache_dir": tmp_path}
    first = reconstruct(pipeline, [*PROMPTS, PROMPTS[0]], [1, 1, 2, 1], **options)
    assert drawn == [2, 1]  # what is asked for twice is drawn once
    assert sorted(read) == sorted(set(PROMPTS))
    assert first[0] == first[3]
    again = reconstruct(pipeline, PROMPTS, [1, 1, 2], **options)
    assert drawn == [2, 1]
    assert len(read) == 2
    assert first[:3] == again
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 4},
        {"guidance_scale": 1.0},
        {"size": 32},
        {"seeds": [2]},
        {"prompts": ["an image of a broom"]},
    ],
)
def test_any_other_setting_draws_anew(pipeline, calls, tmp_path, change):
    options = {"prompts": PROMPTS[:1], "seeds": [1], **QUICK, "cache_dir": tmp_path}
    [first] = reconstruct(pipeline, **options)
    [second] = reconstruct(pipeline, **(options | change))
    assert calls[0] == [1, 1]
    assert first != second


def test_a_picture_that_was_cut_off_leaves_no_file(pipeline, monkeypatch, tmp_path):
    def cut(self, file, *_):
        file.write_bytes(b"half")
        raise OSError("disk full")

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", cut)
        with pytest.raises(OSError, match="disk full"):
            reconstruct(pipeline, PROMPTS[:1], [1], **QUICK, cache_dir=tmp_path)
    [first] = reconstruct(pipeline, PROMPTS[:1], [1], **QUICK, cache_dir=tmp_path)
    assert reconstruct(pipeline, PROMPTS[:1], [1], **QUICK, cache_dir=tmp_path) == [first]


def test_other_weights_or_scheduler_are_another_model(pipeline, folder):
    other = load_pipeline(folder)
    assert fingerprint(other) == fingerprint(pipeline)
    with torch.no_grad():
        other.unet.conv_out.bias[0] += 1e-3
    assert fingerprint(other) != fingerprint(pipeline)
    fast = load_pipeline(folder, scheduler="DPMSolverMultistepScheduler")
    assert type(fast.scheduler).__name__ == "DPMSolverMultistepScheduler"
    assert fast.scheduler.config.prediction_type == "v_prediction"  # of the model, kept
    assert fingerprint(fast) != fingerprint(pipeline)


def test_too_little_memory_halves_the_batch_and_keeps_what_is_drawn(
    pipeline, monkeypatch, tmp_path, capsys
):
    real, limit = type(pipeline).__call__, 2

    def call(self, **kwargs):
        if len(kwargs["prompt_embeds"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", call)
    options = {"prompts": PROMPTS[:1] * 5, **QUICK, "cache_dir": tmp_path}
    assert len(reconstruct(pipeline, seeds=range(5), **options, batch_size=5)) == 5
    assert "going on with 2" in capsys.readouterr().out
    limit = 0
    with pytest.raises(ReconstructionError, match="single picture"):
        reconstruct(pipeline, seeds=range(3, 8), **options)
    assert len(list(tmp_path.iterdir())) == 5


def test_trajectory_goes_from_noise_to_the_picture(pipeline):
    frames = trajectory(pipeline, PROMPTS[0], 2, **QUICK)
    assert [step for step, _ in frames] == [0, 1, 2, 3]
    [picture] = reconstruct(pipeline, PROMPTS[:1], [2], **QUICK)
    assert np.abs(pixels(frames[-1][1]) - pixels(picture)).max() <= 1
    assert np.abs(pixels(frames[0][1]) - pixels(picture)).mean() > 1
    long = trajectory(pipeline, PROMPTS[0], 2, **(QUICK | {"steps": 14}))
    assert [step for step, _ in long] == list(range(0, 15, 2))


# --- loading --------------------------------------------------------------------------------


def test_loading_writes_nothing_on_a_page(folder, capfd):
    load_pipeline(folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def other_shape(folder):
    config = folder / "vae/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"latent_channels": 8}))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "model_index.json").unlink(),
        lambda f: shutil.rmtree(f / "text_encoder"),
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"short"),
        lambda f: (f / "vae/config.json").write_text("{"),
        lambda f: (f / "tokenizer/tokenizer.json").write_text("?"),
        other_shape,
    ],
    ids=["no index", "no part", "cut weights", "cut config", "bad tokenizer", "other shape"],
)
def test_folder_with_a_damaged_part(folder, tmp_path, damage):
    broken = shutil.copytree(folder, tmp_path / "broken")
    damage(broken)
    with pytest.raises(ReconstructionError, match=r"cannot be loaded: .*Copy the whole folder"):
        load_pipeline(broken)


def test_weights_of_which_only_a_variant_was_kept_are_found(folder, pipeline, tmp_path):
    half = shutil.copytree(folder, tmp_path / "half")
    for path in half.rglob("*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert fingerprint(load_pipeline(half)) == fingerprint(pipeline)
    # With its plain form beside it, the plain one is read.
    shutil.copytree(folder, half, dirs_exist_ok=True)
    next((half / "unet").glob("*.fp16.safetensors")).write_bytes(b"cut")
    assert fingerprint(load_pipeline(half)) == fingerprint(pipeline)


def test_a_single_file_or_a_folder_that_is_not_there_says_so(tmp_path):
    (tmp_path / "v1-5.safetensors").write_bytes(b"0")
    with pytest.raises(ReconstructionError, match=r"single file.*from_single_file"):
        load_pipeline(tmp_path / "v1-5.safetensors")
    with pytest.raises(ReconstructionError, match=r"no such folder.*from the profile's file"):
        load_pipeline("./models/sd")


def test_weights_that_may_run_code_are_not_opened(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "pickled")
    (broken / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, broken / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ReconstructionError, match="safetensors"):
        load_pipeline(broken)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on this machine that answers every question with the error it is told."""
    import huggingface_hub.constants
    from huggingface_hub import hf_api

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            code, name = self.server.answer
            self.send_response(code)
            self.send_header("X-Error-Code", name)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hf_api.api, "endpoint", address)
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("answer", [(404, "RepoNotFound"), (403, "GatedRepo"), None])
def test_a_repository_that_cannot_be_had_says_what_to_do(hub, answer):
    hub.answer = answer
    if answer is None:
        hub.shutdown()
        hub.server_close()
    with pytest.raises(ReconstructionError, match=r"nobody/nothing.*owner/name.*auth login.*demo"):
        load_pipeline("nobody/nothing")


@pytest.mark.parametrize("model", ["/no/such/folder", "two words", "a/b/c", ""])
def test_name_that_is_neither_folder_nor_repository(model):
    with pytest.raises(ReconstructionError, match=r"cannot be loaded.*repository"):
        load_pipeline(model)


@pytest.mark.parametrize("name", ["NoScheduler", "StableDiffusionPipeline"])
def test_a_scheduler_that_does_not_go_with_the_model(folder, name):
    with pytest.raises(ReconstructionError, match=f"{name}.*DDIMScheduler"):
        load_pipeline(folder, scheduler=name)
