"""Figures of chapters 1 to 3 and 10: channels, filters, spectra, time and frequency, latency."""

import re
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import mne
import numpy as np
import pandas
from matplotlib.figure import Figure
from mne.io.constants import FIFF

from eeglib.plotting.style import COLORS, WIDTH, message_figure, new_figure

Signals = mne.io.BaseRaw | mne.BaseEpochs


def _unit(info: mne.Info) -> tuple[float, str]:
    """Factor and name of the unit in which signals are drawn."""
    is_none = info["chs"][0]["unit"] == FIFF.FIFF_UNIT_NONE
    return (1.0, "no unit") if is_none else (1e6, "µV")


def _has_position(channel: Mapping) -> bool:
    """Whether a channel of ``info["chs"]`` has a place on the head."""
    place = channel["loc"][:3]
    return bool(np.isfinite(place).all() and place.any())


def plot_channels(info: mne.Info) -> Figure:
    """Positions of the channels on the head, with names: of more than 64, of the coarser rows."""
    picks = [p for p in mne.pick_types(info, eeg=True) if _has_position(info["chs"][p])]
    if not picks:
        return message_figure(f"{len(info['ch_names'])} channels, positions unknown")
    eeg = mne.pick_info(info, picks)
    coarse = r"(Fp|F|C|P|O|T|AF|PO)(z|[0-9]+)"
    names = [n for n in eeg["ch_names"] if len(picks) <= 64 or re.fullmatch(coarse, n)]
    figure, axes = new_figure(WIDTH * 0.75)
    mne.viz.plot_sensors(eeg, show_names=names or True, axes=axes[0, 0], show=False, pointsize=14)
    for text in axes[0, 0].texts:
        text.set_fontsize(8.5)
    return figure


def plot_timeline(trials: pandas.DataFrame, class_names: Sequence[str]) -> Figure:
    """When each class was shown: one mark per trial, time across, class up, a panel per session.

    `trials` holds ``label``, ``session`` and either ``onset`` (seconds after the start of its
    session) or ``order``; where that is -1 throughout, the figure says that it is unknown.
    """
    sessions = sorted(trials["session"].unique())
    axis = "onset" if "onset" in trials else "order"
    if axis == "order" and (trials["order"] < 0).all():
        return message_figure("The order of presentation is unknown")
    height = 1.2 + 0.22 * len(class_names)
    figure, axes = new_figure(height, 1, len(sessions), sharey=True, sharex=True)
    for ax, session in zip(axes[0], sessions, strict=True):
        own = trials[trials["session"] == session]
        ax.plot(own[axis], own["label"], "|", color=COLORS[0], markersize=7)
        name = "" if len(sessions) > 5 and session != sessions[0] else "session "
        ax.set_title(f"{name}{session}" if session >= 0 else "session unknown")
        ax.grid(axis="y", color="0.92")
    label = "time (s)" if axis == "onset" else "presentation order (trials)"
    figure.supxlabel(label, fontsize="medium")
    axes[0, 0].set_yticks(range(len(class_names)), class_names)
    axes[0, 0].set_ylabel("class")
    axes[0, 0].invert_yaxis()
    return figure


