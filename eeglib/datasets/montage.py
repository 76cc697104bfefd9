"""Positions of electrodes that are known by name only (chapter 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mne


def montage_1005() -> mne.channels.DigMontage:
    """Positions of the 10-05 system on the template head that MNE ships."""
    import mne

    # MNE 1.13 renamed the montage and will drop the old name.
    names = mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage(
        "colin27_1005" if "colin27_1005" in names else "standard_1005"
    )
