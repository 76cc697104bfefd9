"""Prompts, pipelines and pictures: known answers, one seed per picture, bad input."""

import http.server
import json
import shutil
import threading

import numpy as np
import pandas
import pytest
import torch

from eeglib.reconstruction.drawing import (
    PipelineError,
    choose_trials,
    describe_pipeline,
    fingerprint,
    load_pipeline,
    prompt,
    reconstruct,
    trajectory,
)
from eeglib.reconstruction.pipelines import offload
from eeglib.reconstruction.prompts import Mixture

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
def counted(pipeline, monkeypatch):
    """How many pictures each call of the pipeline drew."""
    drawn, real = [], type(pipeline).__call__

    def call(self, prompt, **kwargs):
        drawn.append(len(prompt))
        return real(self, prompt, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", call)
    return drawn


def pixels(picture) -> np.ndarray:
    return np.asarray(picture, dtype=int)


# --- prompts and trials ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("banana", "an image of a banana"),
        ("African elephant", "an image of an African elephant"),
        ("iron", "an image of an iron"),
        ("jack-o'-lantern", "an image of a jack-o'-lantern"),
        ("giant_panda\n", "an image of a giant panda"),
        ("{class}", "an image of a {class}"),
        ("Käse 漢字", "an image of a Käse 漢字"),
        (7, "an image of a 7"),
    ],
)
def test_prompt_has_the_right_article_and_no_odd_characters(name, expected):
    assert prompt(name) == expected


def test_prompt_follows_the_template():
    assert prompt("iron", "a photo of a {class}, a {class}") == "a photo of an iron, an iron"
    assert prompt("iron", "{class}") == "iron"


@pytest.mark.parametrize("name", ["", "  ", "\n", "---"])
def test_prompt_refuses_a_class_without_a_name(name):
    with pytest.raises(ValueError, match="letter or digit"):
        prompt(name)


def test_prompt_refuses_a_template_without_a_class():
    with pytest.raises(ValueError, match=r"must contain \{class\}"):
        prompt("banana", "an image of a banana")


def test_trials_are_chosen_one_per_class_in_turn():
    metadata = pandas.DataFrame(
        {"label": [2, 1, 1, 0, 1, 0], "order": [5, 0, 1, 3, 2, 4]}, index=[9, 8, 7, 6, 5, 4]
    )
    np.testing.assert_array_equal(choose_trials(metadata, 5), [1, 3, 0, 2, 5])
    assert len(choose_trials(metadata, 100)) == 6
    unknown = metadata.assign(order=-1)
    np.testing.assert_array_equal(choose_trials(unknown, 3), [0, 1, 3])


# --- pictures -------------------------------------------------------------------------------


