"""Measure reconstructed pictures, with their controls beside them (chapter 7).

Whoever draws from a class prompt should know that every score of such pictures is a function of
how often the class was right. So no score stands alone here: beside the pictures drawn from the
predicted class stand pictures drawn from the true class, the ceiling of that route, and pictures
drawn from a random class, its floor.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import open_clip
import torch
import yaml
from pandas import DataFrame
from PIL.Image import Image, Resampling
from scipy import stats
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import KFold
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torchmetrics.image.fid import NoTrainInceptionV3
from torchmetrics.image.kid import poly_mmd
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.transforms.functional import center_crop, pil_to_tensor

from eeglib.evaluation import format_score, mean_with_interval
from eeglib.reconstruction.drawing import PRETRAINED, ReconstructionError, prompt
from eeglib.reconstruction.identification import two_way

CONTROLS = ("true label", "predicted label", "random label")  # ceiling, result, floor
SIDE = 425  # height and width at which pixels are compared, as where the scores were introduced
TORCHVISION = yaml.safe_load(Path(__file__).with_name("torchvision.yml").read_text())
SAFELY = {"progress": False, "check_hash": True, "weights_only": True}
NETWORKS = ("demo-clip", "clip", "fid-inception", *TORCHVISION)
"""Names of networks; about 3 GB of published weights in all, none for ``demo-clip``."""


class Network(NamedTuple):
    """A network that describes pictures: for each kind of features the scores they serve."""

    name: str
    scores: dict[str, tuple[str, ...]]  # by tensor of ``compute`` in papers' words: AlexNet(2)
    prepare: Callable[[Image], torch.Tensor]
    compute: Callable[[torch.Tensor], Sequence[torch.Tensor]]
    device: str = "cpu"

    def describe(self, pictures: Sequence[Image], batch_size: int = 16) -> dict[str, np.ndarray]:
        """Features of pictures, each an array of float64 of shape (n_pictures, n_features)."""
        batches = []
        for start in range(0, len(pictures), batch_size):
            batch = [self.prepare(picture) for picture in pictures[start : start + batch_size]]
            with torch.inference_mode():
                features = self.compute(torch.stack(batch).to(self.device))
            batches.append([part.flatten(1).double().cpu().numpy() for part in features])
        return dict(zip(self.scores, map(np.concatenate, zip(*batches, strict=True)), strict=True))


def load_network(
    name: str, class_names: Sequence[str] = (), folder: Path | None = None, device: str = "cpu"
) -> Network:
    """Load one of `NETWORKS`; a `ReconstructionError` says why its weights cannot be had.

    Among `class_names` chooses ``demo-clip``; the others know their own. `folder` is where weight
    files lie, under their published names; what is absent there is downloaded. Nothing but tensors
    is read from them: others may run code when opened.
    """
    if name not in NETWORKS:
        raise ReconstructionError(f"No network named {name!r}; there are {', '.join(NETWORKS)}.")
    folder = Path(folder or Path(torch.hub.get_dir()) / "checkpoints")
    try:
        if name in TORCHVISION:
            return _torchvision(name, folder, device)
        if name == "fid-inception":
            return _fid_inception(folder, device)
        return _demo_clip(class_names, device) if name == "demo-clip" else _clip(folder, device)
    except Exception as error:  # five libraries raise many kinds for files absent or damaged
        text = f"{name} cannot be loaded: {error}. Without a network, fetch its weights elsewhere"
        how = "and name their folder in pictures.weights; or measure with demo-clip alone."
        raise ReconstructionError(f"{text} {how}") from error


def _torchvision(name: str, folder: Path, device: str) -> Network:
    model, entry = name.replace("-", "_"), TORCHVISION[name]
    published = models.get_model_weights(model)[entry["weights"]]
    network = models.get_model(model, weights=None, **entry["options"]).eval()
    network.load_state_dict(published.get_state_dict(str(folder), **SAFELY))
    layers = entry["layers"]
    parts = create_feature_extractor(network, list(layers), suppress_diff_warning=True).to(device)
    scores = dict.fromkeys(layers.values(), (entry["score"],))
    return Network(name, scores, published.transforms(), lambda x: parts(x).values(), device)


def _fid_inception(folder: Path, device: str) -> Network:
    # torch-fidelity would unpickle whatever the file holds: first see that it holds tensors.
    torch.hub.load_state_dict_from_url(URL_INCEPTION_V3, str(folder), **SAFELY)
    file = str(folder / URL_INCEPTION_V3.rsplit("/", 1)[-1])
    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], file).to(device)
    scores, prepare = {"Inception": ("KID",)}, lambda picture: pil_to_tensor(square(picture, 299))
    return Network("fid-inception", scores, prepare, lambda x: [network(x)], device)


def _clip(folder: Path, device: str) -> Network:
    """OpenAI's ViT-L/14."""
    file = folder / "open_clip_model.safetensors"
    source, model = str(file) if file.is_file() else "openai", "ViT-L-14-quickgelu"
    clip, _, prepare = open_clip.create_model_and_transforms(model, source, device=device)
    scores = {"CLIP": ("similarity", "two-way")}
    return Network("clip", scores, prepare, lambda x: [clip.eval().encode_image(x)], device)


