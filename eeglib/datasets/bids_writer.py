"""Write a recording the way that BIDS wants it (chapter 1)."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import mne
import mne_bids
import numpy as np
import pandas
import pybv

from eeglib.datasets.montage import place_channels


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

    ``data`` are volts, (n_chans, n_times); channels of the 10-05 system get its positions.
    ``events`` has ``onset``, ``duration`` (s), ``trial_type`` and any further columns, which
    ``descriptions`` explains; ``sidecar`` are entries of ``eeg.json``. A value of more than 16 bit
    at ``resolution`` (microvolts per bit) raises ``ValueError``.
    """
    path = path.copy().update(datatype="eeg", suffix="eeg", extension=".vhdr")
    # pybv truncates towards zero: half a step outwards makes that a rounding.
    rounded = np.copysign(np.float32(0.5e-6 * resolution), data)
    rounded += data
    codes = {name: code for code, name in enumerate(sorted(events["trial_type"].unique()), 1)}
    with tempfile.TemporaryDirectory() as folder:
        how = {"folder_out": folder, "fname_base": "recording", "fmt": "binary_int16"}
        how |= {"sfreq": sfreq, "ch_names": ch_names, "resolution": resolution}
        pybv.write_brainvision(data=rounded, **how)
        with mne.utils.use_log_level("error"):
            raw = mne.io.read_raw_brainvision(Path(folder) / "recording.vhdr")
            raw.info["line_freq"] = 50
            place_channels(raw.info)
            if np.isnan([c["loc"][:3] for c in raw.info["chs"]]).any():
                raw.set_montage(None)  # half a table of positions could not be read back
            columns = [events[name] for name in ("onset", "duration", "trial_type")]
            further = events.drop(columns=[c.name for c in columns]).to_dict("records")
            raw.set_annotations(mne.Annotations(*columns, extras=further))
            how = {"event_id": codes, "overwrite": True, "verbose": "error"}
            mne_bids.write_raw_bids(raw, path, extra_columns_descriptions=dict(descriptions), **how)
    mne_bids.update_sidecar_json(path.update(extension=".json"), dict(sidecar), verbose="error")