def test_a_picture_depends_on_its_prompt_and_seed_alone(pipeline):
    together = reconstruct(pipeline, PROMPTS, [1, 1, 2], **QUICK, batch_size=3)
    alone = [
        reconstruct(pipeline, [p], [s], **QUICK)[0] for p, s in zip(PROMPTS, [1, 1, 2], strict=True)
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.size == (64, 64)
        assert np.abs(pixels(one) - pixels(other)).max() <= 1  # rounding
    assert np.abs(pixels(together[0]) - pixels(together[2])).mean() > 1  # another seed
    assert np.abs(pixels(together[0]) - pixels(together[1])).max() > 0  # another prompt


def test_numbers_and_size_are_free(pipeline):
    assert reconstruct(pipeline, [], []) == []
    [picture] = reconstruct(pipeline, PROMPTS[:1], np.array([3]), steps=1, size=32)
    assert picture.size == (32, 32)


def test_a_second_call_draws_nothing(pipeline, counted, tmp_path):
    first = reconstruct(pipeline, PROMPTS, [1, 1, 2], **QUICK, batch_size=2, cache_dir=tmp_path)
    assert counted == [2, 1]
    again = reconstruct(pipeline, PROMPTS, [1, 1, 2], **QUICK, batch_size=2, cache_dir=tmp_path)
    assert counted == [2, 1]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(pixels(one), pixels(other))
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
def test_any_other_setting_draws_anew(pipeline, counted, tmp_path, change):
    given = {"prompts": PROMPTS[:1], "seeds": [1], **QUICK, "cache_dir": tmp_path}
    reconstruct(pipeline, **given)
    reconstruct(pipeline, **(given | change))
    assert counted == [1, 1]


def test_what_occurs_twice_is_drawn_once(pipeline, counted):
    first, second = reconstruct(pipeline, PROMPTS[::2], [1, 1], **QUICK)
    assert counted == [1]
    assert first == second


def test_a_damaged_picture_is_drawn_again(pipeline, tmp_path):
    [first] = reconstruct(pipeline, PROMPTS[:1], [1], **QUICK, cache_dir=tmp_path)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    [again] = reconstruct(pipeline, PROMPTS[:1], [1], **QUICK, cache_dir=tmp_path)
    np.testing.assert_array_equal(pixels(first), pixels(again))


def test_other_weights_or_scheduler_are_another_model(pipeline, folder):
    other = load_pipeline(folder)
    assert fingerprint(other) == fingerprint(pipeline)
    with torch.no_grad():
        other.unet.conv_out.bias[0] += 1e-3
    assert fingerprint(other) != fingerprint(pipeline)
    other = load_pipeline(folder)
    other.scheduler = type(other.scheduler).from_config(
        other.scheduler.config, timestep_spacing="leading"
    )
    assert fingerprint(other) != fingerprint(pipeline)


def test_too_little_memory_halves_the_batch_and_keeps_what_is_drawn(
    pipeline, monkeypatch, tmp_path, capsys
):
    real, limit = type(pipeline).__call__, 2

    def call(self, prompt, **kwargs):
        if len(prompt) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, prompt, **kwargs)

    monkeypatch.setattr(type(pipeline), "__call__", call)
    given = {"prompts": PROMPTS[:1] * 5, "seeds": range(5), **QUICK, "cache_dir": tmp_path}
    assert len(reconstruct(pipeline, **given, batch_size=5)) == 5
    assert "going on with 2" in capsys.readouterr().out
    limit = 0
    with pytest.raises(PipelineError, match="single picture"):
        reconstruct(pipeline, **(given | {"seeds": range(3, 8)}), batch_size=4)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_mixture_of_one_prompt_is_that_prompt_and_of_two_is_neither(
    pipeline, tmp_path, monkeypatch
):
    one, two = Mixture(tuple(PROMPTS[:1]), (1.0,)), Mixture(tuple(PROMPTS[:2]), (0.5, 0.5))
    given = {"seeds": [4] * 4, **QUICK, "cache_dir": tmp_path}
    drawn = reconstruct(pipeline, [one, two, *PROMPTS[:2]], **given)
    assert np.abs(pixels(drawn[0]) - pixels(drawn[2])).max() <= 1
    for plain in drawn[2:]:
        assert np.abs(pixels(drawn[1]) - pixels(plain)).max() > 0
    monkeypatch.setattr("eeglib.reconstruction.drawing._draw", None)  # nothing is drawn again
    again = reconstruct(pipeline, [one, two, *PROMPTS[:2]], **given)
    np.testing.assert_array_equal(pixels(again[1]), pixels(drawn[1]))


def test_the_scheduler_is_the_profiles(folder):
    fast = load_pipeline(folder, scheduler="DPMSolverMultistepScheduler")
    assert describe_pipeline(fast)["scheduler"] == "DPMSolverMultistepScheduler"
    assert fast.scheduler.config.prediction_type == "v_prediction"  # of the model, kept
    assert fingerprint(fast) != fingerprint(load_pipeline(folder))
    for name in ("NoScheduler", "StableDiffusionPipeline"):
        with pytest.raises(PipelineError, match=f"{name}.*DDIMScheduler"):
            load_pipeline(folder, scheduler=name)


def test_a_reader_is_told_what_drew(pipeline):
    facts = describe_pipeline(pipeline)
    assert "not screened" in facts["safety checker"]
    assert facts["device"] == "cpu"
    assert facts["parameters"] == "5.7 million"


class OnDevice:
    """A pipeline on a GPU with too little memory, as far as `offload` looks at it."""

    def __init__(self):
        self.device, self.moved = torch.device("cuda"), []

    def enable_model_cpu_offload(self):
        self.device = torch.device("cpu")
        self.moved.append("offloaded")

    def to(self, device, dtype):
        self.device = torch.device(device)
        self.moved.append((device, dtype))


@pytest.mark.parametrize("accelerate", [True, False])
def test_too_little_memory_for_one_picture_frees_the_device_once(monkeypatch, capsys, accelerate):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: accelerate or None)
    pipeline, error = OnDevice(), torch.OutOfMemoryError("CUDA out of memory")
    offload(pipeline, error)
    assert pipeline.moved == ["offloaded"] if accelerate else [("cpu", torch.float32)]
    assert "Too little memory for one picture" in capsys.readouterr().out
    with pytest.raises(PipelineError, match="already drawn are kept"):
        offload(pipeline, error)


