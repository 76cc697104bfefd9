"""Any BIDS data set of EEG whose events say what was shown (chapter 1).

BIDS (Brain Imaging Data Structure) is how laboratories keep recordings so that others can read
them: one folder per subject, tables in plain text beside the signals.
"""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd

from eeglib.datasets import METADATA, Dataset, DatasetError, Recording
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets.images import COLUMNS, usable_pictures
from eeglib.datasets.montage import place_channels

if TYPE_CHECKING:
    import mne
    import mne_bids

EXTENSIONS = (".vhdr", ".edf", ".bdf", ".set", ".fif")
# Events where a recording was stopped, cut or joined; values that never name a class; warnings of
# MNE-BIDS on what is known of the person, which no chapter asks for.
JOINT = r"(?i:(edge )?boundary|new segment/?)"
NO_CLASS = r"(?i)(bad.*|edge.*|boundary|new segment/?|n/a|nan|)"
NO_MATTER = "participants|Unable to map the following column"


class Options(BaseOptions):
    """Which recordings and events of a BIDS data set are trials."""

    task: str | None = None  # only this one; needed where there are several
    sessions: tuple[str, ...] | None = None  # only these, as in ses-<label>
    label_column: str = "trial_type"  # of events.tsv, names the classes
    trial_types: tuple[str, ...] | None = None  # the classes, in the order of their labels; or all
    image_column: str = "stim_file"
    block_column: str = "block"  # holds integers


