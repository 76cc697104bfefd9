"""Any BIDS data set of EEG whose events say what was shown (chapter 1).

BIDS (Brain Imaging Data Structure) is how laboratories keep recordings so that others can read
them: one folder per subject, tables in plain text beside the signals. Whoever brings own data
brings them in this form; the simulated recordings go the same way.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from eeglib.datasets import METADATA, Dataset, DatasetError, Recording
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets.bids_tables import (
    copy_channel_facts,
    image_names,
    integers_of,
    numbers_of,
    onsets_of,
    read_json,
    read_tsv,
    require_column,
    sidecar_file,
    sort_key,
)
from eeglib.datasets.images import can_open
from eeglib.datasets.montage import montage_1005

if TYPE_CHECKING:
    import mne
    import mne_bids
    import pandas

EXTENSIONS = (".vhdr", ".edf", ".bdf", ".set", ".fif")
NOT_SHOWN = ("n/a", "nan", "", "boundary", "edge boundary", "new segment", "new segment/")
"""Values of the label column that never name a class (any case)."""

STIMULI_COLUMNS = ["image", "label", "class_name", "file"]


class Options(BaseOptions):
    """Which recordings and events of a BIDS data set are trials."""

    task: str | None = Field(None, description="only this task; needed where there are several")
    sessions: tuple[str, ...] | None = Field(None, description="only these, as in ses-<label>")
    label_column: str = Field("trial_type", description="column of events.tsv that names classes")
    trial_types: tuple[str, ...] | None = Field(
        None, description="values that are classes, in the order of their labels; none: all"
    )
    image_column: str | None = Field(
        "stim_file", description="column that names images; none: no images"
    )
    block_column: str = Field("block", description="column of integers that numbers blocks")


class Loader(Dataset):
    """Continuous recordings of a BIDS data set.

    Notes
    -----
    Subjects are numbers here. Where every label is a different number (``sub-01``) it is the
    subject's number; otherwise subjects are numbered from 1 in the order of their sorted labels,
    and the data card tells who is who. Sessions likewise; without sessions, runs count as such.
    The order of presentation is that of the onsets, recordings in the order of session and run.
    """

    Options: ClassVar = Options

    @property
    def reading(self) -> Options:
        """How events are read; a data set that knows its own tables overrides this."""
        return self.options

    def prepare(self) -> None:
        """Check that the profile's subjects are there and that their events name classes."""
        missing = [s for s in self.settings.subjects if s not in self.labels]
        if missing:
            raise DatasetError(
                f"No subject {', '.join(map(str, missing))} in {self.folder}; there are: "
                f"{self._who_is_who()}. Change dataset.subjects."
            )
        for subject in self.settings.subjects:
            self._check_has_trials(subject)

    @property
    def labels(self) -> dict[int, str]:
        """Label in the file names (without ``sub-``) of each subject's number."""
        found = sorted(p.name[4:] for p in self.folder.glob("sub-*") if p.is_dir())
        if not found:
            raise DatasetError(
                f"{self.folder} is no BIDS data set: it has no folder sub-<label>. Set "
                "dataset.root to the folder that holds dataset_description.json."
            )
        return dict(sorted(zip(numbers_of(found), found, strict=True)))

    def subjects(self) -> list[int]:
        """Numbers of the subjects."""
        return list(self.labels)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the classes: `trial_types`, or all values found, sorted."""
        if self.reading.trial_types:
            return list(self.reading.trial_types)
        return sorted(set(self.events["class_name"]))

    @cached_property
    def events(self) -> pandas.DataFrame:
        """Trials of all subjects as the tables give them, before the signals are looked at."""
        import pandas

        tables = [
            self._read_events(subject, number, path)
            for subject in self.subjects()
            for number, path in enumerate(self._paths(subject))
        ]
        events = pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame()
        if events.empty:
            raise DatasetError(
                f"No event in {self.folder} names a class in column {self.reading.label_column!r}"
                f"{self._only_these()}. Set dataset.options.label_column and trial_types to what "
                "events.tsv holds."
            )
        events["image"] = image_names(events["file"])
        events["order"] = events.groupby("subject").cumcount()
        return self._with_pictures(events)

    def recordings(self, subject: int) -> list[Recording]:
        """Recordings of one subject; signals are read when they are first used."""
        self._check_has_trials(subject)
        recordings = []
        for number, path in enumerate(self._paths(subject)):
            trials = self._trials(subject, number)
            if trials.empty:
                continue
            raw = self._read_signals(path)
            inside = (trials["onset"] >= 0) & (trials["onset"] < raw.n_times / raw.info["sfreq"])
            if not inside.all():
                self._note(
                    f"{path.basename}: {(~inside).sum()} of {len(trials)} events lie outside the "
                    "recording and are left out.",
                    warn=True,
                )
            recordings.append(Recording(raw, trials[inside].reset_index(drop=True)))
        return recordings

    def stimuli(self) -> pandas.DataFrame:
        """Images that stand in the folder ``stimuli``; empty where there are none."""
        table = self._with_labels(self.events)
        table = table[table["image"] != ""].drop_duplicates(["image", "label"])
        table = table.assign(file=[self.folder / "stimuli" / f for f in table["file"]])
        if not (self.folder / "stimuli").is_dir():
            table = table.iloc[:0]
        if table["image"].duplicated().any():
            self._note(
                "Some images stand for more than one class, so no classifier of images can be "
                "trained on them; the images are left out.",
                warn=True,
            )
            table = table.iloc[:0]
        table = table.sort_values("label", kind="stable")
        return table[STIMULI_COLUMNS].reset_index(drop=True)

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        description = read_json(self.folder / "dataset_description.json")
        subject = self.settings.subjects[0]
        path = self._paths(subject)[0]
        raw = self._open(path)
        kinds = raw.get_channel_types()
        others = [f"{n} ({k})" for n, k in zip(raw.ch_names, kinds, strict=True) if k != "eeg"]
        recording_type = self._sidecar(path).get("RecordingType", "not stated")
        facts = {
            "title": description.get("Name", "not stated"),
            "licence": description.get("License", "not stated"),
            "source": description.get("DatasetDOI", "not stated"),
            "subjects": self._who_is_who(),
            "recordings": f"{len(self._paths(subject))} of subject {subject}, {recording_type}",
            "channels": f"{kinds.count('eeg')} EEG, {raw.info['sfreq']:g} Hz, volts",
            "channels left out": ", ".join(others) or "none",
            "channels marked bad, kept": ", ".join(raw.info["bads"]) or "none",
            "classes": ", ".join(self.class_names),
        }
        return facts

    # --- tables -----------------------------------------------------------------------------

    def _paths(self, subject: int) -> list[mne_bids.BIDSPath]:
        """Files of one subject's recordings, in the order of session and run."""
        import mne_bids

        if subject not in self.labels:
            raise DatasetError(f"No subject {subject}; there are: {self._who_is_who()}.")
        label = self.labels[subject]
        files = sorted((self.folder / f"sub-{label}").glob("**/eeg/*_eeg.*"))
        found = [
            mne_bids.get_bids_path_from_fname(f, check=False)
            for f in files
            if f.suffix.lower() in EXTENSIONS
        ]
        tasks = sorted({p.task for p in found if p.task})
        if self.reading.task is None and len(tasks) > 1:
            raise DatasetError(
                f"sub-{label} has several tasks: {', '.join(tasks)}. Name one in "
                "dataset.options.task."
            )
        wanted = self.reading.sessions
        kept = [
            p
            for p in found
            if self.reading.task in (None, p.task) and (wanted is None or p.session in wanted)
        ]
        if not kept:
            there = ", ".join(p.fpath.name for p in found) or "none"
            raise DatasetError(
                f"sub-{label} has no EEG recording ({', '.join(EXTENSIONS)}) of task "
                f"{self.reading.task or 'any'} and session {wanted or 'any'}; found: {there}."
            )
        return sorted(kept, key=lambda p: (sort_key(p.session), sort_key(p.run)))

    def _read_events(self, subject: int, number: int, path: mne_bids.BIDSPath) -> pandas.DataFrame:
        """Trials of one recording, from its ``events.tsv``."""
        import pandas

        reading, file = self.reading, sidecar_file(path, "events", ".tsv")
        if file is None:
            raise DatasetError(
                f"{path.basename} has no events.tsv, so that nobody knows what was shown when. "
                "Write one with the columns onset, duration and trial_type."
            )
        table = read_tsv(file)
        for column in ("onset", reading.label_column):
            require_column(table, column, file)
        named = "image_column" in reading.model_fields_set and reading.image_column
        if named:
            require_column(table, reading.image_column, file)
        names = table[reading.label_column].str.strip()
        if reading.trial_types:
            kept = names.isin(reading.trial_types)
        else:
            kept = ~names.str.lower().isin(NOT_SHOWN) & ~names.str.match("(?i)bad|edge")
        table, names = table[kept], names[kept]
        files = table.get(reading.image_column, pandas.Series("", table.index))
        events = pandas.DataFrame(
            {
                "onset": onsets_of(table["onset"], file),
                "subject": subject,
                "recording": number,
                "session": self._session_number(subject, path),
                "block": integers_of(table.get(reading.block_column), table.index),
                "class_name": names,
                "file": files.str.strip().replace({"n/a": "", "nan": ""}),
            }
        )
        unknown = events["onset"].isna()
        if unknown.any():
            self._note(
                f"{file.name}: {unknown.sum()} events without an onset are left out.", warn=True
            )
        return events[~unknown].sort_values("onset", kind="stable")

    def _with_pictures(self, events: pandas.DataFrame) -> pandas.DataFrame:
        """Leave out trials whose picture is missing, where there is a folder of pictures."""
        folder = self.folder / "stimuli"
        if not folder.is_dir():
            return events
        named = [file for file in events["file"].unique() if file]
        missing = [file for file in named if not can_open(folder / file)]
        if not missing:
            return events
        if len(missing) == len(named):
            raise DatasetError(
                f"None of the {len(named)} pictures that events.tsv names is in {folder}, such as "
                f"{missing[0]}. Put them there, or remove the folder to go on without pictures."
            )
        self._note(
            f"{len(missing)} pictures are missing in {folder} or cannot be opened; trials of these "
            f"images are left out: {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}",
            warn=True,
        )
        return events[~events["file"].isin(missing)]

    def _trials(self, subject: int, number: int) -> pandas.DataFrame:
        events = self.events
        own = events[(events["subject"] == subject) & (events["recording"] == number)]
        return self._with_labels(own)[["onset", *METADATA]].reset_index(drop=True)

    def _with_labels(self, events: pandas.DataFrame) -> pandas.DataFrame:
        position = {name: label for label, name in enumerate(self.class_names)}
        labels = events["class_name"].map(position)
        if labels.isna().any():
            stray = sorted(set(events.loc[labels.isna(), "class_name"]))
            raise DatasetError(f"Events name classes that the data set does not have: {stray}.")
        return events.assign(label=labels.astype(int))

    def _session_number(self, subject: int, path: mne_bids.BIDSPath) -> int:
        """Number of a session; without sessions that of the run; 1 where there is neither."""
        kind = "session" if path.session else "run"
        present = sorted({str(getattr(p, kind) or "1") for p in self._paths(subject)}, key=sort_key)
        numbers = dict(zip(present, numbers_of(present), strict=True))
        return numbers[str(getattr(path, kind) or "1")]

    def _check_has_trials(self, subject: int) -> None:
        self._paths(subject)
        if not (self.events["subject"] == subject).any():
            raise DatasetError(
                f"Subject {subject} (sub-{self.labels[subject]}) has no event that names a class "
                f"in column {self.reading.label_column!r}{self._only_these()}."
            )

    def _only_these(self) -> str:
        types = self.reading.trial_types
        return f" among {', '.join(types)}" if types else ""

    def _who_is_who(self) -> str:
        return ", ".join(
            str(n) if label.isdigit() else f"{n} = sub-{label}" for n, label in self.labels.items()
        )

    # --- signals ----------------------------------------------------------------------------

    def _sidecar(self, path: mne_bids.BIDSPath) -> dict:
        file = sidecar_file(path, "eeg", ".json")
        return read_json(file) if file else {}

    def _read_signals(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """EEG channels of one recording, with positions and joints."""
        raw = self._open(path)
        if "eeg" not in raw.get_channel_types():
            raise DatasetError(
                f"{path.basename} has no EEG channel, only "
                f"{', '.join(sorted(set(raw.get_channel_types())))}. Correct the column type of "
                "its channels.tsv."
            )
        raw.pick("eeg", exclude=())
        if all(np.isnan(c["loc"][:3]).any() or not c["loc"][:3].any() for c in raw.info["chs"]):
            montage = montage_1005()
            if {n.lower() for n in raw.ch_names} & {n.lower() for n in montage.ch_names}:
                raw.set_montage(montage, match_case=False, on_missing="ignore", verbose="error")
        raw.set_annotations(self._joints(path, raw))
        return raw

    def _open(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """Open a file with what its tables say on its channels."""
        import mne
        import mne_bids

        sidecar = self._sidecar(path)
        epoched = sidecar.get("RecordingType") == "epoched"
        length = sidecar.get("EpochLength")
        if epoched and not (isinstance(length, int | float) and length > 0):
            raise DatasetError(
                f"{path.basename} is epoched, but its eeg.json has no EpochLength (s). Add it."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # missing tables are reported on the data card
                if not epoched:
                    raw = mne_bids.read_raw_bids(path, on_ch_mismatch="reorder", verbose="error")
                else:  # mne-bids cuts such files itself; filters want the stretches side by side
                    known = mne_bids.read_epochs_bids(path, verbose="error").info
                    raw = mne.io.read_raw(path.fpath, verbose="error")
                    copy_channel_facts(known, raw)
        except Exception as error:  # whatever a reader stumbles over, the user must learn the file
            raise DatasetError(f"{path.fpath.name} cannot be read: {error}") from None
        stated = sidecar.get("SamplingFrequency")
        if isinstance(stated, int | float) and not np.isclose(stated, raw.info["sfreq"], rtol=0.01):
            raise DatasetError(
                f"{path.fpath.name} is sampled at {raw.info['sfreq']:g} Hz, but its eeg.json "
                f"states {stated:g} Hz. Correct the one that is wrong."
            )
        return raw

    def _joints(self, path: mne_bids.BIDSPath, raw: mne.io.BaseRaw) -> mne.Annotations:
        """Annotations ``EDGE boundary`` where the recording was cut and joined."""
        import mne

        sidecar, duration = self._sidecar(path), raw.n_times / raw.info["sfreq"]
        kind, onsets = sidecar.get("RecordingType", "continuous"), []
        if kind == "epoched":
            length = sidecar["EpochLength"]
            onsets = np.arange(1, round(duration / length)) * length
        elif kind == "discontinuous":
            file = sidecar_file(path, "events", ".tsv")
            table = read_tsv(file)
            names = table[self.reading.label_column].str.lower()
            marked = names.isin(["boundary", "edge boundary"]) | names.str.startswith("new segment")
            onsets = onsets_of(table.loc[marked, "onset"], file).dropna()
            onsets = onsets[(onsets > 0) & (onsets < duration)]
        return mne.Annotations(
            onsets,
            [0.0] * len(onsets),
            ["EDGE boundary"] * len(onsets),
            orig_time=raw.annotations.orig_time,
        )
