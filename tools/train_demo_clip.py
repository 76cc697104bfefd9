"""Train the demo's small CLIP on drawings: ``python -m tools.train_demo_clip``.

The result is an ordinary open_clip model with a vision transformer, in the folder format that
``open_clip.create_model_and_transforms("local-dir:...")`` loads.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from eeglib.decoding.teacher import DEMO_CLIP
from tools.drawings import (
    CONTEXT_LENGTH,
    SIZE,
    captions,
    save_tokenizer,
    training_drawings,
)

HELD_OUT = 1_000_000
"""Seeds of the held-out drawings begin here, far from those that train."""


def configuration(vocabulary_size: int) -> dict:
    """open_clip's description of the model."""
    return {
        "model_cfg": {
            "embed_dim": 128,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": 8,
                "layers": 4,
                "width": 128,
                "head_width": 32,
            },
            "text_cfg": {
                "context_length": CONTEXT_LENGTH,
                "vocab_size": vocabulary_size,
                "width": 128,
                "heads": 4,
                "layers": 2,
                "hf_tokenizer_name": "local",
                "tokenizer_kwargs": {},
            },
        },
        "preprocess_cfg": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def as_input(pixels: np.ndarray) -> torch.Tensor:
    """Images of uint8, shape (n, 64, 64, 3), as the network wants them."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def train(folder: Path, per_class: int, epochs: int, seed: int) -> None:
    """Train and save; print one line per epoch with the accuracy on held-out drawings."""
    import open_clip
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = configuration(save_tokenizer(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=1) + "\n")
    cfg = config["model_cfg"]
    model = CLIP(cfg["embed_dim"], cfg["vision_cfg"], dict(cfg["text_cfg"]))
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}", context_length=CONTEXT_LENGTH)
    tokens = torch.stack([tokenizer(row) for row in captions()])
    images = training_drawings(per_class)
    held_out = training_drawings(10, HELD_OUT)
    groups = 4
    steps = epochs * (per_class // groups)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps, pct_start=0.1)
    started = time.perf_counter()
    for epoch in range(epochs):
        model.train()
        order = np.stack([rng.permutation(per_class) for _ in range(len(images))])
        for first in range(0, per_class - groups + 1, groups):
            # A group holds each class once: every wrong caption in it is truly wrong.
            batch = np.stack(
                [images[np.arange(40), order[:, first + g]] for g in range(groups)]
            ).reshape(-1, SIZE, SIZE, 3)
            text = model.encode_text(tokens[rng.integers(len(tokens))], normalize=True)
            image = model.encode_image(as_input(batch), normalize=True).view(groups, 40, -1)
            logits = model.logit_scale.exp() * image @ text.T
            target = torch.arange(40).expand(groups, 40)
            loss = (
                F.cross_entropy(logits.flatten(0, 1), target.flatten())
                + F.cross_entropy(logits.transpose(1, 2).flatten(0, 1), target.flatten())
            ) / 2
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=np.log(100))
        accuracy = zero_shot_accuracy(model, tokens[0], held_out)
        seconds = time.perf_counter() - started
        print(
            f"epoch {epoch + 1} loss {loss.item():.3f} zero-shot accuracy {accuracy:.4f} "
            f"{seconds:.0f} s",
            flush=True,
        )
        weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors")


@torch.no_grad()
def zero_shot_accuracy(model, tokens: torch.Tensor, images: np.ndarray) -> float:
    """Share of drawings, shape (40, n, 64, 64, 3), nearest to the caption of their own class."""
    model.eval()
    text = model.encode_text(tokens, normalize=True)
    hits = [
        (model.encode_image(as_input(row), normalize=True) @ text.T).argmax(1) == label
        for label, row in enumerate(images)
    ]
    return float(torch.cat(hits).float().mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEMO_CLIP)
    parser.add_argument("--per-class", type=int, default=400, help="drawings of each class")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train(given.folder, given.per_class, given.epochs, given.seed)
