"""The teacher: CLIP's view of each image and a linear classifier on top of it (chapter 4)."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import open_clip
import pandas
import torch
from PIL import Image
from scipy import special
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from torch import nn

import eeglib
from eeglib.decoding.splits import Split
from eeglib.decoding.training import fit

DEMO_CLIP = Path(eeglib.__file__).parent / "pretrained" / "demo_clip"


class TeacherError(ValueError):
    """No teacher can be had; the message says what was tried and what to do."""


class Clip(NamedTuple):
    """Vision transformer of open_clip, and what makes a tensor (3, size, size) of a picture."""

    encoder: nn.Module
    prepare: Callable[[Any], Any]


def load_clip(model: str = "demo", weights: str | None = None) -> Clip:
    """Load CLIP's image encoder.

    Parameters
    ----------
    model : str
        ``demo`` for the small model shipped with the package; a local folder with
        ``open_clip_config.json``; ``hf-hub:<organisation>/<repository>``; or an open_clip model
        name such as ``ViT-L-14``.
    weights : str | None
        With a model name: a tag such as ``openai``, or the path of a weights file.

    Raises
    ------
    TeacherError
        If model or weights do not exist, cannot be reached, or are no vision transformer.
    """
    folder = DEMO_CLIP if model == "demo" else Path(model)
    name, options = model, {}
    if folder.is_dir():
        if not (folder / "open_clip_config.json").is_file():
            text = f"Folder {folder} has no open_clip_config.json. Give one of open_clip, not of"
            raise TeacherError(f"{text} transformers; or teacher.model ViT-L-14 and its weights.")
        name = f"local-dir:{folder.resolve()}"
    elif tags := open_clip.list_pretrained_tags_by_model(model):
        if weights not in tags and not Path(weights or "").is_file():
            needs = f"{model} needs {', '.join(tags)}, or a file"
            raise TeacherError(f"teacher.weights is {weights!r}; {needs}.")
        # OpenAI's weights want another activation than the models of the same names have.
        setting = open_clip.get_pretrained_cfg(model, weights) or {}
        options = {"pretrained": weights, "force_quick_gelu": bool(setting.get("quick_gelu"))}
    try:
        whole, prepare = open_clip.create_model_from_pretrained(name, **options)
    except Exception as error:  # hub clients raise many kinds; all mean that it was not loaded
        reason = " ".join(str(error).split())[:300]
        raise TeacherError(
            f"CLIP model {model!r} with weights {weights!r} could not be loaded "
            f"({type(error).__name__}: {reason}). Connect to the network, or place the files by "
            "hand: weights' path as teacher.weights, or as teacher.model a folder with "
            "open_clip_config.json and open_clip_model.safetensors. 'demo' needs no network."
        ) from error
    encoder = whole.visual
    if not isinstance(encoder, open_clip.transformer.VisionTransformer):
        text = f"{model!r} has a {type(encoder).__name__}, which has no CLS token"
        raise TeacherError(f"{text}. Choose a vision transformer, such as ViT-B-32 or ViT-L-14.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Clip(encoder.eval().requires_grad_(False).to(device), prepare)


@torch.inference_mode()
def cls_tokens(clip: Clip, files: Iterable[str | Path], batch_size: int = 32) -> np.ndarray:
    """Describe each image by the CLS token of CLIP's image encoder.

    Returns
    -------
    array of float32, shape (n_images, d)
        After the last block and its layer normalisation, before the projection into the space that
        images share with text (section 3.5 of the paper). TeacherError: a file is no picture.
    """
    files, tokens = list(files), []
    device = next(clip.encoder.parameters()).device
    how = {"normalize_intermediates": True, "intermediates_only": True}
    how |= {"output_extra_tokens": True}
    for part in gen_batches(len(files), batch_size):
        pictures = torch.stack([clip.prepare(_open_picture(file)) for file in files[part]])
        layers = clip.encoder.forward_intermediates(pictures.to(device), indices=1, **how)
        tokens.append(layers["image_intermediates_prefix"][-1][:, 0].float().cpu().numpy())
    return np.concatenate(tokens)


def _open_picture(file: str | Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except Exception as error:  # Pillow's plug-ins raise many kinds for damaged files
        text = f"{file} is no readable image ({type(error).__name__})"
        raise TeacherError(f"{text}. Replace it or leave it out.") from None


class Teacher(NamedTuple):
    """What a linear classifier of images says about each of them."""

    logits: np.ndarray  # float32, (n_images, n_classes)
    features: np.ndarray  # float32, (n_images, d): what it sees of each image
    history: pandas.DataFrame | None = None  # of a new one, as in `Trained`
    images: np.ndarray | None = None  # names, of a loaded one

    def save(self, path: Path, images: Sequence[str]) -> None:
        """Write the images' distinct names, features and logits to an npz file."""
        names = np.asarray(images, dtype=str)
        np.savez_compressed(path, images=names, features=self.features, logits=self.logits)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with np.load(path) as file:
            return cls(**file)

    def outputs(self, reading: Literal["logits", "probabilities"]) -> np.ndarray:
        """The vector f_t that equation (2) exponentiates; the paper calls it probabilities."""
        return self.logits if reading == "logits" else special.softmax(self.logits, axis=1)

    def of_trials(self, trials: pandas.DataFrame) -> "Teacher":
        """What the teacher says about each trial's ``image``, in the order of the trials."""
        names = trials["image"].astype(str)
        rows = pandas.Index(self.images).get_indexer(names)
        if unknown := sorted(set(names[rows < 0])):
            text = f"The teacher has not seen {len(unknown)} of the images shown, such as"
            raise TeacherError(f"{text} {unknown[0]!r}. Run chapter 4 with the same data set.")
        return Teacher(self.logits[rows], self.features[rows], images=self.images[rows])


def fit_teacher(features: np.ndarray, labels: np.ndarray, split: Split, **training) -> Teacher:
    """Train a linear classifier of images on their features; its logits are those of all images.

    Softmax regression on `features` (n_images, d), standardised by the training images; trained
    like the student, by `eeglib.decoding.training.fit` and its keywords, but on labels alone, with
    all images in one batch and a small weight decay. Test images have no say.
    """
    features = np.asarray(features, dtype=np.float32)
    inputs = StandardScaler().fit(features[split.training]).transform(features)
    n_classes = int(labels[split.training].max()) + 1

    def linear() -> nn.Linear:
        layer = nn.Linear(features.shape[1], n_classes)
        nn.init.normal_(layer.weight, std=0.01)  # nearly even probabilities to begin with
        nn.init.zeros_(layer.bias)
        return layer

    training |= {"batch_size": len(split.training), "gradient_clip": None, "device": "cpu"}
    training["weight_decay"] = 2e-3  # else the weights of a separable problem grow for ever
    trained = fit(linear, inputs, labels, split, **training)
    with torch.inference_mode():
        logits = trained.network(torch.from_numpy(inputs)).numpy()
    return Teacher(logits, features, trained.history)
