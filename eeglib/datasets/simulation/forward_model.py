"""From sources in the brain to electrodes: a spherical head (chapter 1)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import mne
import numpy as np

from eeglib.datasets.montage import montage_1005

OCCIPITAL = ("O1", "O2", "Oz", "POO1", "POO2", "PO3", "PO4", "PO7", "PO8", "I1", "I2", "POz")
TEMPORAL = ("P7", "P8", "P9", "P10", "PO9", "PO10", "TP7", "TP8", "TP9", "TP10", "TPP9h", "TPP10h")
SITES = {  # electrodes below which sources lie
    "visual": OCCIPITAL + TEMPORAL,  # early, and later in inferior temporal cortex
    "alpha": ("O1", "O2", "POz", "Pz", "P3", "P4", "PO7", "PO8"),
    "eyes": ("Fp1", "Fp2"),
}
MUSCLE = ("FT9", "FT10", "T7", "T8", "TP9", "TP10", "F9", "F10")
DEPTH = 0.78
"""Distance of a cortical source from the centre of the head, in radii of the scalp."""
N_BACKGROUND = 240


class Head(NamedTuple):
    """Lead field of one set of channels; its groups of sources are `SITES` and ``background``."""

    ch_names: tuple[str, ...]
    sites: dict[str, np.ndarray]  # (n_sites, 3), m, MNE's head coordinates
    outward: dict[str, np.ndarray]  # (n_sites, 3), unit vectors from the centre of the head
    gain: dict[str, np.ndarray]  # (n_chans, n_sites, 3), V per A m, against the mean of channels
    muscle: np.ndarray  # (n_chans,), closeness to the temporal and neck muscles, 0 to 1
    distances: np.ndarray  # (n_chans, n_chans), between the electrodes, m

    def topographies(self, group: str, directions: np.ndarray) -> np.ndarray:
        """Scalp patterns, V per A m, (n_chans, n_sites), of dipoles along unit vectors."""
        return np.einsum("csx,sx->cs", self.gain[group], directions)

    def random_directions(self, group: str, spread: float, rng: np.random.Generator) -> np.ndarray:
        """Unit vectors, outward but for a random part of the size of ``spread``."""
        directions = self.outward[group] + spread * rng.standard_normal(self.outward[group].shape)
        return directions / np.linalg.norm(directions, axis=1, keepdims=True)


@lru_cache(maxsize=4)
def build_head(ch_names: tuple[str, ...]) -> Head:
    """Compute the lead field of a spherical head; ``ValueError`` for unknown channels.

    Electrodes are those of MNE's 10-05 montage; the sphere is fitted to them, with MNE's four
    default shells (brain, fluid, skull, skin). A source named after an electrode lies
    below it at `DEPTH`; background sources fill the upper part of the brain evenly. Sources:
    Mosher et al., IEEE Trans. Biomed. Eng. 46:245 (1999); Berg & Scherg, ibid. 90:58.
    """
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
    outward = {}
    for group, names in SITES.items():
        vectors = np.array([electrodes[name] for name in names])
        outward[group] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sites = {group: centre + radius * DEPTH * unit for group, unit in outward.items()}
    rng = np.random.default_rng(20240)  # the same for every head
    unit = rng.standard_normal((4 * N_BACKGROUND, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    outward["background"] = unit = unit[unit[:, 2] > -0.45][:N_BACKGROUND]
    depths = rng.uniform(0.45, 0.84, len(unit))
    sites["background"] = centre + radius * depths[:, None] * unit
    info = mne.pick_info(whole, [montage.ch_names.index(n) for n in ch_names])
    positions = np.array([electrodes[n] for n in ch_names])
    rim = np.array([electrodes[n] for n in MUSCLE])
    to_rim = np.linalg.norm(positions[:, None] - rim, axis=-1).min(axis=1)
    return Head(
        ch_names=ch_names,
        sites=sites,
        outward=outward,
        gain=_lead_field(info, sites, mne.make_sphere_model(centre, radius, verbose="error")),
        muscle=np.exp(-0.5 * (to_rim / 0.03) ** 2),
        distances=np.linalg.norm(positions[:, None] - positions[None], axis=-1),
    )


def _lead_field(info: mne.Info, sites: dict[str, np.ndarray], sphere) -> dict[str, np.ndarray]:
    positions = np.concatenate(list(sites.values()))
    up = np.tile([0.0, 0.0, 1.0], (len(positions), 1))
    with mne.utils.use_log_level("error"):
        space = mne.setup_volume_source_space(pos={"rr": positions, "nn": up})
        forward = mne.make_forward_solution(info, None, space, sphere, meg=False, mindist=0.0)
    gain = forward["sol"]["data"].reshape(len(info["ch_names"]), len(positions), 3)
    gain = gain - gain.mean(axis=0)
    ends = np.cumsum([len(p) for p in sites.values()])[:-1]
    return dict(zip(sites, np.split(gain, ends, axis=1), strict=True))
