"""Image-prompt adapters: loaded from the published format, obeyed, and refused where unfit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eeglib.datasets.stimuli import draw_stimulus
from eeglib.profile import Profile, ReconstructionSettings
from eeglib.reconstruction.drawing import load_pipeline
from eeglib.reconstruction.image_adapter import draw_from_embeddings, encode_images, load_adapter
from eeglib.reconstruction.pipelines import PipelineError

N_DIMS = 12
PROMPTS = ["an image of a banana"] * 2
QUICK = {"steps": 2, "guidance_scale": 3.0, "size": 64}
WEIGHTS = "models/ip-adapter_sd15.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained pipeline with all the parts of the shipped one."""
    from tools.drawings import save_tokenizer
    from tools.train_demo_diffusion import build, save_pipeline

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pipeline")
    save_pipeline(folder, build(save_tokenizer(folder / "tokenizer")))
    return folder


@pytest.fixture
def adapter(folder, tmp_path):
    """Random weights in the layout of h94/IP-Adapter: one file, one image encoder."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    unet, generator = load_pipeline(folder).unet, torch.Generator().manual_seed(1)

    def random(*shape):
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    width = unet.config.cross_attention_dim
    state = {
        "image_proj.proj.weight": random(4 * width, N_DIMS),
        "image_proj.proj.bias": random(4 * width),
        "image_proj.norm.weight": torch.ones(width),
        "image_proj.norm.bias": torch.zeros(width),
    }
    layers = [name for name, _ in unet.named_modules() if name.endswith("attn2")]
    for name in layers:
        # Numbered as the denoiser numbers all its attentions, of which every second is crossed.
        number = list(unet.attn_processors).index(f"{name}.processor")
        n_features = unet.get_submodule(name).to_k.out_features
        for kind in ("k", "v"):
            state[f"ip_adapter.{number}.to_{kind}_ip.weight"] = random(n_features, width)
    (tmp_path / "models").mkdir()
    save_file(state, tmp_path / WEIGHTS)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=56,
        projection_dim=N_DIMS,
    )
    torch.manual_seed(2)
    encoder = CLIPVisionModelWithProjection(config)
    encoder.save_pretrained(tmp_path / "models/image_encoder")
    return tmp_path


def loaded(folder, adapter, **changes):
    pipeline = load_pipeline(folder)
    load_adapter(pipeline, ReconstructionSettings(adapter=str(adapter), **changes))
    return pipeline


def change(adapter, update):
    state = load_file(adapter / WEIGHTS)
    update(state)
    save_file(state, adapter / WEIGHTS)


def difference(one, other) -> float:
    return float(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_a_picture_depends_on_its_embedding_seed_and_prompt_alone(folder, adapter):
    pipeline = loaded(folder, adapter, adapter_scale=1.0)
    embeddings = encode_images(pipeline, [draw_stimulus(c, 5, 64) for c in (3, 14)])
    assert embeddings.shape == (2, N_DIMS)
    assert embeddings.dtype == np.float32
    both = draw_from_embeddings(pipeline, 9 * embeddings, PROMPTS, [1, 1], **QUICK)
    [alone] = draw_from_embeddings(pipeline, 9 * embeddings[1:], PROMPTS[1:], [1], **QUICK)
    assert both[0].size == (64, 64)
    assert difference(both[1], alone) <= 1  # rounding
    assert difference(both[0], both[1]) > 2  # another embedding
    [reseeded] = draw_from_embeddings(pipeline, 9 * embeddings[1:], PROMPTS[1:], [2], **QUICK)
    assert difference(reseeded, alone) > 2


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_embeddings_enter_as_the_libraries_own_encoding_does(folder, adapter, guidance_scale):
    pipeline = loaded(folder, adapter)
    picture, quick = draw_stimulus(3, 5, 64), QUICK | {"guidance_scale": guidance_scale}
    [ours] = draw_from_embeddings(
        pipeline, encode_images(pipeline, [picture]), PROMPTS[:1], [1], **quick
    )
    [theirs] = pipeline(
        PROMPTS[0],
        ip_adapter_image=picture,
        num_inference_steps=2,
        height=64,
        width=64,
        guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(1),
    ).images
    assert difference(ours, theirs) <= 1


def test_at_strength_0_the_image_does_not_count(folder, adapter):
    embeddings = np.random.default_rng(0).standard_normal((2, N_DIMS))
    weak = loaded(folder, adapter, adapter_scale=0.0)
    one, other = draw_from_embeddings(weak, embeddings, PROMPTS, [1, 1], **QUICK)
    assert difference(one, other) <= 1


def test_too_little_memory_for_one_picture(folder, adapter, monkeypatch):
    pipeline = loaded(folder, adapter)

    def call(self, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(type(pipeline), "__call__", call)
    with pytest.raises(PipelineError, match="too little memory for a single picture"):
        draw_from_embeddings(pipeline, np.eye(1, N_DIMS), ["a"], [0], **QUICK)


def test_embeddings_of_another_space_are_refused(folder, adapter):
    pipeline = loaded(folder, adapter)
    with pytest.raises(ValueError, match=r"embeddings of 12 dimensions, got shape \(2, 7\)"):
        draw_from_embeddings(pipeline, np.zeros((2, 7)), PROMPTS, [0, 1])
    with pytest.raises(ValueError, match="1 seeds"):
        draw_from_embeddings(pipeline, np.zeros((2, N_DIMS)), PROMPTS, [0])
    with pytest.raises(ValueError, match="finite"):
        draw_from_embeddings(pipeline, np.full((2, N_DIMS), np.nan), PROMPTS, [0, 1])


def test_an_encoder_of_another_space_is_refused(folder, adapter):
    wider = torch.zeros(4 * load_pipeline(folder).unet.config.cross_attention_dim, N_DIMS + 1)
    change(adapter, lambda state: state.update({"image_proj.proj.weight": wider}))
    with pytest.raises(PipelineError, match=r"reads embeddings of 13 dimensions.*gives 12"):
        loaded(folder, adapter)


def test_an_adapter_of_many_tokens_is_refused(folder, adapter):
    """The layout of the full-face adapter, which reads every token of the encoder."""
    width = load_pipeline(folder).unet.config.cross_attention_dim

    def update(state):
        del state["image_proj.proj.weight"], state["image_proj.proj.bias"]
        state["image_proj.proj.0.weight"] = torch.zeros(N_DIMS, N_DIMS)
        state["image_proj.proj.0.bias"] = torch.zeros(N_DIMS)
        state["image_proj.proj.2.weight"] = torch.zeros(width, N_DIMS)
        state["image_proj.proj.2.bias"] = torch.zeros(width)
        for name in ("weight", "bias"):
            state[f"image_proj.proj.3.{name}"] = state.pop(f"image_proj.norm.{name}")

    change(adapter, update)
    with pytest.raises(PipelineError, match="many tokens per image"):
        loaded(folder, adapter)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / WEIGHTS).unlink(),
        lambda f: (f / WEIGHTS).write_bytes(b"short"),
        lambda f: (f / "models/image_encoder/model.safetensors").unlink(),
        lambda f: change(f, lambda s: s.pop("ip_adapter.1.to_k_ip.weight")),
        lambda f: change(f, lambda s: s.update({"ip_adapter.1.to_k_ip.weight": torch.ones(3, 3)})),
        lambda f: change(f, lambda s: s.clear()),
    ],
    ids=["no file", "cut file", "no encoder", "no layer", "other model", "empty"],
)
def test_a_damaged_or_unfit_adapter(folder, adapter, damage):
    damage(adapter)
    with pytest.raises(PipelineError, match=r"adapter in .* cannot be loaded: .*It needs models/"):
        loaded(folder, adapter)


def test_what_is_no_adapter_or_takes_none(folder, adapter):
    pipeline = load_pipeline(folder)
    with pytest.raises(PipelineError, match="call load_adapter first"):
        draw_from_embeddings(pipeline, np.zeros((1, N_DIMS)), ["a"], [0])
    with pytest.raises(PipelineError, match=r"reconstruction.adapter is empty"):
        load_adapter(pipeline, ReconstructionSettings())
    with pytest.raises(PipelineError, match=r"reconstruction.adapter: 'two words' is neither"):
        load_adapter(pipeline, ReconstructionSettings(adapter="two words"))
    with pytest.raises(PipelineError, match="takes no IP-Adapter"):
        load_adapter(object(), ReconstructionSettings(adapter=str(adapter)))


def test_weights_that_may_run_code_are_refused():
    with pytest.raises(ValueError, match="adapter_weights"):
        Profile(name="x", reconstruction={"adapter_weights": "ip-adapter_sd15.bin"})
