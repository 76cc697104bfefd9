"""Write a recording the way that BIDS wants it (chapter 1)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eeglib.datasets.montage import montage_1005

if TYPE_CHECKING:
    import mne_bids
    import pandas


def write_recording(
    path: mne_bids.BIDSPath,
    data: np.ndarray,
    ch_names: list[str],
    sfreq: float,
    events: pandas.DataFrame,
    descriptions: Mapping[str, str],
    sidecar: Mapping[str, object],
    resolution: float = 0.1,
) -> None:
    """Write one recording as BrainVision files of 16 bit with BIDS's tables beside them.

    Parameters
    ----------
    path : mne_bids.BIDSPath
        Root, subject, task and, where there are any, session and run.
    data : float array, shape (n_chans, n_times)
        Volts.
    ch_names : list of str
        EEG channels. Those that the 10-05 system knows get its positions.
    sfreq : float
        Hertz.
    events : pandas.DataFrame
        ``onset``, ``duration`` (s), ``trial_type`` and any further columns, one row per trial.
    descriptions : mapping
        What each further column holds, for ``events.json``.
    sidecar : mapping
        Entries of ``eeg.json`` to add or replace.
    resolution : float
        Microvolts per bit.

    Raises
    ------
    ValueError
        If a value needs more than 16 bit at this resolution; nothing is clipped.
    """
    import mne
    import mne_bids
    import pybv

    types = {name: code for code, name in enumerate(sorted(events["trial_type"].unique()), 1)}
    samples = np.round(events["onset"].to_numpy() * sfreq).astype(int)
    markers = np.column_stack([samples, events["trial_type"].map(types)])
    with tempfile.TemporaryDirectory() as folder:
        pybv.write_brainvision(
            # pybv truncates towards zero: half a step outwards makes that a rounding.
            data=data + np.copysign(np.float32(0.5e-6 * resolution), data),
            sfreq=sfreq,
            ch_names=ch_names,
            fname_base="recording",
            folder_out=folder,
            events=markers,
            resolution=resolution,
            fmt="binary_int16",
        )
        with mne.utils.use_log_level("error"):
            raw = mne.io.read_raw_brainvision(Path(folder) / "recording.vhdr")
            raw.info["line_freq"] = 50
            raw.set_montage(montage_1005(), match_case=False, on_missing="ignore")
            known = [not np.isnan(c["loc"][:3]).any() for c in raw.info["chs"]]
            if not all(known):  # half a table of positions could not be read back
                raw.set_montage(None)
            mne_bids.write_raw_bids(raw, path, overwrite=True, verbose="error")
    table = events.assign(value=events["trial_type"].map(types), sample=samples)
    target = path.copy().update(suffix="events", extension=".tsv")
    table.to_csv(target.fpath, sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    _update_json(
        target.update(extension=".json"),
        {name: {"Description": text} for name, text in descriptions.items()},
    )
    _update_json(path.copy().update(suffix="eeg", extension=".json"), dict(sidecar))


def _update_json(path: mne_bids.BIDSPath, entries: dict) -> None:
    import json

    content = json.loads(path.fpath.read_text(encoding="utf-8"))
    content.update(entries)
    path.fpath.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
