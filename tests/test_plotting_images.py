"""Figures of pictures: verdicts in words, every set and score where it belongs."""

import numpy as np
import pandas
import pytest
from PIL import Image

from eeglib import plotting


@pytest.fixture(autouse=True)
def closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def pictures(n):
    return [Image.fromarray(np.full((16, 16, 3), 20 * i, np.uint8)) for i in range(n)]


def titles(figure):
    return [ax.get_title().replace("\n", " ") for ax in figure.axes if ax.get_title()]


def test_right_and_wrong_stand_in_words():
    figure = plotting.plot_reconstructions(
        pictures(10), pictures(10), ["banana"] * 10, ["banana", *["iron"] * 9]
    )
    found = titles(figure)
    assert found.count("right: banana") == 1
    assert found.count("wrong: iron") == 9
    assert found.count("label: banana") == 10


def test_sets_lie_below_each_other():
    sets = {"shown": pictures(3), "true label": pictures(3)}
    figure = plotting.plot_sets(sets, {"shown": ["a", "b", "c"]})
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["shown", "true label"]
    assert titles(figure) == ["a", "b", "c"]


def test_the_gallery_has_a_row_per_class_and_a_drawing_per_subject(tmp_path):
    for i, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"{i}.png")
    stimuli = pandas.DataFrame({"image": ["x"], "file": [tmp_path / "0.png"]})
    drawings = pandas.DataFrame(
        {
            "subject": [1, 2],
            "image": "x",
            "true": "banana",
            "predicted": ["banana", "iron"],
            "file": [tmp_path / "1.png", tmp_path / "2.png"],
        }
    )
    assert titles(plotting.plot_gallery(drawings, stimuli)) == [
        "label: banana", "subject 1, right: banana", "subject 2, wrong: iron",
    ]  # fmt: skip
    many = pandas.concat([drawings.iloc[:1].assign(subject=s) for s in range(1, 1001)])
    figure = plotting.plot_gallery(many, stimuli)
    assert len(figure.axes) == 7
    assert figure.get_suptitle() == "the first 6 of 1000 subjects"


def test_scores_have_a_panel_each_with_every_set():
    rows = [
        (name, metric, 0.5, chance, "higher", 8, 0.4, 0.6)
        for metric, chance in (("SSIM", 0.1), ("KID", np.nan))
        for name in ("true label", "predicted label", "random label")
    ]
    columns = "pictures metric value chance better n low high".split()
    figure = plotting.plot_picture_scores(pandas.DataFrame(rows, columns=columns))
    assert titles(figure) == ["SSIM (higher is better)", "KID (higher is better)"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        row[0] for row in rows[:3]
    ]
    strokes = [ax.lines[0].get_xdata() for ax in figure.axes[:2]]
    assert np.allclose(strokes[0], 0.1)
    assert np.isnan(strokes[1]).all()  # chance, where there is one
