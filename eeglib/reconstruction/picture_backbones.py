"""The networks through which pictures are compared, each by its published name (chapter 7).

Published scores need published weights; they are downloaded once from their makers, or read from
a folder. Where neither is possible the demo's own CLIP stands in, and every score that it gives
bears its name: such figures compare pictures of one run, not papers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from eeglib.reconstruction.picture_weights import BackboneError, Source, filled

if TYPE_CHECKING:
    import torch

SWAV_URL = "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar"
CLIP_FILE = "open_clip_model.safetensors"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Output:
    """One kind of features of a network and the scores that are computed from it.

    Attributes
    ----------
    title : str
        As in papers: ``AlexNet(2)``.
    scores : tuple of str
        Of ``n-way``, ``inception-score``, ``fid``, ``kid``, ``similarity``, ``two-way``,
        ``distance``.
    """

    title: str
    scores: tuple[str, ...]


@dataclass(frozen=True)
class Backbone:
    """A network that describes pictures.

    Attributes
    ----------
    name : str
        Such as ``alexnet``.
    outputs : dict of str to Output
        What the network gives.
    network : callable
        Takes float32 (n_pictures, 3, size, size), normalised, or uint8 where `mean` is None;
        returns a dict of tensors with the keys of `outputs`.
    size : int | None
        Height and width, pixels, to which pictures are brought; None leaves them.
    mean, std : tuple of float | None
        Normalisation per colour of values in [0, 1].
    bicubic : bool
        Resize bicubically, not bilinearly.
    device : str
        Where the network is.
    """

    name: str
    outputs: dict[str, Output]
    network: Callable[[torch.Tensor], dict[str, torch.Tensor]] = field(repr=False)
    size: int | None = 224
    mean: tuple[float, ...] | None = IMAGENET[0]
    std: tuple[float, ...] | None = IMAGENET[1]
    bicubic: bool = False
    device: str = "cpu"

    def describe(
        self, pictures: Sequence[np.ndarray], batch_size: int = 16
    ) -> dict[str, np.ndarray]:
        """Compute the features of pictures.

        Parameters
        ----------
        pictures : sequence of array of uint8, shape (side, side, 3)
        batch_size : int
            Pictures at a time.

        Returns
        -------
        dict of str to array of float32, shape (n_pictures, n_features)
        """
        import torch

        found: dict[str, list] = {key: [] for key in self.outputs}
        for start in range(0, len(pictures), batch_size):
            batch = torch.cat([self._prepared(p) for p in pictures[start : start + batch_size]])
            with torch.inference_mode():
                features = self.network(batch.to(self.device))
            for key in found:
                found[key].append(features[key].flatten(1).float().cpu().numpy())
        return {key: np.concatenate(parts) for key, parts in found.items()}

    def _prepared(self, picture: np.ndarray) -> torch.Tensor:
        import torch

        values = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        if self.mean is None:
            return values
        values = values.float() / 255
        if self.size:
            values = resized(values, self.size, self.bicubic)
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (self.mean, self.std))
        return (values - mean) / std


def resized(values: torch.Tensor, size: int, bicubic: bool = False) -> torch.Tensor:
    """Bring pictures to a size, smoothing first where they shrink.

    Parameters
    ----------
    values : tensor of float, shape (n_pictures, 3, height, width)
        In [0, 1].
    size : int
        New height and width, pixels.
    bicubic : bool
        Else bilinear.

    Returns
    -------
    tensor, shape (n_pictures, 3, size, size)
        In [0, 1].
    """
    from torch.nn.functional import interpolate

    mode = "bicubic" if bicubic else "bilinear"
    return interpolate(values, (size, size), mode=mode, antialias=True).clamp(0, 1)


def load_backbone(
    name: str,
    folder: str | Path | None = None,
    pretrained: bool = True,
    device: str = "cpu",
) -> Backbone:
    """Load a network by name.

    Parameters
    ----------
    name : str
        One of `BACKBONES`.
    folder : str | Path | None
        Where weight files lie, under their published file names; None downloads them into
        PyTorch's cache. Not used by ``demo-clip``.
    pretrained : bool
        False leaves the weights random: for tests of shapes and speed only.
    device : str
        Such as ``cpu`` or ``cuda``.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        If the name is unknown, or its weights cannot be had or do not fit.
    """
    if name not in BACKBONES:
        raise BackboneError(f"No backbone named {name!r}; there are {', '.join(BACKBONES)}.")
    return BACKBONES[name](Source(folder and Path(folder), pretrained), device)


def clip_backbone(
    model: Any, name: str, device: str = "cpu", class_texts: torch.Tensor | None = None
) -> Backbone:
    """Use an open_clip model: its image embeddings and, given classes, its choice among them.

    Parameters
    ----------
    model : open_clip.CLIP
        On any device; it is moved.
    name : str
        For the titles of scores; empty for the published model.
    device : str
    class_texts : tensor, shape (n_classes, n_features) | None
        Text embeddings of class prompts; with them the model also serves as N-way classifier
        and for Inception score, FID and KID.
    """
    import torch

    model = model.to(device).eval()
    visual = model.visual
    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    label = f" ({name})" if name else ""
    outputs = {"image": Output(f"CLIP{label}", ("similarity", "two-way"))}
    if class_texts is not None:
        outputs["image"] = Output(f"CLIP{label}", ("similarity", "two-way", "fid", "kid"))
        outputs["classes"] = Output(f"CLIP{label}", ("n-way", "inception-score"))
        class_texts = torch.nn.functional.normalize(class_texts.to(device), dim=1)

    def network(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        found = {"image": model.encode_image(pictures, normalize=True)}
        if class_texts is not None:
            found["classes"] = model.logit_scale.exp() * found["image"] @ class_texts.T
        return found

    mean, std = (tuple(visual.preprocess_cfg[key]) for key in ("mean", "std"))
    return Backbone(name or "clip", outputs, network, size, mean, std, device=device)


# --- builders ---------------------------------------------------------------------------------


def _torchvision(
    model: str, weights: str, size: int, outputs: dict[str, Output], bicubic: bool = False
) -> Callable[[Source, str], Backbone]:
    """A builder for a network of torchvision; `outputs` maps names of its layers."""

    def build(source: Source, device: str) -> Backbone:
        from torchvision import models
        from torchvision.models.feature_extraction import create_feature_extractor

        network = models.get_model(model, weights=None, **_AS_PUBLISHED.get(model, {}))
        if source.pretrained:
            url = models.get_weight(f"{models.get_model_weights(model).__name__}.{weights}").url
            network = filled(network, source.state(url), model)
        network = network.eval().requires_grad_(False)
        layers = create_feature_extractor(network, list(outputs), suppress_diff_warning=True).to(
            device
        )
        name = model.replace("_", "-")
        return Backbone(name, outputs, layers, size, bicubic=bicubic, device=device)

    return build


# What torchvision itself changes when it builds a network for these weights.
_AS_PUBLISHED: dict[str, dict] = {
    "inception_v3": {"init_weights": False, "transform_input": True},
    "vit_h_14": {"image_size": 518},
}


def _swav(source: Source, device: str) -> Backbone:
    """ResNet-50 trained by SwAV: its published file, without its projection head."""
    from torchvision.models import resnet50
    from torchvision.models.feature_extraction import create_feature_extractor

    network = resnet50(weights=None)
    if source.pretrained:
        # The file's name carries no checksum.
        state = {
            key.removeprefix("module."): value
            for key, value in source.state(SWAV_URL, check_hash=False).items()
        }
        network = filled(network, state, "SwAV's ResNet-50", ("projection_head.", "prototypes."))
    layers = create_feature_extractor(network.eval().requires_grad_(False), ["avgpool"]).to(device)
    return Backbone("swav", {"avgpool": Output("SwAV", ("distance",))}, layers, device=device)


def _fid_inception(source: Source, device: str) -> Backbone:
    """The Inception network of the Inception score, FID and KID, by torch-fidelity."""
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    class Empty(fidelity.FeatureExtractorInceptionV3):
        """Without weights: torch-fidelity would unpickle the file, we read only tensors."""

        def load_state_dict(self, state: dict, **options: bool) -> Any:
            return super().load_state_dict(state, **options) if state else None

    layers = ["2048", "logits_unbiased"]
    with TemporaryDirectory() as folder:
        nothing = Path(folder) / "nothing.pth"
        torch.save({}, nothing)
        network = Empty("inception-v3-compat", layers, feature_extractor_weights_path=str(nothing))
    if source.pretrained:
        network = filled(network, source.state(fidelity.URL_INCEPTION_V3), "FID's Inception")
    network = network.to(device)

    def described(pictures: torch.Tensor) -> dict[str, torch.Tensor]:
        return dict(zip(layers, network(pictures), strict=True))

    outputs = {
        "2048": Output("", ("fid", "kid")),
        "logits_unbiased": Output("", ("inception-score",)),
    }
    return Backbone("fid-inception", outputs, described, None, None, None, device=device)


def _published_clip(source: Source, device: str) -> Backbone:
    """OpenAI's CLIP ViT-L/14, by open_clip."""
    import open_clip

    weights = "openai" if source.folder is None else str(source.folder / CLIP_FILE)
    try:
        model = open_clip.create_model(
            "ViT-L-14-quickgelu", pretrained=weights if source.pretrained else None
        )
    except Exception as error:  # open_clip and its hub clients raise many kinds
        raise BackboneError(
            f"CLIP ViT-L/14 (openai) cannot be had: {error}. Download {CLIP_FILE} of the hub's "
            "timm/vit_large_patch14_clip_224.openai on a machine that can, and name its folder "
            "in pictures.weights; or take the backbone demo-clip."
        ) from None
    return clip_backbone(model, "", device)


