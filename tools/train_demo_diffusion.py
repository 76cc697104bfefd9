"""Train the demo's small Stable Diffusion: ``python -m tools.train_demo_diffusion``.

Two stages, each resumed from its checkpoint when started again: an autoencoder that compresses
64 x 64 pixels to 16 x 16 x 4 latents, then a denoising network that is told the caption. The
result is an ordinary ``diffusers.StableDiffusionPipeline``.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from eeglib.reconstruction.drawing import PRETRAINED
from tools.drawings import (
    CONTEXT_LENGTH,
    SIZE,
    captions,
    save_tokenizer,
    training_drawings,
)

LATENT_CHANNELS = 4


def build(vocabulary_size: int) -> dict:
    """Untrained parts of the pipeline."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    end = vocabulary_size - 1
    return {
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(16, 32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=LATENT_CHANNELS,
            sample_size=SIZE,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=vocabulary_size,
                hidden_size=128,
                intermediate_size=256,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT_LENGTH,
                projection_dim=128,
                bos_token_id=end - 1,
                eos_token_id=end,
                pad_token_id=end,
            )
        ),
        "unet": UNet2DConditionModel(
            sample_size=SIZE // 4,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=(48, 96, 128),
            layers_per_block=1,
            norm_num_groups=16,
            down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
            cross_attention_dim=128,
            attention_head_dim=4,
        ),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            prediction_type="v_prediction",
            timestep_spacing="trailing",
            rescale_betas_zero_snr=True,
            clip_sample=False,
            set_alpha_to_one=True,
            steps_offset=1,
        ),
    }


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """Images of uint8, shape (n, 64, 64, 3), as the autoencoder wants them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(vae, images: np.ndarray, minutes: float, checkpoint: Path, seed: int) -> None:
    """Fit the autoencoder: absolute error of pixels and of edges, and a little compression."""
    rng = np.random.default_rng(seed)
    flat = images.reshape(-1, SIZE, SIZE, 3)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=2e-3, weight_decay=0.01)
    clock = Clock(minutes, checkpoint, {"vae": vae}, optimizer)
    vae.train().to(memory_format=torch.channels_last)
    while clock.running():
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * clock.decay()
        pixels = as_input(flat[rng.integers(len(flat), size=16)])
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        loss = F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels)
        for axis in (2, 3):
            loss = loss + F.l1_loss(decoded.diff(dim=axis), pixels.diff(dim=axis))
        loss = loss + 1e-5 * posterior.kl().mean()
        clock.step(loss)
    clock.save()


def train_denoiser(
    parts: dict,
    images: np.ndarray,
    minutes: float,
    checkpoint: Path,
    seed: int,
    tokens: torch.Tensor,
    empty: torch.Tensor,
) -> None:
    """Fit denoiser and text encoder; their running average replaces the weights at the end."""
    vae, unet, text, scheduler = (parts[n] for n in ("vae", "unet", "text_encoder", "scheduler"))
    rng, batch = np.random.default_rng(seed), 16
    torch.manual_seed(seed)
    latents = encode_all(vae, images)
    trained = torch.nn.ModuleDict({"unet": unet, "text_encoder": text})
    average = torch.optim.swa_utils.AveragedModel(
        trained, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999)
    )
    optimizer = torch.optim.AdamW(trained.parameters(), lr=6e-4, weight_decay=0.01)
    modules = {"trained": trained, "average": average}
    clock = Clock(minutes, checkpoint, modules, optimizer)
    trained.train().to(memory_format=torch.channels_last)
    while clock.running():
        for group in optimizer.param_groups:
            group["lr"] = 6e-4 * clock.decay()
        labels = rng.integers(len(latents), size=batch)
        clean = latents[labels, rng.integers(latents.shape[1], size=batch)]
        ids = tokens[rng.integers(len(tokens), size=batch), labels].clone()
        ids[torch.from_numpy(rng.random(batch) < 0.1)] = empty  # for guidance
        noise, steps = torch.randn_like(clean), torch.randint(0, 1000, (batch,))
        noisy = scheduler.add_noise(clean, noise, steps)
        target = scheduler.get_velocity(clean, noise, steps)
        guess = unet(noisy, steps, text(ids).last_hidden_state).sample
        clock.step(F.mse_loss(guess, target))
        average.update_parameters(trained)
    clock.save()
    trained.load_state_dict(average.module.state_dict())


@torch.no_grad()
def encode_all(vae, images: np.ndarray) -> torch.Tensor:
    """Latents of all drawings, shape (40, n, 4, 16, 16), scaled to unit variance."""
    vae.eval()
    rows = [vae.encode(as_input(row)).latent_dist.mean for row in images]
    latents = torch.stack(rows)
    factor = float(1 / latents.std())
    vae.register_to_config(scaling_factor=factor)
    return latents * factor


class Clock:
    """Runs a training for so many minutes, with checkpoints from which it goes on."""

    def __init__(self, minutes: float, checkpoint: Path, modules: dict, optimizer):
        self.minutes, self.checkpoint, self.modules = minutes, checkpoint, modules
        self.optimizer, self.steps, self.spent, self._losses = optimizer, 0, 0.0, []
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            for name, module in modules.items():
                module.load_state_dict(state[name])
            optimizer.load_state_dict(state["optimizer"])
            self.steps, self.spent = state["steps"], state["spent"]
        self._last = self._saved = time.perf_counter()

    def running(self) -> bool:
        now = time.perf_counter()
        self.spent, self._last = self.spent + now - self._last, now
        if now - self._saved > 120:
            self.save()
        return self.spent < 60 * self.minutes

    def decay(self) -> float:
        """Share of the learning rate: a short rise, then a cosine down to 2 %."""
        done = min(1.0, self.spent / (60 * self.minutes))
        return min(1.0, (self.steps + 1) / 200) * (0.51 + 0.49 * float(np.cos(np.pi * done)))

    def step(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        self.steps += 1
        self._losses.append(loss.item())

    def save(self) -> None:
        state = {name: module.state_dict() for name, module in self.modules.items()}
        state |= {"optimizer": self.optimizer.state_dict(), "steps": self.steps}
        state["spent"] = self.spent
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.checkpoint)
        self._saved = time.perf_counter()
        print(
            f"{self.checkpoint.stem} step {self.steps} {self.spent / 60:.1f} min "
            f"loss {np.mean(self._losses or [0]):.4f}",
            flush=True,
        )
        self._losses = []


def save_pipeline(folder: Path, parts: dict) -> None:
    """Write the pipeline as diffusers does, weights in half precision."""
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTokenizer

    pipeline = StableDiffusionPipeline(
        vae=parts["vae"].eval().half(),
        text_encoder=parts["text_encoder"].eval().half(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=parts["unet"].eval().half(),
        scheduler=parts["scheduler"],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)


def load_weights(parts: dict, folder: Path) -> None:
    """Give untrained parts the weights of a pipeline of the same architecture."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    for name in ("vae", "unet", "text_encoder"):
        parts[name].load_state_dict(getattr(pipeline, name).state_dict())