def test_trajectory_goes_from_noise_to_the_picture(pipeline):
    frames = trajectory(pipeline, PROMPTS[0], 2, **QUICK, n_frames=3)
    assert [frame.step for frame in frames] == [0, 2, 3]
    [picture] = reconstruct(pipeline, PROMPTS[:1], [2], **QUICK)
    np.testing.assert_array_equal(pixels(frames[-1].picture), pixels(picture))
    assert np.abs(pixels(frames[0].picture) - pixels(picture)).mean() > 1
    assert len(trajectory(pipeline, PROMPTS[0], 2, **QUICK, n_frames=99)) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": [1, 2]}, "One seed per prompt"),
        ({"prompts": "a"}, "list of sentences"),
        ({"seeds": [-1]}, "whole number from 0"),
        ({"seeds": [0.5]}, "whole number from 0"),
        ({"steps": 0}, "steps must be"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"size": 60}, "multiple of 8"),
        ({"size": 0}, "multiple of 8"),
    ],
)
def test_settings_that_cannot_be_used(pipeline, change, message):
    with pytest.raises(ValueError, match=message):
        reconstruct(pipeline, **({"prompts": ["a"], "seeds": [1], **QUICK} | change))


# --- loading --------------------------------------------------------------------------------


def test_loading_writes_nothing_on_a_page(folder, capfd):
    load_pipeline(folder)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize("part", ["vae", "unet", "tokenizer", "text_encoder", "scheduler"])
def test_folder_with_a_part_missing(folder, tmp_path, part):
    broken = shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(broken / part)
    with pytest.raises(PipelineError, match=f"lacks {part}; .*Copy the whole folder"):
        load_pipeline(broken)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(),
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"short"),
        lambda f: (f / "text_encoder/model.safetensors").write_bytes(b"\x08" + bytes(7) + b"no"),
        lambda f: (f / "unet/config.json").unlink(),
        lambda f: (f / "vae/config.json").write_text("{"),
        lambda f: (f / "vae/config.json").write_text(
            json.dumps(json.loads((f / "vae/config.json").read_text()) | {"latent_channels": 8})
        ),
        lambda f: (f / "tokenizer/tokenizer.json").write_text("?"),
    ],
    ids=[
        "no weights",
        "cut weights",
        "bad weights",
        "no config",
        "cut config",
        "other shape",
        "bad tokenizer",
    ],
)
def test_folder_with_a_damaged_part(folder, tmp_path, damage):
    broken = shutil.copytree(folder, tmp_path / "broken")
    damage(broken)
    with pytest.raises(PipelineError, match=r"cannot be loaded: .*Copy the whole folder"):
        load_pipeline(broken)


def test_weights_that_may_run_code_are_not_opened(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "pickled")
    (broken / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, broken / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(PipelineError, match="safetensors"):
        load_pipeline(broken)


def test_folder_that_is_no_pipeline(tmp_path):
    with pytest.raises(PipelineError, match="no readable model_index"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("model", ["/no/such/folder", "./nor_this", "~/nor that"])
def test_folder_that_does_not_exist(model):
    with pytest.raises(PipelineError, match=r"No folder .*repository"):
        load_pipeline(model)


@pytest.mark.parametrize("model", ["two words", "a/b/c", "ä", ""])
def test_name_that_is_no_repository_id(model):
    with pytest.raises(PipelineError, match="neither a folder nor a repository id"):
        load_pipeline(model)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_that_is_not_there(folder):
    with pytest.raises(PipelineError, match="finds no GPU"):
        load_pipeline(folder, device="cuda")


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


def test_repository_that_does_not_exist(hub):
    hub.answer = (404, "RepoNotFound")
    with pytest.raises(PipelineError, match=r"no repository nobody/nothing.*spelling"):
        load_pipeline("nobody/nothing")


def test_repository_that_asks_for_consent(hub):
    hub.answer = (403, "GatedRepo")
    with pytest.raises(PipelineError, match="consent to its licence"):
        load_pipeline("nobody/gated")


def test_hub_that_cannot_be_reached(hub):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(PipelineError, match=r"cannot be reached.*'demo'"):
        load_pipeline("nobody/offline")