class Loader(Dataset):
    """Continuous recordings of a BIDS data set.

    Subjects and sessions are numbers: their labels' own (``sub-01``) where all differ, otherwise 1,
    2, ... in the order of the labels. Without sessions, runs count as such. Where
    `Options.trial_types` is not set, the first subject's events name the classes of all.
    """

    Options: ClassVar = Options

    @property
    def reading(self) -> Options:
        """How events are read; a data set that knows its own tables overrides this."""
        return self.options

    def prepare(self) -> None:
        for subject in self.settings.subjects:
            self._read(subject)

    @property
    def labels(self) -> dict[int, str]:
        """Label in the file names (without ``sub-``) of each subject's number."""
        labels = sorted(p.name[4:] for p in self.folder.glob("sub-*") if p.is_dir())
        return dict(sorted(zip(numbers_of(labels), labels, strict=True)))

    def subjects(self) -> list[int]:
        return list(self.labels)

    @property
    def class_names(self) -> list[str]:
        if self.reading.trial_types:
            return list(self.reading.trial_types)
        return sorted(self._events(self.settings.subjects[0])[1]["class_name"].unique())

    def recordings(self, subject: int) -> list[Recording]:
        """Recordings of one subject; MNE's annotations mark bad stretches and joints."""
        paths, events = self._read(subject)
        recordings = []
        for number, path in enumerate(paths):
            trials = events.loc[events["recording"] == number, ["onset", *METADATA]]
            if len(trials):
                raw = self._open(path).pick("eeg", exclude=())
                if raw.get_montage() is None:
                    place_channels(raw.info)
                recordings.append(Recording(raw, trials.reset_index(drop=True)))
        return recordings

    def stimuli(self) -> pd.DataFrame:
        folder = self.folder / "stimuli"
        if not folder.is_dir():
            return pd.DataFrame(columns=COLUMNS)
        tables = [self._read(subject)[1] for subject in self.settings.subjects]
        table = pd.concat(tables, ignore_index=True).sort_values("label", kind="stable")
        table = table[table["image"] != ""].drop_duplicates(["image", "label"])
        if table["image"].duplicated().any():
            self._note("An image stands for more than one class: no pictures are used.", warn=True)
            table = table.iloc[:0]
        return table.assign(file=[folder / f for f in table["file"]])[COLUMNS].reset_index(
            drop=True
        )

    def files(self, subject: int | None = None) -> list[Path]:
        """The subject's folder, and the first subject's events if they name the classes."""
        if subject is None:
            # Who takes part does not matter, nor what was derived from others.
            tables = [p for p in self.folder.glob("[!.]*") if "participants" not in p.name]
            return self._below([p for p in tables if p.is_file() or p.name == "stimuli"])
        labels, first = self.labels, self.settings.subjects[0]
        tops = [self.folder / f"sub-{labels[subject]}"] if subject in labels else []
        by_first = type(self).class_names is Loader.class_names and not self.reading.trial_types
        if subject != first and first in labels and by_first:
            tops += (self.folder / f"sub-{labels[first]}").rglob("*_events.tsv")
        return self._below(tops)

    def card(self) -> dict[str, str]:
        keys = {"title": "Name", "licence": "License", "source": "DatasetDOI"}
        description = read_json(self.folder / "dataset_description.json")
        subject = self.settings.subjects[0]
        paths = self._read(subject)[0]
        raw = self._open(paths[0])
        kinds = raw.get_channel_types()
        others = [f"{n} ({k})" for n, k in zip(raw.ch_names, kinds, strict=True) if k != "eeg"]
        return {name: description.get(key, "not stated") for name, key in keys.items()} | {
            "subjects": self._who_is_who(),
            "recordings": f"{len(paths)} of subject {subject}",
            "channels": f"{kinds.count('eeg')} EEG, {raw.info['sfreq']:g} Hz, volts",
            "channels left out": ", ".join(others) or "none",
            "channels marked bad, kept": ", ".join(raw.info["bads"]) or "none",
            "classes": ", ".join(self.class_names),
        }

    def _read(self, subject: int) -> tuple[list[mne_bids.BIDSPath], pd.DataFrame]:
        """One subject's recordings and trials, before the signals are looked at."""
        (paths, events), names = self._events(subject), self.class_names
        stray = sorted(set(events["class_name"]) - set(names))
        if stray:
            raise DatasetError(
                f"Subject {subject} has events of classes that subject {self.settings.subjects[0]} "
                f"does not have: {', '.join(stray)}. Name all classes, such as "
                f"dataset.options.trial_types={sorted({*names, *stray})}."
            )
        return paths, events.assign(label=events["class_name"].map(names.index).astype(int))

    @cache  # noqa: B019
    def _events(self, subject: int) -> tuple[list[mne_bids.BIDSPath], pd.DataFrame]:
        paths = self._paths(subject)
        kind = "session" if any(path.session for path in paths) else "run"
        labels = [getattr(path, kind) or "1" for path in paths]
        present = sorted(set(labels), key=sort_key)
        numbers = dict(zip(present, numbers_of(present), strict=True))
        tables = [
            self._table(path).assign(recording=number, session=numbers[label])
            for number, (path, label) in enumerate(zip(paths, labels, strict=True))
        ]
        events = pd.concat(tables, ignore_index=True).assign(subject=subject)
        if events.empty:
            raise DatasetError(
                f"No event of sub-{self.labels[subject]} names a class in column "
                f"{self.reading.label_column!r}. Set dataset.options.label_column and trial_types "
                f"(now {self.reading.trial_types}) to what events.tsv holds."
            )
        events["order"] = range(len(events))
        folder, files = self.folder / "stimuli", sorted(set(events["file"]) - {""})
        # An image is named by its file without folders, where that tells all of them apart.
        pictures = [path.stem for path in folder.rglob("*") if path.is_file()]
        stems = pictures or [Path(file).stem for file in files]
        short = len(set(stems)) == len(stems)
        names = {f: Path(f).stem if short else str(Path(f).with_suffix("")) for f in files}
        events["image"] = events["file"].map(names).fillna("")
        if folder.is_dir() and files:
            usable = usable_pictures({f: folder / f for f in files}, folder, self._note)
            events = events[events["file"].isin(["", *usable])]
        return paths, events

    def _paths(self, subject: int) -> list[mne_bids.BIDSPath]:
        """Files of one subject's recordings, in the order of session and run."""
        import mne_bids

        labels, reading = self.labels, self.reading
        if subject not in labels:
            raise DatasetError(
                f"No subject {subject} in {self.folder}; there are: {self._who_is_who() or 'none'}."
                " Change dataset.subjects, or set dataset.root to a folder of a BIDS data set, "
                "which holds folders sub-<label>."
            )
        # `mne_bids.find_matching_paths` would look into all subjects' folders.
        files = sorted((self.folder / f"sub-{labels[subject]}").glob("**/eeg/[!.]*_eeg.*"))
        files = [file for file in files if file.suffix.lower() in EXTENSIONS]
        paths = [
            path
            for path in (mne_bids.get_bids_path_from_fname(file, check=False) for file in files)
            if reading.task in (None, path.task)
            and (reading.sessions is None or path.session in reading.sessions)
        ]
        if len({path.task for path in paths}) != 1:
            raise DatasetError(
                f"sub-{labels[subject]} needs EEG recordings ({', '.join(EXTENSIONS)}) of one "
                f"task; found: {', '.join(file.name for file in files) or 'none'}. Choose by "
                f"dataset.options.task (now {reading.task}) and sessions (now {reading.sessions})."
            )
        return sorted(paths, key=lambda path: (sort_key(path.session), sort_key(path.run)))

    def _table(self, path: mne_bids.BIDSPath) -> pd.DataFrame:
        """Trials of one recording; MNE-BIDS knows no other label column than ``trial_type``."""
        reading, names = self.reading, self.reading.label_column
        needed = ["onset", names]
        if "image_column" in reading.model_fields_set:
            needed.append(reading.image_column)
        file = path.find_matching_sidecar("events", ".tsv", on_error="ignore")
        try:
            if file is None:
                raise ValueError("there is none, so that nobody knows what was shown when")
            table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False).map(str.strip)
            if missing := set(needed) - set(table):
                raise ValueError(f"no column {missing.pop()!r}; it has: {', '.join(table)}")
            if reading.trial_types:
                table = table[table[names].isin(reading.trial_types)]
            else:
                table = table[~table[names].str.fullmatch(NO_CLASS)]
            table["onset"] = pd.to_numeric(table["onset"].replace(["n/a", "nan", ""], None))
        except ValueError as error:
            raise DatasetError(
                f"events.tsv of {path.basename}: {error}. It must be a table of tab-separated "
                f"text with the columns {' and '.join(needed)}, onset in seconds or n/a; "
                "dataset.options names other columns."
            ) from None
        if n_untimed := table["onset"].isna().sum():
            self._note(f"{file.name}: {n_untimed} events without an onset are left out.", warn=True)
        files = table.get(reading.image_column, pd.Series("", table.index))
        blocks = table.get(reading.block_column, pd.Series("", table.index))
        table = table[["onset"]].assign(
            block=pd.to_numeric(blocks, errors="coerce").fillna(-1).astype(int),
            class_name=table[names],
            file=files.replace(["n/a", "nan"], ""),
        )
        return table.dropna(subset="onset").sort_values("onset", kind="stable")

    def _who_is_who(self) -> str:
        return ", ".join(
            str(n) if label.isdigit() else f"{n} = sub-{label}" for n, label in self.labels.items()
        )

    def _open(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """Open a file with what its tables say on its channels; MNE's warnings are reported."""
        import mne
        import mne_bids

        file = path.find_matching_sidecar("eeg", ".json", on_error="ignore")
        sidecar = read_json(file) if file else {}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if sidecar.get("RecordingType") != "epoched":
                    raw = mne_bids.read_raw_bids(path, on_ch_mismatch="reorder", verbose="warning")
                else:  # mne-bids cuts at the events; filters want the stretches side by side
                    info = mne_bids.read_epochs_bids(path, verbose="warning").info
                    signals = mne.io.read_raw(path.fpath, verbose="error").get_data(info.ch_names)
                    raw = mne.io.RawArray(signals, info, verbose="error")
                    joints = np.arange(sidecar["EpochLength"], raw.duration, sidecar["EpochLength"])
                    raw.set_annotations(mne.Annotations(joints, 0.0, "EDGE boundary"))
                if "eeg" not in raw:
                    raise ValueError("its channels.tsv gives no channel the type EEG")
            except Exception as error:  # whatever it stumbles over, the user must learn the file
                raise DatasetError(f"{path.fpath.name} cannot be read: {error}") from None
        for text in (str(warning.message).strip().split("\n")[0] for warning in caught):
            if not re.search(NO_MATTER, text):
                self._note(f"{path.fpath.name}: {text}")
        _keep_stretches(raw, self.reading.trial_types or ())
        return raw


def _keep_stretches(raw: mne.io.BaseRaw, classes: tuple[str, ...]) -> None:
    """Keep the annotations of bad stretches and joints; joints get the name that MNE looks for.

    The others are trials, some of them perhaps of a class whose name MNE would take for a mark.
    """
    marks = raw.annotations  # changed in place: their onsets count from where the raw's times do
    marks.rename({d: "EDGE boundary" for d in set(marks.description) if re.fullmatch(JOINT, d)})
    joints = (marks.description == "EDGE boundary") & (marks.onset > raw.first_time)
    bad = [bool(re.match("(?i)bad", d)) and d not in classes for d in marks.description]
    marks.delete(np.flatnonzero(~(joints | np.array(bad, bool))))


def read_json(file: Path) -> dict:
    """Read a sidecar; a missing one is empty."""
    try:
        return json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except ValueError as error:
        raise DatasetError(f"{file} is not valid JSON: {error}.") from None


def numbers_of(labels: list[str]) -> list[int]:
    """Number each label: its own number where all are different numbers above 0, else 1, 2, ..."""
    own = [int(label) for label in labels if label.isdecimal()]
    distinct = len(set(own) - {0}) == len(labels)
    return own if distinct else list(range(1, len(labels) + 1))


def sort_key(label: str | None) -> tuple:
    """Key that sorts labels with numbers in them as people do (``2`` before ``10``)."""
    parts = re.split(r"([0-9]+)", label or "")
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