def main(
    folder: Path,
    work: Path,
    per_class: int,
    minutes: tuple[float, float],
    seed: int,
    start: Path | None = None,
) -> None:
    """Train both stages, or only the denoiser of the pipeline in ``start``; write the pipeline."""
    from transformers import CLIPTokenizer

    work.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    if start is None:
        parts = build(save_tokenizer(folder / "tokenizer"))
    else:  # equally good merges come in any order, but these weights know only their own
        tokenizer = CLIPTokenizer.from_pretrained(start / "tokenizer")
        tokenizer.save_pretrained(folder / "tokenizer")
        parts = build(len(tokenizer))
    for name, part in parts.items():
        if hasattr(part, "parameters"):
            print(name, sum(p.numel() for p in part.parameters()), "parameters", flush=True)
    images = training_drawings(per_class)
    if start is None:
        train_autoencoder(parts["vae"], images, minutes[0], work / "autoencoder.pt", seed)
    else:
        load_weights(parts, start)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")

    def encode(texts: list[str]) -> torch.Tensor:
        return tokenizer(
            texts,
            padding="max_length",
            max_length=CONTEXT_LENGTH,
            truncation=True,
            return_tensors="pt",
        ).input_ids

    tokens = torch.stack([encode(row) for row in captions()])
    train_denoiser(parts, images, minutes[1], work / "denoiser.pt", seed, tokens, encode([""])[0])
    save_pipeline(folder, parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=PRETRAINED / "demo_diffusion")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("runs/train_demo_diffusion"),
        help="checkpoints; start again with the same folder to go on",
    )
    parser.add_argument("--per-class", type=int, default=400, help="drawings of each class")
    parser.add_argument(
        "--minutes", type=float, nargs=2, default=(14, 50), metavar=("AUTOENCODER", "DENOISER")
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start", type=Path, help="a pipeline to go on from: only its denoiser is trained further"
    )
    given = parser.parse_args()
    main(given.folder, given.work, given.per_class, tuple(given.minutes), given.seed, given.start)
