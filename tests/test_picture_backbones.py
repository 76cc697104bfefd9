"""Networks by name: shapes, published layers, weight files good and bad."""

import pickle

import numpy as np
import pytest
import torch

from eeglib.datasets.stimuli import CLASSES, draw_stimulus
from eeglib.profile import EvaluationSettings
from eeglib.reconstruction.image_metrics import PictureSettings, load_backbones, measure
from eeglib.reconstruction.picture_backbones import (
    BACKBONES,
    PUBLISHED,
    SWAV_URL,
    BackboneError,
    load_backbone,
    resized,
)
from eeglib.reconstruction.picture_weights import filled
from eeglib.reconstruction.pictures import as_pictures

EFFICIENTNET_FILE = "efficientnet_b1-c27df63c.pth"


@pytest.fixture(scope="module")
def pictures():
    return as_pictures([draw_stimulus(label, 3, 64) for label in (0, 9, 32)])


@pytest.mark.parametrize(("name", "sizes"), [
    # Channels x height x width at the published input sizes.
    ("alexnet", {"features.4": 192 * 31 * 31, "features.11": 256 * 15 * 15}),
    ("inception", {"avgpool": 2048}),
    ("efficientnet-b1", {"avgpool": 1280}),
    ("swav", {"avgpool": 2048}),
    ("fid-inception", {"2048": 2048, "logits_unbiased": 1008}),
])  # fmt: skip
def test_published_networks_give_the_layers_that_scores_need(pictures, name, sizes):
    torch.manual_seed(0)
    backbone = load_backbone(name, pretrained=False)
    features = backbone.describe(pictures[:2], batch_size=1)
    assert {key: value.shape for key, value in features.items()} == {
        key: (2, size) for key, size in sizes.items()
    }
    for value in features.values():
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
        assert not np.allclose(value[0], value[1], atol=0)


def test_published_names_cover_the_scores_of_papers():
    assert set(PUBLISHED) == set(BACKBONES) - {"demo-clip"}


def test_a_table_of_published_scores_has_published_names(pictures):
    settings = PictureSettings(backbones=("efficientnet-b1",))
    backbones = [load_backbone(n, pretrained=False) for n in settings.backbones]
    others = as_pictures([draw_stimulus(label, 8, 64) for label in (0, 9, 32)])
    table = measure(pictures, others, backbones, settings, EvaluationSettings(n_bootstrap=50))
    assert list(table["metric"]) == ["PixCorr", "SSIM", "EffNet-B1 distance"]
    assert list(table["better"]) == ["higher", "higher", "lower"]


def test_demo_clip_names_the_drawings():
    labels = range(0, 40, 2)
    drawn = as_pictures([draw_stimulus(label, 77, 64) for label in labels])
    found = load_backbone("demo-clip").describe(drawn)
    assert found["classes"].shape == (20, len(CLASSES))
    assert np.mean(found["classes"].argmax(axis=1) == list(labels)) > 0.9
    assert np.linalg.norm(found["image"], axis=1) == pytest.approx(np.ones(20), abs=1e-4)


def test_batches_do_not_change_features(pictures):
    clip = load_backbone("demo-clip")
    one, all_ = (clip.describe(pictures, batch_size=n)["image"] for n in (1, 3))
    assert one == pytest.approx(all_, abs=1e-5)


def test_resizing_keeps_the_range_and_the_mean():
    values = torch.zeros(1, 3, 64, 64)
    values[..., ::2] = 1
    small = resized(values, 16)
    assert small.shape == (1, 3, 16, 16)
    assert small.numpy() == pytest.approx(np.full(small.shape, 0.5), abs=0.05), "no aliasing"
    assert 0 <= resized(values, 200, bicubic=True).min() <= resized(values, 200, True).max() <= 1


def test_weights_are_read_from_a_folder(tmp_path, pictures):
    torch.manual_seed(1)
    original = load_backbone("efficientnet-b1", pretrained=False)
    state = original.network.state_dict() | {
        "classifier.1.weight": torch.zeros(1000, 1280), "classifier.1.bias": torch.zeros(1000)
    }  # fmt: skip
    torch.save(state, tmp_path / EFFICIENTNET_FILE)
    again = load_backbone("efficientnet-b1", tmp_path)
    assert (again.describe(pictures)["avgpool"] == original.describe(pictures)["avgpool"]).all()


def test_swav_file_loses_its_prefix_and_its_projection_head(tmp_path, pictures):
    torch.manual_seed(2)
    original = load_backbone("swav", pretrained=False)
    state = {f"module.{k}": v for k, v in original.network.state_dict().items()}
    state["module.projection_head.0.weight"] = torch.zeros(2, 2)
    state["module.prototypes.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / SWAV_URL.rsplit("/", 1)[-1])
    again = load_backbone("swav", tmp_path)
    assert (again.describe(pictures)["avgpool"] == original.describe(pictures)["avgpool"]).all()


def test_unknown_name_lists_those_there_are():
    with pytest.raises(BackboneError, match="No backbone named 'alexnets'; there are demo-clip"):
        load_backbones(PictureSettings(backbones=("alexnets",)))


def test_absent_file_says_where_to_get_it(tmp_path):
    with pytest.raises(BackboneError, match=f"holds no {EFFICIENTNET_FILE}. Download https://"):
        load_backbone("efficientnet-b1", tmp_path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"<html>404</html>"])
def test_damaged_file_is_refused(tmp_path, content):
    (tmp_path / EFFICIENTNET_FILE).write_bytes(content)
    with pytest.raises(BackboneError, match=EFFICIENTNET_FILE):
        load_backbone("efficientnet-b1", tmp_path)


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_file_that_would_run_code_is_refused_unrun(tmp_path):
    sprung = tmp_path / "sprung"
    for save in (torch.save, lambda x, f: f.write_bytes(pickle.dumps(x, protocol=2))):
        save({"a": Trap(str(sprung))}, tmp_path / EFFICIENTNET_FILE)
        with pytest.raises(BackboneError, match="not a file of weights"):
            load_backbone("efficientnet-b1", tmp_path)
    assert not sprung.exists()


def test_weights_of_another_network_are_refused():
    network = torch.nn.Linear(2, 3)
    with pytest.raises(BackboneError, match="do not fit a line"):
        filled(network, {"weight": torch.zeros(5, 2), "bias": torch.zeros(3)}, "a line")
    with pytest.raises(BackboneError, match="1 are missing, 1 unknown"):
        filled(network, {"weight": torch.zeros(3, 2), "else": torch.zeros(3)}, "a line")


def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for name in ("swav", "fid-inception"):
        with pytest.raises(BackboneError, match=r"no network. Download https://"):
            load_backbone(name)
