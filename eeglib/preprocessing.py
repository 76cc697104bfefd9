"""From a data set to one subject's clean trials: the steps of chapter 2 in one call."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eeglib.datasets import Dataset, Recording
from eeglib.filtering import cut_epochs, filter_epochs, filter_recording, filter_response
from eeglib.profile import FilteringSettings

if TYPE_CHECKING:
    import mne

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preprocessed:
    """One subject's trials, and what is needed to see how they came about.

    Attributes
    ----------
    before, after : mne.io.BaseRaw | mne.BaseEpochs
        The first recording, or the trials where no recording is distributed, before and after
        filtering; volts.
    evoked : mne.Evoked
        Average of all filtered trials, volts.
    epochs : mne.BaseEpochs
        The trials that go into the models: filtered, standardised (no unit) if the profile says
        so, with metadata.
    report : list of str
        What the data set found and what was done and left out, a line each.
    """

    before: mne.io.BaseRaw | mne.BaseEpochs
    after: mne.io.BaseRaw | mne.BaseEpochs
    evoked: mne.Evoked
    epochs: mne.BaseEpochs
    report: list[str]


def remaining_steps(settings: FilteringSettings, processed: tuple[str, ...]) -> FilteringSettings:
    """Leave out what a data set has been through before it was distributed.

    Parameters
    ----------
    settings : FilteringSettings
    processed : tuple of str
        `Dataset.processed`; entries begin with ``notch``, ``band`` or ``standardize``.

    Notes
    -----
    Signals that were standardised are standardised anew where a filter still runs on them: it
    takes away a share of the variance that differs between channels.
    """
    done = {step.split()[0] for step in processed}
    update = {name: None for name in ("notch", "band") if name in done}
    left = settings.model_copy(update=update)
    if "standardize" in done and left.notch is None and left.band is None:
        left = left.model_copy(update={"standardize": False})
    return left


def preprocess(dataset: Dataset, subject: int, settings: FilteringSettings) -> Preprocessed:
    """Filter, standardise and cut the trials of one subject.

    Parameters
    ----------
    dataset : Dataset
    subject : int
    settings : FilteringSettings
        Section ``filtering`` of the profile. Steps that the data set has been through already
        are not repeated.

    Raises
    ------
    SignalError, DatasetError
        If the data cannot be filtered or hold no trial.

    Notes
    -----
    The steps are those of section 3.2 of the paper. Memory: the filtered recordings of the
    subject and, one after the other, two sets of trials, all in double precision.
    """
    settings = remaining_steps(settings, dataset.processed)
    in_volts = settings.model_copy(update={"standardize": False})
    if dataset.continuous:
        recordings = dataset.recordings(subject)
        before = recordings[0].raw.copy().load_data(verbose=False)
        n_announced = sum(len(r.trials) for r in recordings)
        filtered = [Recording(filter_recording(r.raw, settings), r.trials) for r in recordings]
        after = filtered[0].raw
        evoked = cut_epochs(filtered, in_volts).average()
        epochs = cut_epochs(filtered, settings)
    else:
        before = dataset.epochs(subject)
        n_announced = len(dataset.trials(subject))
        after = filter_epochs(before, in_volts)
        evoked = after.average()
        epochs = filter_epochs(before, settings) if settings.standardize else after
    report = dataset.report() + _report(settings, dataset.processed, n_announced, len(epochs))
    return Preprocessed(before, after, evoked, epochs, report)


def evoked_response(dataset: Dataset, subject: int, settings: FilteringSettings) -> mne.Evoked:
    """Average of one subject's trials in a band of its own, volts."""
    settings = remaining_steps(settings, dataset.processed)
    settings = settings.model_copy(update={"standardize": False})
    if not dataset.continuous:
        return filter_epochs(dataset.epochs(subject), settings).average()
    filtered = [
        Recording(filter_recording(r.raw, settings), r.trials) for r in dataset.recordings(subject)
    ]
    return cut_epochs(filtered, settings).average()


def responses(
    settings: FilteringSettings, sfreq: float, frequencies: np.ndarray
) -> dict[str, np.ndarray]:
    """Gain of each of the profile's filters, by a title for the figure.

    Parameters
    ----------
    settings : FilteringSettings
    sfreq : float
        Hertz.
    frequencies : array, shape (n_freqs,)
        Hertz.
    """
    gains = {}
    for name, bounds, kind in (
        ("notch", settings.notch, "bandstop"),
        ("band-pass", settings.band, "bandpass"),
    ):
        if bounds is not None:
            title = f"{name} {bounds[0]:g}–{bounds[1]:g} Hz"
            gains[title] = filter_response(frequencies, sfreq, *bounds, settings.order, kind)
    return gains


def _report(
    settings: FilteringSettings, processed: tuple[str, ...], n_announced: int, n_kept: int
) -> list[str]:
    lines = [f"Before it was distributed: {step}." for step in processed]
    for name, bounds in (("Notch", settings.notch), ("Band-pass", settings.band)):
        if bounds is not None:
            lines.append(
                f"{name} {bounds[0]:g} to {bounds[1]:g} Hz, Butterworth of order "
                f"{settings.order}, forwards and backwards."
            )
    if settings.standardize:
        lines.append("Each channel standardised to mean 0 and standard deviation 1.")
    lines.append(f"Trials kept: {n_kept} of {n_announced}.")
    return lines
