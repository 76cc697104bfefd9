"""Finding pictures in folders as people keep them."""

import numpy as np
import pandas as pd
import pytest
import twins
from PIL import Image

from eeglib.datasets import DatasetError
from eeglib.datasets.images import can_open, find_pictures

NAMES = ["n02389026_1", "n02389026_22", "n03888257_7"]


def find(folder, names, note=lambda *_, **__: None):
    table = pd.DataFrame({"image": names, "label": 0, "class_name": "canoe"})
    return find_pictures(folder, table, note).set_index("image")["file"].to_dict()


@pytest.mark.parametrize("nested", [True, False])
def test_nested_and_flat(tmp_path, nested):
    twins.write_pictures(tmp_path, NAMES, nested)
    pictures = find(tmp_path, NAMES)
    assert list(pictures) == NAMES
    assert all(path.stem == name for name, path in pictures.items())


@pytest.mark.parametrize("extension", [".png", ".jpg", ".PNG", ".jpeg"])
def test_extensions(tmp_path, extension):
    Image.new("RGB", (4, 4)).save(tmp_path / f"a.b c ü{extension}")
    assert list(find(tmp_path, ["a.b c ü"])) == ["a.b c ü"]


def test_missing_are_listed_in_order_and_others_do_not_matter(tmp_path):
    twins.write_pictures(tmp_path, [*NAMES, "n09999999_1"])
    (tmp_path / "n02389026" / "n02389026_22.JPEG").unlink()
    notes = []
    pictures = find(tmp_path, [*NAMES, "n0_1", *NAMES], lambda n, warn: notes.append(n))
    assert notes[0].startswith("2 pictures are missing")
    assert notes[0].endswith("left out: n02389026_22, n0_1")
    assert list(pictures) == ["n02389026_1", "n03888257_7"]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\xff\xd8\xff\xe0rubbish"])
def test_files_that_are_no_pictures(tmp_path, content):
    twins.write_pictures(tmp_path, NAMES, nested=False)
    (tmp_path / f"{NAMES[0]}.JPEG").write_bytes(content)
    assert list(find(tmp_path, NAMES)) == NAMES[1:]


@pytest.mark.parametrize("extension", [".png", ".JPEG"])
def test_a_picture_that_ends_too_early_counts_as_missing(tmp_path, extension):
    path = tmp_path / f"{NAMES[0]}{extension}"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(100))  # what some cameras append does no harm
    assert can_open(path)
    path.write_bytes(whole[: int(0.9 * len(whole))])
    assert not can_open(path)


def test_the_folder_of_the_class_counts_first(tmp_path):
    twins.write_pictures(tmp_path / "a copy", NAMES[:1], nested=False)
    twins.write_pictures(tmp_path, NAMES[:1])
    assert find(tmp_path, NAMES[:1])[NAMES[0]].parent.name == "n02389026"


def test_no_folder_and_no_picture(tmp_path):
    notes = []
    assert find(tmp_path / "images", NAMES, notes.append) == {}
    assert notes == [f"No pictures in {tmp_path / 'images'}: chapters 4 and 7 will end early."]
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(DatasetError, match="None of the 3 pictures can be opened"):
        find(tmp_path, NAMES)
