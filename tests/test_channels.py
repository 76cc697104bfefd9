"""Channels are chosen by where they lie, not by their order in the file."""

import mne

from eeglib.channels import has_position, posterior_channel, spread_channels


def info(*names):
    found = mne.create_info(list(names), 250.0, "eeg")
    return found.set_montage("standard_1005", on_missing="ignore", verbose="error")


def test_channels_from_front_to_back():
    given = info("O1", "Cz", "Fp1", "Pz", "Fz")
    assert spread_channels(given, 3) == ["Fp1", "Cz", "O1"]
    assert spread_channels(given, 9) == ["Fp1", "Fz", "Cz", "Pz", "O1"]


def test_the_posterior_channel_is_oz_or_the_rearmost():
    assert posterior_channel(info("Iz", "Cz", "Oz")) == "Oz"
    assert posterior_channel(info("Pz", "PO7", "Fz")) == "PO7"


def test_a_channel_without_a_place_has_none():
    assert [has_position(c) for c in info("Cz", "unknown")["chs"]] == [True, False]