def _demo_clip(source: Source, device: str) -> Backbone:
    """The demo's small CLIP, with the 40 classes of the drawings as its classifier."""
    import open_clip
    import torch

    from eeglib.datasets.stimuli import CLASSES
    from eeglib.decoding.teacher import demo_clip_path
    from eeglib.reconstruction.drawing import prompt

    address = f"local-dir:{demo_clip_path()}"
    try:
        model = open_clip.create_model(address, load_weights=source.pretrained).eval()
        tokens = open_clip.get_tokenizer(address)([prompt(c.name) for c in CLASSES])
    except Exception as error:  # open_clip raises many kinds
        raise BackboneError(
            f"The demo's CLIP in {demo_clip_path()} cannot be loaded: {error}. Install eeglib "
            "anew, or train it again: python -m tools.train_demo_clip"
        ) from None
    with torch.inference_mode():
        texts = model.encode_text(tokens)
    return clip_backbone(model, "demo-clip", device, texts)


BACKBONES: dict[str, Callable[[Source, str], Backbone]] = {
    "demo-clip": _demo_clip,
    "vit-h-14": _torchvision(
        "vit_h_14", "IMAGENET1K_SWAG_E2E_V1", 518, {"heads": Output("", ("n-way",))}, bicubic=True
    ),
    "fid-inception": _fid_inception,
    "clip": _published_clip,
    "alexnet": _torchvision(
        "alexnet",
        "IMAGENET1K_V1",
        256,
        {
            "features.4": Output("AlexNet(2)", ("two-way",)),
            "features.11": Output("AlexNet(5)", ("two-way",)),
        },
    ),
    "inception": _torchvision(
        "inception_v3", "IMAGENET1K_V1", 342, {"avgpool": Output("Inception", ("two-way",))}
    ),
    "efficientnet-b1": _torchvision(
        "efficientnet_b1", "IMAGENET1K_V2", 255, {"avgpool": Output("EffNet-B1", ("distance",))}
    ),
    "swav": _swav,
}
"""Name to builder.

``vit-h-14`` is the classifier of N-way top-K accuracy (MinD-Vis); ``fid-inception`` gives
Inception score, FID and KID; ``alexnet``, ``inception``, ``clip``, ``efficientnet-b1`` and
``swav`` are those of Ozcelik and VanRullen (2023), with the sizes in pixels that their
evaluations and those after them use.
"""

PUBLISHED = tuple(name for name in BACKBONES if name != "demo-clip")
"""What papers report; about 4 GB of weights in all."""
