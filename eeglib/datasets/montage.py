"""Electrodes and where they lie (chapter 1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mne

ACTICAP_128 = tuple(json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")))
"""Channels of the 128-electrode actiCAP, in the order of EEG-ImageNet's files."""


def montage_1005() -> mne.channels.DigMontage:
    """Positions of the 10-05 system on the template head that MNE ships."""
    import mne

    return mne.channels.make_standard_montage("colin27_1005")


def place_channels(info: mne.Info) -> None:
    """Give the channels that the 10-05 system knows their places on the template head."""
    montage = montage_1005()
    if {name.lower() for name in info.ch_names} & {name.lower() for name in montage.ch_names}:
        info.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")
