"""Profiles: what is allowed, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from eeglib.profile import Profile, ProfileError, load_profile, shipped_profiles
from tools.profile_settings import PAGE, settings_page


def write(folder, text: str):
    path = folder / "mine.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", shipped_profiles())
def test_shipped_profiles_are_valid_and_named_like_their_file(name):
    profile = load_profile(name)
    assert profile.name == name
    assert profile.title


def test_the_page_of_settings_has_every_key_with_its_meaning():
    written = PAGE.read_text(encoding="utf-8")
    assert written == settings_page(), "run: python -m tools.profile_settings"
    for name, field in Profile.model_fields.items():
        for key in getattr(type(field.default), "model_fields", {}):
            assert f"`{name}.{key}`\n: " in written
    assert (
        "`training.alpha`\n: Weight of the class labels in the loss; eq. (1). *Number " in written
    )
    assert "*Number ≥ 0 and ≤ 1*; default `0.5`." in written


def test_the_defaults_are_those_of_the_paper():
    profile = Profile(name="x")
    assert profile.filtering.notch == (49, 51)
    assert profile.filtering.band == (14, 70)
    assert profile.filtering.order == 2
    assert (profile.timefrequency.window, profile.timefrequency.step) == (0.04, 0.02)
    assert (profile.split.training, profile.split.validation, profile.split.test) == (0.8, 0.1, 0.1)
    assert profile.reconstruction.prompt == "an image of a {class}"


def test_values_come_from_default_then_file_then_command_line(tmp_path):
    path = write(tmp_path, "training: {alpha: 0.25, patience: 3}\n")
    profile = load_profile(path, {"training.patience": 4, "seed": 9})
    assert (profile.training.alpha, profile.training.patience) == (0.25, 4)
    assert profile.training.temperature == Profile(name="x").training.temperature
    assert profile.seed == 9
    assert profile.name == "mine"


def test_a_profile_comes_back_from_its_own_file(tmp_path):
    profile = load_profile("demo")
    path = write(tmp_path, yaml.safe_dump(profile.model_dump(mode="json")))
    assert load_profile(path) == profile


def test_a_relative_root_counts_from_the_file(tmp_path):
    assert load_profile(write(tmp_path, "dataset: {root: data}")).dataset.root == tmp_path / "data"
    absolute = write(tmp_path, f"dataset: {{root: {tmp_path}}}")
    assert load_profile(absolute).dataset.root == tmp_path
    home = load_profile("demo", {"dataset.root": "~/data"}).dataset.root
    assert home == Path.home() / "data"


def test_relative_models_count_from_the_file_and_names_of_models_stay(tmp_path, monkeypatch):
    text = "teacher: {model: models/clip, weights: openai}\nreconstruction: {model: ./sd}\n"
    path = write(tmp_path, text + "pictures: {weights: weights}\n")
    (tmp_path / "models" / "clip").mkdir(parents=True)
    (tmp_path / "demo").mkdir()
    profile = load_profile(path)
    assert profile.teacher.model == str(tmp_path / "models" / "clip")
    assert profile.teacher.weights == "openai"
    assert profile.reconstruction.model == str(tmp_path / "sd")
    assert profile.pictures.weights == tmp_path / "weights"
    names = {"teacher.model": "ViT-L-14", "reconstruction.model": "stabilityai/sd-turbo"}
    profile = load_profile(path, names)
    assert (profile.teacher.model, profile.reconstruction.model) == tuple(names.values())
    assert load_profile(path, {"teacher.model": "demo"}).teacher.model == "demo"
    monkeypatch.chdir(tmp_path / "models")
    assert load_profile("demo", {"teacher.model": "clip"}).teacher.model == str(
        tmp_path / "models" / "clip"
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainin: {}", "trainin: unknown key; allowed here: .*training"),
        ("training: {aplha: 1}", r"training\.aplha: unknown key; allowed here: alpha"),
        ("training: {alpha: 1.5}", r"training\.alpha.*got 1\.5"),
        ("training: {alpha: high}", r"training\.alpha.*got 'high'"),
        ("training: {max_epochs: 0}", r"training\.max_epochs"),
        ("training: {max_epochs: 2.5}", r"training\.max_epochs"),
        ("training: {seeds: []}", r"training\.seeds"),
        ("training: {device: gpu}", r"training\.device.*got 'gpu'"),
        ("training: 3", "training"),
        ("filtering: {band: [70, 14]}", r"filtering\.band.*must ascend"),
        ("filtering: {notch: [50]}", r"filtering\.notch"),
        ("filtering: {band: [0, 14]}", r"filtering\.band"),
        ("split: {training: 0.5}", "sum"),
        ("split: {training: 1, validation: 0, test: 0}", "greater than 0"),
        ("dataset: {subjects: []}", r"dataset\.subjects"),
        ("dataset: {subjects: [0]}", r"dataset\.subjects"),
        ("resources: {05_distill_student: {hours: 1}}", "hours"),
        ("name: 'my profile/..'", "name"),
        ("seed: -1", "seed"),
        ("- a list", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("a: [", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_not_a_profile_is_refused(tmp_path, text, told):
    with pytest.raises(ProfileError, match=f"(?s){told}"):
        load_profile(write(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "latin.yml"
    path.write_bytes("title: Größe".encode("latin-1"))
    with pytest.raises(ProfileError, match="not valid YAML"):
        load_profile(path)


def test_a_value_is_no_section():
    with pytest.raises(ProfileError, match="seed is a value, not a section"):
        load_profile("demo", {"seed.deep": 1})


def test_a_profile_is_constant():
    with pytest.raises(ValueError, match="frozen"):
        load_profile("demo").seed = 3