def _demo_clip(class_names: Sequence[str], device: str) -> Network:
    model = f"local-dir:{PRETRAINED / 'demo_clip'}"
    clip, _, prepare = open_clip.create_model_and_transforms(model, device=device)
    clip.eval()
    tokens = open_clip.get_tokenizer(model)([prompt(name) for name in class_names])
    with torch.inference_mode():
        texts = clip.encode_text(tokens.to(device), normalize=True)

    def compute(batch: torch.Tensor) -> list[torch.Tensor]:
        images = clip.encode_image(batch, normalize=True)
        return [images, clip.logit_scale.exp() * images @ texts.T]

    scores = {"demo-clip": ("similarity", "two-way", "KID"), "demo-clip classes": ("n-way",)}
    return Network("demo-clip", scores, prepare, compute, device)


def with_controls(
    true: Sequence[Image],
    sets: Mapping[str, Sequence[Image]],
    networks: Sequence[Network],
    n_way: int = 50,
    batch_size: int = 16,
    n_bootstrap: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> DataFrame:
    """Measure pictures beside their ceiling and their floor.

    Takes at least 3 pictures that were shown, and a set of drawn ones, in the same order, for each
    of `CONTROLS`. A classifier chooses from `n_way` classes, at most all that it knows.

    Gives a table with columns ``pictures`` (the set), ``metric, value, chance, better`` (``higher``
    or ``lower``), ``n`` (pictures), ``low, high, network``. ``chance`` is what the same pictures
    score when paired with wrong true pictures; KID, a score of the set, knows no pairs: its floor
    is the control with random labels.

    Notes
    -----
    - PixCorr and SSIM: correlation of all pixels, and structural similarity of grey-scale
      pictures (Wang et al., 2004), at 425 x 425 pixels.
    - similarity: cosine of features. two-way: `eeglib.reconstruction.identification.two_way` by
      correlation. Both as in Ozcelik and VanRullen (2023), *Scientific Reports* 13, 15666.
    - N-way top-1: does a classifier see the class that it sees in the true picture rather than any
      of n_way - 1 others? The mean over all draws of these (Chen et al., 2023, *CVPR*, draw 50).
    - KID: squared distance of two sets of features (Binkowski et al., 2018), unbiased, so that it
      may be below 0; by torchmetrics. Its interval is by jackknife, since pictures that the
      bootstrap repeats look like a set of too little variety; the others' by bootstrap.
    """
    if len(true) < 3:
        raise ReconstructionError(f"There are {len(true)} pictures to measure: give at least 3.")
    rows: list[tuple] = []
    pair = partial(_pair_row, n_bootstrap=n_bootstrap, confidence=confidence, seed=seed)
    around = np.random.default_rng(seed).permutation(len(true))
    true_pixels, pixels = _pixels(true), {name: _pixels(drawn) for name, drawn in sets.items()}
    for name, drawn in pixels.items():
        rows.append(pair(name, "PixCorr", *_diagonal(correlation(drawn, true_pixels))))
        wrong = [_ssim(true_pixels[around], drawn[np.roll(around, shift)]) for shift in (1, 2)]
        rows.append(pair(name, "SSIM", _ssim(true_pixels, drawn), np.mean(wrong)))
    for network in networks:
        y = network.describe(true, batch_size)
        x = {name: network.describe(drawn, batch_size) for name, drawn in sets.items()}
        for title, score in ((t, s) for t, kinds in network.scores.items() for s in kinds):
            for name in sets:
                features = x[name][title], y[title]
                if score == "KID":
                    rows.append(_kid_row(name, *features, network.name, confidence))
                else:
                    metric = _of_pairs(score, title, *features, n_way)
                    rows.append(pair(name, *metric, network=network.name))
    columns = "pictures metric value chance better n low high network".split()
    return DataFrame(rows, columns=columns)


def score_table(table: DataFrame) -> DataFrame:
    """Scores of `with_controls` to read: a row per score, a column per control.

    Cells read ``value [low, high]``. ``chance`` is that of the predicted label.
    """
    cells = [format_score(r.value, r.low, r.high) for r in table.itertuples()]
    wide = table.assign(cell=cells).pivot(index="metric", columns="pictures", values="cell")
    own = table[table["pictures"] == CONTROLS[1]].set_index("metric")
    chance = own["chance"].map(lambda chance: "" if np.isnan(chance) else f"{chance:.3f}")
    ordered = wide.loc[own.index, list(CONTROLS)].rename_axis(columns=None)
    return ordered.assign(chance=chance, better=own["better"], n=own["n"])


def expected_from_accuracy(table: DataFrame, accuracy: float, random_accuracy: float) -> DataFrame:
    """What the controls and the accuracy alone would give for the predicted label.

    For each score of pairs of `with_controls`: ``random label, true label, expected, measured,
    low, high, n``. A picture of the right class scores on average what the true label's pictures
    score, ``c``. With ``f`` for random labels, of which a share ``r`` is right, and the accuracy
    ``a``, it is ``f + (a - r) / (1 - r) (c - f)``, if wrong classes are wrong at random.
    """
    share = (accuracy - random_accuracy) / (1 - random_accuracy)
    sets = {name: of.set_index("metric") for name, of in table.groupby("pictures")}
    ceiling, found, floor = (sets[name][sets[name]["chance"].notna()] for name in CONTROLS)
    expected = floor["value"] + share * (ceiling["value"] - floor["value"])
    known = DataFrame({CONTROLS[2]: floor["value"], CONTROLS[0]: ceiling["value"]})
    known = known.assign(expected=expected, measured=found["value"])
    return known.join(found[["low", "high", "n"]])


def n_way_accuracy(logits: np.ndarray, true_logits: np.ndarray, n_way: int) -> np.ndarray:
    """N-way top-1 accuracy of each picture, see `with_controls`; ties count as lost."""
    rows, label = np.arange(len(logits)), true_logits.argmax(axis=1)
    above = (logits >= logits[rows, label][:, np.newaxis]).sum(axis=1) - 1
    return stats.hypergeom.pmf(0, logits.shape[1] - 1, above, n_way - 1)


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's r of each row of `a` with each row of `b`; 0 where one is constant."""
    return cosine_similarity(*(x - x.mean(axis=1, keepdims=True) for x in (a, b)))


def square(picture: Image, side: int) -> Image:
    """The square in the middle of a picture, at some size."""
    middle = center_crop(picture.convert("RGB"), min(picture.size))
    return middle.resize((side, side), Resampling.BILINEAR)


def _pixels(pictures: Sequence[Image]) -> np.ndarray:
    small = [np.asarray(square(picture, SIDE), dtype=np.float32) / 255 for picture in pictures]
    return np.stack(small).reshape(len(pictures), -1)


def _ssim(true: np.ndarray, generated: np.ndarray) -> np.ndarray:
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    gray = (rgb2gray(pixels.reshape(-1, SIDE, SIDE, 3)) for pixels in (true, generated))
    pairs = zip(*gray, strict=True)
    return np.array([structural_similarity(a, b, data_range=1.0, **options) for a, b in pairs])


def _diagonal(pairs: np.ndarray) -> tuple[np.ndarray, float]:
    """Scores of the pairs that belong together, and the mean of all that do not."""
    return pairs.diagonal(), float(pairs[~np.eye(len(pairs), dtype=bool)].mean())


def _of_pairs(score: str, title: str, features, true, n_way: int) -> tuple:
    """Metric, values and chance of a score of pairs."""
    if score == "n-way":
        n_way = min(n_way, true.shape[1])
        values = n_way_accuracy(features, true, n_way)
        return f"{n_way}-way top-1 ({title.split()[0]})", values, 1 / n_way
    metric, pairs = f"{score} ({title})", correlation(features, true)
    if score == "two-way":
        return metric, two_way(pairs).diagonal(), 0.5
    return metric, *_diagonal(cosine_similarity(features, true))


def _pair_row(name, metric, values, chance, network="pixels", **bootstrap) -> tuple:
    floor = 0 if "way" in metric else -1
    mean, low, high = mean_with_interval(values, floor=floor, **bootstrap)
    return name, metric, mean, chance, "higher", len(values), low, high, network


def _kid_row(name, features, true, network, confidence) -> tuple:
    """KID with a jackknife interval: one part of the pictures is left out at a time."""
    n = len(true)
    x, y = (torch.tensor(part) for part in (features, true))
    value = float(poly_mmd(y, x))
    parts = KFold(min(n, 40), shuffle=True, random_state=0).split(y)
    left = np.array([float(poly_mmd(y[kept], x[kept])) for kept, _ in parts])
    reach = stats.norm.ppf((1 + confidence) / 2) * np.sqrt((len(left) - 1) * left.var())
    low, high = value - reach, value + reach
    return name, f"KID ({network})", value, np.nan, "lower", n, low, high, network
