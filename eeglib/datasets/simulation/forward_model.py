"""From sources in the brain to electrodes: a spherical head (chapter 1)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eeglib.datasets.montage import montage_1005

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

OCCIPITAL = ("O1", "O2", "Oz", "POO1", "POO2", "PO3", "PO4", "PO7", "PO8", "I1", "I2", "POz")
"""Electrodes below which the early visual sources lie."""

TEMPORAL = ("P7", "P8", "P9", "P10", "PO9", "PO10", "TP7", "TP8", "TP9", "TP10", "TPP9h", "TPP10h")
"""Electrodes below which the later, inferior temporal sources lie."""

ALPHA = ("O1", "O2", "POz", "Pz", "P3", "P4", "PO7", "PO8")
EYES = ("Fp1", "Fp2")
MUSCLE = ("FT9", "FT10", "T7", "T8", "TP9", "TP10", "F9", "F10")

DEPTH = 0.78
"""Distance of a cortical source from the centre of the head, in radii of the scalp."""

N_BACKGROUND = 240


@dataclass(frozen=True)
class Head:
    """Lead field of one set of channels.

    Attributes
    ----------
    ch_names : tuple of str
    sites : dict of str to array, shape (n_sites, 3)
        Positions of the sources by group (``visual``, ``alpha``, ``eyes``, ``background``),
        metres, MNE's head coordinates.
    gain : dict of str to float array, shape (n_chans, n_sites, 3)
        Volts at each channel, against the mean of all channels, for a current dipole of 1 A m
        along x, y, z at each site.
    outward : dict of str to array, shape (n_sites, 3)
        Unit vectors from the centre of the head through each site.
    muscle : array, shape (n_chans,)
        Closeness of each channel to the temporal and neck muscles, 0 to 1.
    distances : array, shape (n_chans, n_chans)
        Straight distances between the electrodes, metres.
    """

    ch_names: tuple[str, ...]
    sites: dict[str, np.ndarray]
    gain: dict[str, np.ndarray]
    outward: dict[str, np.ndarray]
    muscle: np.ndarray
    distances: np.ndarray

    def topographies(self, group: str, directions: np.ndarray) -> np.ndarray:
        """Scalp patterns of a group's dipoles, shape (n_chans, n_sites), V per A m.

        Parameters
        ----------
        group : str
        directions : array, shape (n_sites, 3)
            Unit vectors along which the currents flow.
        """
        return np.einsum("csx,sx->cs", self.gain[group], directions)


@lru_cache(maxsize=4)
def build_head(ch_names: tuple[str, ...] = ACTICAP_128) -> Head:
    """Compute the lead field of a spherical head (cached within the process).

    Parameters
    ----------
    ch_names : tuple of str
        Names of the 10-05 system, at least two.

    Raises
    ------
    ValueError
        If a name is not one of the 10-05 system or stands twice.

    Notes
    -----
    Electrodes are those of MNE's 10-05 montage; the sphere is fitted to them, with MNE's four
    default shells (brain, fluid, skull, skin). A source named after an electrode lies
    below it at `DEPTH`. Background sources fill the upper part of the brain evenly. Sources:
    Mosher et al., IEEE Trans. Biomed. Eng. 46:245 (1999); Berg & Scherg, ibid. 90:58.
    """
    import mne

    montage = montage_1005()
    unknown = sorted(set(ch_names) - set(montage.ch_names))
    if unknown or len(set(ch_names)) != len(ch_names) or len(ch_names) < 2:
        raise ValueError(
            f"Channels must be two or more different names of the 10-05 system, such as Oz; got "
            f"{len(ch_names)} names, unknown: {', '.join(unknown) or 'none'}."
        )
    whole = mne.create_info(montage.ch_names, 1000.0, "eeg")
    with mne.utils.use_log_level("error"):
        whole.set_montage(montage)
        radius, centre, _ = mne.bem.fit_sphere_to_headshape(whole, dig_kinds=("eeg",), units="m")
    electrodes = {c["ch_name"]: c["loc"][:3] - centre for c in whole["chs"]}
    outward = {
        "visual": _directions(electrodes, OCCIPITAL + TEMPORAL),
        "alpha": _directions(electrodes, ALPHA),
        "eyes": _directions(electrodes, EYES),
    }
    depths = {group: np.full(len(unit), DEPTH) for group, unit in outward.items()}
    outward["background"], depths["background"] = _background()
    sites = {g: centre + radius * depths[g][:, None] * unit for g, unit in outward.items()}
    chosen = mne.pick_info(whole, [montage.ch_names.index(n) for n in ch_names])
    gain = _lead_field(chosen, sites, mne.make_sphere_model(centre, radius, verbose="error"))
    positions = np.array([electrodes[n] for n in ch_names])
    rim = np.array([electrodes[n] for n in MUSCLE])
    to_rim = np.linalg.norm(positions[:, None] - rim, axis=-1).min(axis=1)
    return Head(
        ch_names=tuple(ch_names),
        sites=sites,
        gain=gain,
        outward=outward,
        muscle=np.exp(-0.5 * (to_rim / 0.03) ** 2),
        distances=np.linalg.norm(positions[:, None] - positions[None], axis=-1),
    )


def _directions(electrodes: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    vectors = np.array([electrodes[name] for name in names])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _background() -> tuple[np.ndarray, np.ndarray]:
    """Directions and relative depths of sources all over the brain, the same for every head."""
    rng = np.random.default_rng(20240)
    unit = rng.standard_normal((4 * N_BACKGROUND, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    unit = unit[unit[:, 2] > -0.45][:N_BACKGROUND]
    return unit, rng.uniform(0.45, 0.84, len(unit))


def _lead_field(info, sites: dict[str, np.ndarray], sphere) -> dict[str, np.ndarray]:
    import mne

    positions = np.concatenate(list(sites.values()))
    up = np.tile([0.0, 0.0, 1.0], (len(positions), 1))
    with mne.utils.use_log_level("error"):
        source_space = mne.setup_volume_source_space(pos={"rr": positions, "nn": up})
        forward = mne.make_forward_solution(
            info, trans=None, src=source_space, bem=sphere, meg=False, eeg=True, mindist=0.0
        )
    gain = forward["sol"]["data"].reshape(len(info["ch_names"]), len(positions), 3)
    gain = gain - gain.mean(axis=0)
    ends = np.cumsum([len(p) for p in sites.values()])[:-1]
    return dict(zip(sites, np.split(gain, ends, axis=1), strict=True))
