"""Electrodes and where they lie (chapter 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mne

ACTICAP_128 = tuple(
    """
    Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 TP9 CP5 CP1 CP2 CP6 TP10 P7 P3 Pz P4 P8
    PO9 O1 Oz O2 PO10 AF7 AF3 AF4 AF8 F5 F1 F2 F6 FT9 FT7 FC3 FC4 FT8 FT10 C5 C1 C2 C6 TP7 CP3 CPz
    CP4 TP8 P5 P1 P2 P6 PO7 PO3 POz PO4 PO8 Fpz F9 AFF5h AFF1h AFF2h AFF6h F10 FTT9h FTT7h FCC5h
    FCC3h FCC1h FCC2h FCC4h FCC6h FTT8h FTT10h TPP9h TPP7h CPP5h CPP3h CPP1h CPP2h CPP4h CPP6h
    TPP8h TPP10h POO9h POO1 POO2 POO10h Iz AFp1 AFp2 FFT9h FFT7h FFC5h FFC3h FFC1h FFC2h FFC4h
    FFC6h FFT8h FFT10h TTP7h CCP5h CCP3h CCP1h CCP2h CCP4h CCP6h TTP8h P9 PPO9h PPO5h PPO1h PPO2h
    PPO6h PPO10h P10 I1 OI1h OI2h I2
    """.split()
)
"""Channels of the 128-electrode actiCAP, in the order of EEG-ImageNet's files."""


def montage_1005() -> mne.channels.DigMontage:
    """Positions of the 10-05 system on the template head that MNE ships."""
    import mne

    # MNE 1.13 renamed the montage and will drop the old name.
    names = mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage(
        "colin27_1005" if "colin27_1005" in names else "standard_1005"
    )


def place_channels(info: mne.Info) -> None:
    """Give the channels that the 10-05 system knows their places on the template head."""
    montage = montage_1005()
    if {name.lower() for name in info.ch_names} & {name.lower() for name in montage.ch_names}:
        info.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")
