"""Channels chosen by where they lie on the head (chapters 1 to 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mne


def has_position(channel: Mapping) -> bool:
    """Whether a channel of ``info["chs"]`` has a place on the head."""
    place = channel["loc"][:3]
    return bool(np.isfinite(place).all() and place.any())


def spread_channels(info: mne.Info, n_chans: int) -> list[str]:
    """Names of some EEG channels from the front to the back of the head."""
    import mne

    picks = mne.pick_types(info, eeg=True)
    depth = np.array([info["chs"][p]["loc"][1] for p in picks])
    order = np.argsort(-np.nan_to_num(depth), kind="stable")
    chosen = np.linspace(0, len(picks) - 1, min(n_chans, len(picks))).round().astype(int)
    return [info["ch_names"][picks[order[c]]] for c in chosen]


def posterior_channel(info: mne.Info) -> str:
    """The EEG channel over primary visual cortex: Oz, or else the rearmost."""
    return "Oz" if "Oz" in info["ch_names"] else spread_channels(info, 2)[-1]
