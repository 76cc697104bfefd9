"""Electrodes and where they lie (chapter 1)."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mne

# Channels of the 128-electrode actiCAP, in the order of EEG-ImageNet's files.
ACTICAP_128 = tuple(json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")))


def montage_1005() -> "mne.channels.DigMontage":
    """Positions of the 10-05 system on the template head that MNE ships."""
    import mne

    return mne.channels.make_standard_montage("colin27_1005")


def place_channels(info: "mne.Info") -> None:
    """Give the channels that the 10-05 system knows their places on the template head."""
    montage = montage_1005()
    if {name.lower() for name in info.ch_names} & {name.lower() for name in montage.ch_names}:
        info.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")


def check_places(info: "mne.Info") -> None:
    """Mend places that are in a wrong unit or taken by another electrode, and say so."""
    channels = [c for c in info["chs"] if np.isfinite(c["loc"][:3]).all() and c["loc"][:3].any()]
    radii = [np.linalg.norm(channel["loc"][:3]) for channel in channels]
    if radii and not 0.04 < (radius := np.median(radii)) < 0.25:
        factor = 10.0 ** np.round(np.log10(0.095 / radius))
        text = f"electrodes lie {radius:.3g} m from the middle of the head: taken times {factor:g}."
        warnings.warn(text, stacklevel=2)
        for channel in channels:
            channel["loc"][:3] *= factor
    first = {}
    for channel in channels:  # maps of the head need electrodes apart; T3 and T7 are one place
        other = first.setdefault(tuple(np.round(channel["loc"][:3], 4)), channel["ch_name"])
        if other != channel["ch_name"]:
            text = f"{other} and {channel['ch_name']} lie at one place: the latter is not drawn."
            warnings.warn(text, stacklevel=2)
            channel["loc"][:] = np.nan
