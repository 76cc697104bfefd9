"""Cut the real extract that comes with the package out of PhysioNet's files.

    python tools/make_real_extract.py FOLDER

``FOLDER`` is the ``path`` of `mne.datasets.eegbci.load_data`; files that are missing there are
downloaded. Ten blocks of subject 1: runs 3 and 4, and the first half of run 5. The files hold whole
microvolts, so that int16 loses nothing.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

from eeglib.datasets import open_dataset
from eeglib.datasets.eegmmidb import EXTRACT, SFREQ
from eeglib.profile import DatasetSettings

CHANNELS = (
    "Fp1 Fpz Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 CP5 CP1 CP2 CP6 P7 P3 Pz P4 P8 "
    "PO7 POz PO8 O1 Oz O2"
).split()
SECONDS = {5: 62.25}  # of a run that is not needed whole: two blocks and their pauses


def main(folder: Path) -> None:
    """Write the extract, and check that it holds the very signals of the files."""
    loader = open_dataset(DatasetSettings(name="eegmmidb", subjects=(1,), root=folder), folder)
    arrays: dict[str, np.ndarray] = {"ch_names": np.array(CHANNELS)}
    for run, raw in islice(loader._runs(1), 3):
        n_times = round(SECONDS.get(run, 1e6) * SFREQ)
        microvolts = raw.get_data(CHANNELS, stop=min(n_times, raw.n_times)) * 1e6
        arrays[f"run_{run}"] = np.round(microvolts).astype(np.int16)
        assert np.abs(microvolts - arrays[f"run_{run}"]).max() < 1e-6
    arrays["runs"] = np.array([int(name[4:]) for name in arrays if name.startswith("run_")])
    np.savez_compressed(EXTRACT, **arrays)
    print(f"{EXTRACT}: {EXTRACT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