def plot_power_drift(blocks: Mapping[str, pandas.DataFrame]) -> Figure:
    """Log-power of each channel in each block, (n_blocks, n_chans) and centred, by recording."""
    figure, axes = new_figure(3.2, columns=len(blocks), layout="constrained")
    for ax, (name, table) in zip(axes[0], blocks.items(), strict=True):
        image = ax.imshow(table.T, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
        rows = range(0, table.shape[1], -(-table.shape[1] // 16))
        ax.set_yticks(rows, table.columns[list(rows)])
        ax.set(title=name, xlabel="block, in order of time")
    figure.colorbar(image, ax=axes[0].tolist(), label="log-power, against the mean of blocks")
    return figure


def plot_filter_response(frequencies: np.ndarray, responses: Mapping[str, np.ndarray]) -> Figure:
    """Gain of filters (1 = unchanged), by their names, against frequency in hertz."""
    figure, axes = new_figure(2.6)
    for name, gain in responses.items():
        axes[0, 0].plot(frequencies, 20 * np.log10(np.maximum(gain, 1e-6)), label=name)
    axes[0, 0].set(xlabel="frequency (Hz)", ylabel="gain (dB)", ylim=(-60, 3))
    axes[0, 0].legend()
    return figure


def plot_spectra(before: Signals, after: Signals, fmax: float | None = None) -> Figure:
    """Power spectral density before and after filtering: each channel, and the median."""
    figure, axes = new_figure(3.0, 1, 2, sharey=True)
    fmax, (factor, unit) = fmax or before.info["sfreq"] / 2, _unit(before.info)
    for ax, data, title in zip(axes[0], (before, after), ("before", "after"), strict=True):
        n_fft = int(min(2 * data.info["sfreq"], len(data.times)))
        spectrum = data.compute_psd("welch", fmax=fmax, n_fft=n_fft, picks="eeg", verbose=False)
        power = spectrum.get_data()
        power = power.mean(axis=0) if power.ndim == 3 else power  # trials, where already cut
        density = 10 * np.log10(np.maximum(power * factor**2, 1e-10))
        ax.plot(spectrum.freqs, density.T, color="0.8", linewidth=0.4)
        ax.plot(spectrum.freqs, np.median(density, axis=0), color=COLORS[0], label="median channel")
        ax.set(title=title, xlabel="frequency (Hz)")
    reference = "1/Hz" if unit == "no unit" else f"1 {unit}²/Hz"
    axes[0, 0].set_ylabel(f"power density (dB re {reference})")
    top = np.percentile([line.get_ydata().max() for line in axes[0, 0].lines], 98)
    axes[0, 0].set_ylim(top - 80, top + 5)
    axes[0, 0].legend()
    return figure


def plot_traces(
    recordings: Mapping[str, Signals], channels: Sequence[str], seconds: float = 2.0
) -> Figure:
    """Some channels, a column for each name: the middle of a recording, or the first trial."""
    size = len(channels), len(recordings)
    figure, axes = new_figure(0.75 + 0.85 * len(channels), *size, sharex="col")
    for column, (title, signals) in enumerate(recordings.items()):
        if isinstance(signals, mne.BaseEpochs):
            traces, times = signals[:1].get_data(picks=list(channels))[0], signals.times
        else:
            n_times = min(int(seconds * signals.info["sfreq"]), signals.n_times)
            start = (signals.n_times - n_times) // 2
            stretch = start, start + n_times
            traces, times = signals.get_data(list(channels), *stretch, return_times=True)
        factor, unit = _unit(signals.info)
        for ax, trace, name in zip(axes[:, column], traces * factor, channels, strict=True):
            ax.plot(times, trace - np.median(trace), linewidth=0.7, color=COLORS[0])
            ax.set_ylabel(f"{name} ({unit})")
        axes[0, column].set_title(title)
        axes[-1, column].set_xlabel("time (s)")
    return figure


def plot_evoked(evoked: mne.Evoked) -> Figure:
    """Average over trials: all channels against time; maps where all positions are known."""
    times = np.linspace(evoked.times[0], evoked.times[-1], 6)[1:-1]
    has_positions = all(_has_position(channel) for channel in evoked.info["chs"])
    figure = plt.figure(figsize=(WIDTH, 4.6 if has_positions else 2.6), layout="constrained")
    grid = figure.add_gridspec(1 + has_positions, 5, width_ratios=[1, 1, 1, 1, 0.08])
    ax = figure.add_subplot(grid[0, :])
    factor, unit = _unit(evoked.info)
    ax.plot(evoked.times, evoked.data.T * factor, color=COLORS[0], linewidth=0.5, alpha=0.6)
    for moment in times:
        ax.axvline(moment, color="0.75", linewidth=0.8, zorder=0)
    ax.set(xlabel="time after the onset of the image (s)", ylabel=f"average over trials ({unit})")
    if has_positions:
        maps = [figure.add_subplot(grid[1, column]) for column in range(5)]
        drawn = {"contours": 4, "res": 48, "scalings": factor, "units": unit, "show": False}
        evoked.plot_topomap(times, axes=maps, **drawn)
    return figure


def plot_spectrograms(
    spectrograms: Mapping[str, np.ndarray],
    grids: Sequence[tuple[np.ndarray, np.ndarray]],
    fmax: float | None = None,
    label: str = "magnitude",
) -> Figure:
    """Spectrograms, shape (n_freqs, n_windows), side by side, by the title above them.

    `grids` holds the frequencies (hertz) and times (seconds) of each; `label` names the colour.
    """
    figure, axes = new_figure(3.0, 1, len(spectrograms))
    for ax, title, (frequencies, times) in zip(axes[0], spectrograms, grids, strict=True):
        style = {"shading": "nearest", "rasterized": True}
        mesh = ax.pcolormesh(times, frequencies, spectrograms[title], **style)
        ax.set(title=title, xlabel="time (s)", ylim=(0, fmax or frequencies[-1]))
        figure.colorbar(mesh, ax=ax, label=label, shrink=0.9)
    axes[0, 0].set_ylabel("frequency (Hz)")
    return figure


def plot_energy(frequencies: np.ndarray, shares: np.ndarray, kept: np.ndarray) -> Figure:
    """Share of the energy in each frequency bin of spectrograms; those in `kept` in full colour."""
    figure, axes = new_figure(2.4)
    colors = [COLORS[0] if f in kept else "0.75" for f in frequencies]
    axes[0, 0].bar(frequencies, 100 * shares, width=0.7 * frequencies[1], color=colors)
    axes[0, 0].set(xlabel="frequency (Hz)", ylabel="share of the energy (%)")
    return figure


def plot_wavelets(
    magnitudes: np.ndarray, bands: Sequence[str], start: float, stop: float
) -> Figure:
    """Wavelet magnitudes, shape (n_levels, n_times), of a trial from `start` to `stop` (s)."""
    figure, axes = new_figure(3.0)
    extent = (start, stop, -0.5, len(bands) - 0.5)
    style = {"interpolation": "nearest", "vmin": 0}
    mesh = axes[0, 0].imshow(magnitudes, aspect="auto", origin="lower", extent=extent, **style)
    axes[0, 0].set_yticks(range(len(bands)), bands)
    axes[0, 0].set(xlabel="time (s)", ylabel="level")
    figure.colorbar(mesh, ax=axes[0, 0], label="magnitude (standard deviations)")
    return figure


def plot_pulse(times: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """What each way to filter makes of a pulse at time 0; seconds, and curves by name."""
    figure, axes = new_figure(2.8)
    for color, style, (name, curve) in zip(COLORS, ("-", "--"), curves.items(), strict=False):
        axes[0, 0].plot(1e3 * times, curve, style, color=color, label=name)
    axes[0, 0].axvline(0, color="grey", linewidth=0.8)
    axes[0, 0].set(xlabel="time after the pulse (ms)", ylabel="filtered (no unit)")
    axes[0, 0].legend()
    return figure


def plot_latency(parts: pandas.DataFrame) -> Figure:
    """Milliseconds of each part, a column each: a dot at the median, a line to 99 of 100."""
    figure, axes = new_figure(0.9 + 0.35 * parts.shape[1])
    medians, highs = parts.median(), parts.quantile(0.99)
    rows = np.arange(parts.shape[1])
    axes[0, 0].hlines(rows, medians, highs, color=COLORS[0])
    axes[0, 0].plot(medians, rows, "o", color=COLORS[0])
    for row, (median, high) in enumerate(zip(medians, highs, strict=True)):
        median, high = (f"{value:,.{0 if value >= 100 else 1}f}" for value in (median, high))
        axes[0, 0].text(highs.iloc[row], row, f"  {median} ms, 99%: {high} ms", va="center")
    axes[0, 0].set(xscale="log", xlabel="milliseconds", yticks=rows, yticklabels=list(parts))
    axes[0, 0].set_xlim(0.8 * medians.min(), 30 * highs.max())
    axes[0, 0].invert_yaxis()
    return figure
