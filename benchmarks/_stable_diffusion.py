"""Stable Diffusion 1.5 with random weights: the time of a step does not depend on their values."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import StableDiffusionPipeline

# The published configurations of stable-diffusion-v1-5: UNet, autoencoder, text encoder.
UNET = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
}
AUTOENCODER = {
    "sample_size": 512,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
TEXT_ENCODER = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": 768,
}
N_PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}
"""Of the published model; `build` refuses to return anything else."""


def build(device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Build the pipeline, with random weights and without a tokenizer.

    Parameters
    ----------
    device : str
    dtype : torch.dtype

    Returns
    -------
    diffusers.StableDiffusionPipeline
        To be called with prompt embeddings.

    Raises
    ------
    RuntimeError
        If a part has not the published number of parameters.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline
    from diffusers import UNet2DConditionModel as UNet
    from diffusers.utils import logging
    from transformers import CLIPTextConfig, CLIPTextModel

    logging.set_verbosity_error()  # it warns of casts, which random weights do not mind
    parts = {
        "unet": _random(lambda: UNet(**UNET), device, dtype),
        "vae": _random(lambda: AutoencoderKL(**AUTOENCODER), device, dtype),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT_ENCODER)).to(device, dtype),
    }
    for name, part in parts.items():
        found = sum(p.numel() for p in part.parameters())
        if found != N_PARAMETERS[name]:
            raise RuntimeError(f"{name} has {found} parameters, published: {N_PARAMETERS[name]}.")
        part.eval().requires_grad_(False)
    pipeline = StableDiffusionPipeline(
        **parts,
        tokenizer=None,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _random(make, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """Weights that keep values finite; the usual initialisation takes minutes at this size."""
    import torch

    with torch.device("meta"):
        network = make()
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, 0.02, generator=generator)
        else:
            parameter.data.fill_(1.0 if name.endswith("weight") else 0.0)
    return network
