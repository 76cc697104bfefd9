"""The demo's small pretrained models, in the formats of the large ones (chapters 4 and 7).

A folder for ``open_clip`` and one for ``diffusers``; `train_demo_clip` and `train_demo_diffusion`
made them. ``MODEL_CARD.md`` says what they were trained on and what they reach.
"""

from pathlib import Path

FOLDER = Path(__file__).parent


def demo_clip_path() -> Path:
    """Folder of the demo's CLIP model, in the format of open_clip's ``local-dir:``."""
    return FOLDER / "demo_clip"


def demo_diffusion_path() -> Path:
    """Folder of the demo's Stable Diffusion pipeline, in the format of diffusers."""
    return FOLDER / "demo_diffusion"
