"""What was put into a simulated recording, kept beside it (chapter 1)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import scipy.signal

from eeglib.datasets.simulation.ongoing import Drift, NoiseComponent, band_spectrum
from eeglib.datasets.simulation.response import INDUCED_BANDS, VisualResponse

FOLDER = Path("sourcedata") / "truth"

README = """\
What was put into the simulated recordings, one file per subject (NumPy arrays, no pickles).
Read them with eeglib.datasets.simulation.truth.load_truth(folder, subject), whose documentation
says what each array holds.
"""


@dataclass(frozen=True)
class Truth:
    """All that an ideal observer, or the judge of a control analysis, may want to know.

    Notes
    -----
    Channel c at time t of a session holds, in volts,

        exp(gain_c(t)) * (sum_b exp(band_bc(t)) ongoing_bc(t) + evoked_c(t) + induced_c(t)
                          + mains_c(t) + artefacts_c(t)) + offset_c(t)

    where ``gain``, ``band`` and ``offset`` are the drift (0 at drift strength 0), ``ongoing_b`` is
    band b of the stationary Gaussian noise, ``evoked`` the sum over trials of
    ``evoked_response(image)`` placed at their onsets (it outlasts a trial by 0.3 s and so reaches
    into the next), and ``induced`` is Gaussian given the image: source d, band b contributes
    ``topographies[:, d] * induced[image, d, b] * envelopes[d, b, t] * noise(t)`` with noise of unit
    variance and autocorrelation ``induced_autocorrelation[b]``. All is against the average of the
    channels before gain, and is stored after rounding to the file's resolution.

    Attributes
    ----------
    ch_names, sfreq
        Channels, and sampling rate in hertz.
    images, labels : arrays, shape (n_images,)
        Names and classes of the pictures; axis 0 of the response's arrays.
    response : VisualResponse
    source_positions : array, shape (n_dipoles, 3)
        Metres, MNE's head coordinates; the first 12 occipital, the rest inferior temporal.
    noise_names : array of str, shape (n_components,)
    noise_covariances : array, shape (n_components, n_chans, n_chans)
        V^2; each component's covariance over time is ``noise_autocorrelations``.
    noise_autocorrelations : array, shape (n_components, n_lags)
        At lags 0, 1, ... samples, starting with 1; one response long.
    induced_autocorrelation : array, shape (n_bands, n_lags)
    mains : complex array, shape (n_chans,)
        Amplitude of ``Re(mains exp(2 pi i 50 t))``, V.
    drift : Drift
    trial_session, trial_onset, trial_image : arrays, shape (n_trials,)
        Session (from 0), onset in it (s), row of ``images``; in the order of presentation.
    blinks, twitches : arrays, shape (n_events, 2)
        Session and time (s) of the artefacts.
    part_names : array of str, shape (n_parts,)
    part_variances : array, shape (n_parts, 2)
        Mean over channels of each part's variance (V^2) within trials: all frequencies, and
        14-70 Hz without 48-52 Hz. Measured on the first block of every session.
    """

    ch_names: np.ndarray
    sfreq: float
    images: np.ndarray
    labels: np.ndarray
    response: VisualResponse
    source_positions: np.ndarray
    noise_names: np.ndarray
    noise_covariances: np.ndarray
    noise_autocorrelations: np.ndarray
    induced_autocorrelation: np.ndarray
    mains: np.ndarray
    drift: Drift
    trial_session: np.ndarray
    trial_onset: np.ndarray
    trial_image: np.ndarray
    blinks: np.ndarray
    twitches: np.ndarray
    part_names: np.ndarray
    part_variances: np.ndarray

    def evoked_response(self, image: int) -> np.ndarray:
        """Noise-free evoked response to one picture, V, shape (n_chans, n_times)."""
        return self.response.topographies @ self.response.source_courses(image)

    def variance_table(self):
        """Variance of each part within trials as a DataFrame, microvolts squared."""
        import pandas

        return pandas.DataFrame(
            1e12 * self.part_variances,
            index=pandas.Index(self.part_names, name="part"),
            columns=["all frequencies", "14-70 Hz"],
        )

    def save(self, folder: Path, subject: int) -> None:
        """Write ``sourcedata/truth/sub-XX_truth.npz`` below a data set's folder."""
        arrays = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, VisualResponse | Drift):
                for part in fields(value):
                    arrays[f"{item.name}.{part.name}"] = getattr(value, part.name)
            else:
                arrays[item.name] = value
        path = truth_file(folder, subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "README").write_text(README, encoding="utf-8")
        np.savez_compressed(path, allow_pickle=False, **arrays)


def truth_file(folder: Path, subject: int) -> Path:
    """Where the truth of a subject stands."""
    return Path(folder) / FOLDER / f"sub-{subject:02d}_truth.npz"


def load_truth(folder: str | Path, subject: int) -> Truth:
    """Read what was put into one simulated subject.

    Parameters
    ----------
    folder : str | Path
        Folder of the simulated BIDS data set.
    subject : int

    Returns
    -------
    Truth

    Raises
    ------
    FileNotFoundError
        If there is no truth for that subject, as for every real recording.
    """
    path = truth_file(Path(folder), subject)
    if not path.is_file():
        raise FileNotFoundError(
            f"No {path}. Only simulated recordings have a truth; simulate the subject first."
        )
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    for name, kind in (("response", VisualResponse), ("drift", Drift)):
        parts = {f.name: arrays.pop(f"{name}.{f.name}") for f in fields(kind)}
        arrays[name] = kind(**parts)
    arrays["sfreq"] = float(arrays["sfreq"])
    return Truth(**arrays)


def noise_model(
    components: list[NoiseComponent], sfreq: float, n_lags: int
) -> dict[str, np.ndarray]:
    """Second-order description of the noise, as `Truth` keeps it."""
    induced = [
        NoiseComponent(name, np.ones((1, 1)), band_spectrum(*band))
        for name, (band, _) in INDUCED_BANDS.items()
    ]
    return {
        "noise_names": np.array([c.name for c in components]),
        "noise_covariances": np.stack([c.mixing @ c.mixing.T for c in components]),
        "noise_autocorrelations": np.stack([c.autocorrelation(sfreq, n_lags) for c in components]),
        "induced_autocorrelation": np.stack([c.autocorrelation(sfreq, n_lags) for c in induced]),
    }


def part_variance(part: np.ndarray, sfreq: float) -> np.ndarray:
    """Variance of one part, and that in 14-70 Hz without 48-52 Hz, mean over channels, V^2.

    Parameters
    ----------
    part : float array, shape (n_chans, n_times)
        Volts.
    """
    frequencies, density = scipy.signal.welch(part, sfreq, nperseg=min(round(sfreq), part.shape[1]))
    band = (frequencies >= 14) & (frequencies <= 70) & (np.abs(frequencies - 50) > 2)
    inside = density[:, band].sum(axis=-1) * (frequencies[1] - frequencies[0])
    return np.array([part.var(axis=-1).mean(), inside.mean()], float)
