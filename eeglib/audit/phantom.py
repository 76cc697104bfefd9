"""Phantom blocks: classes that nobody was shown (chapter 8).

Invent blocks over a recording in which no class was shown in blocks, label them, and run the
identical pipeline. What it scores, a clock gave it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas

from eeglib.audit.trials import AuditError, AuditTrials

if TYPE_CHECKING:
    import mne


def phantom_trials(trials: AuditTrials, n_classes: int | None = None) -> AuditTrials:
    """The same trials, labelled by when they were recorded.

    Parameters
    ----------
    trials : AuditTrials
        Of a randomised design, so that a stretch of time holds all classes alike.
    n_classes : int | None
        Invented classes; as many as real ones where left out.

    Returns
    -------
    AuditTrials
        Labels and blocks replaced: equal runs of consecutive trials. Images are cleared, because
        the invented classes have none.

    Raises
    ------
    AuditError
        If the order is not known or there are fewer than 5 trials for each invented class.
    """
    n_classes = n_classes or trials.n_classes
    if trials.order is None:
        raise AuditError("Phantom blocks need the order of presentation. Add the column order.")
    if len(trials.labels) < 5 * n_classes:
        raise AuditError(
            f"{len(trials.labels)} trials are too few for {n_classes} phantom classes; ask for at "
            f"most {len(trials.labels) // 5}."
        )
    runs = np.empty(len(trials.labels), dtype=int)
    rows = np.lexsort((trials.order, trials.session))
    for label, part in enumerate(np.array_split(rows, n_classes)):
        runs[part] = label
    metadata = trials.metadata.assign(
        label=runs, block=runs, image="", class_name=[f"phantom {k}" for k in runs]
    )
    return replace(trials, metadata=metadata, n_classes=n_classes)


def phantom_recording(
    raw: mne.io.BaseRaw,
    n_classes: int,
    trial: float = 0.5,
    block: float = 25.0,
    pause: float = 10.0,
    subject: int = 1,
) -> tuple[np.ndarray, pandas.DataFrame]:
    """Cut a continuous recording as if the block protocol had been shown.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    n_classes : int
    trial, block, pause : float
        Lengths, s. The published protocol: 0.5, 25 and 10 s.
    subject : int

    Returns
    -------
    data : float64 array, shape (n_trials, n_chans, n_times)
        Volts, EEG channels.
    metadata : pandas.DataFrame
        `eeglib.datasets.METADATA` and ``time``.

    Raises
    ------
    AuditError
        If the recording is too short.
    """
    sfreq = raw.info["sfreq"]
    n_times, per_block = round(trial * sfreq), int(block / trial)
    needed = n_classes * (block + pause) - pause
    if raw.times[-1] + 1 / sfreq < needed:
        raise AuditError(
            f"{n_classes} phantom blocks need {needed:.0f} s, the recording has "
            f"{raw.times[-1]:.0f} s. Ask for fewer or shorter blocks."
        )
    signal = raw.get_data(picks="eeg")
    onsets = np.array(
        [k * (block + pause) + i * trial for k in range(n_classes) for i in range(per_block)]
    )
    starts = np.round(onsets * sfreq).astype(int)
    data = np.stack([signal[:, start : start + n_times] for start in starts])
    labels = np.repeat(np.arange(n_classes), per_block)
    metadata = pandas.DataFrame(
        {
            "subject": subject,
            "session": 0,
            "block": labels,
            "order": np.arange(len(labels)),
            "image": "",
            "label": labels,
            "class_name": [f"phantom {k}" for k in labels],
            "time": onsets,
        }
    )
    return data, metadata
