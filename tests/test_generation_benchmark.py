"""The benchmark of drawing: the true architecture, and steps that add up to what is printed."""

import types

import numpy as np
import pytest
import torch

from benchmarks import _stable_diffusion, generation


def test_the_parts_have_the_size_of_the_published_model():
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        parts = {
            "unet": UNet2DConditionModel(**_stable_diffusion.UNET),
            "vae": AutoencoderKL(**_stable_diffusion.AUTOENCODER),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**_stable_diffusion.TEXT_ENCODER)),
        }
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert sizes == _stable_diffusion.N_PARAMETERS


def test_steps_that_were_not_run_are_added_at_the_time_of_the_last_one(monkeypatch, capsys):
    drawn = []

    def draw(pipeline, way, batch, steps, size, clock):
        drawn.append((way.name, batch, steps))
        return 10.0 + steps, 1.0

    monkeypatch.setattr(generation, "_draw", draw)
    options = types.SimpleNamespace(measured_steps=2, size=512)
    figures = generation._stable_diffusion_rows(None, "cpu", [4], options)
    assert figures["ddim50_b4_s"] == pytest.approx((10 + 2 + 48) / 4)
    assert figures["turbo1_b4_s"] == pytest.approx((10 + 1) / 4)
    assert figures["scaled"] == "true"
    assert "2 of 50" in capsys.readouterr().out
    assert ("DDIM", 4, 2) in drawn


def test_the_median_leaves_out_the_first_call(monkeypatch):
    moments = iter(np.cumsum([0, 100, 0, 1, 0, 2, 0, 3]))
    monkeypatch.setattr(generation.time, "perf_counter", lambda: next(moments))
    assert generation._median(lambda i: None, 4) == 2


@pytest.mark.parametrize("arguments", [["--size", "60"], ["--batches", "0"], ["--steps", "3"]])
def test_wrong_options_are_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        generation._parse(arguments)
    assert "usage: python -m benchmarks generation" in capsys.readouterr().err
