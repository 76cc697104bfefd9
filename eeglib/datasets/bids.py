"""Any BIDS data set of EEG whose events say what was shown (chapter 1).

BIDS (Brain Imaging Data Structure) is how laboratories keep recordings so that others can read
them: one folder per subject, tables in plain text beside the signals. Whoever brings own data
brings them in this form; the simulated recordings go the same way.
"""

from __future__ import annotations

import json
import re
import warnings
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from eeglib.datasets import METADATA, Dataset, DatasetError, Recording
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets.images import can_open, report_missing
from eeglib.datasets.montage import place_channels

if TYPE_CHECKING:
    import mne
    import mne_bids

EXTENSIONS = (".vhdr", ".edf", ".bdf", ".set", ".fif")
JOINT = r"(?i:(edge )?boundary|new segment/?)"
"""Events of amplifiers and of EEGLAB where a recording was stopped, cut or joined."""

NO_CLASS = r"(?i)(bad.*|edge.*|boundary|new segment/?|n/a|nan|)"
"""Values of the label column that never name a class."""


NO_MATTER = "participants|Unable to map the following column"
"""Warnings of MNE-BIDS on what is known of the person; no chapter asks for that."""


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
    Where `Options.trial_types` is not set, the first subject's events name the classes of all.
    """

    Options: ClassVar = Options

    @property
    def reading(self) -> Options:
        """How events are read; a data set that knows its own tables overrides this."""
        return self.options

    def prepare(self) -> None:
        """Check that the profile's subjects are there and that their events name classes."""
        for subject in self.settings.subjects:
            self._with_labels(self._read(subject)[1])

    @property
    def labels(self) -> dict[int, str]:
        """Label in the file names (without ``sub-``) of each subject's number."""
        labels = sorted(p.name[4:] for p in self.folder.glob("sub-*") if p.is_dir())
        return dict(sorted(zip(numbers_of(labels), labels, strict=True)))

    def subjects(self) -> list[int]:
        """Numbers of the subjects."""
        return list(self.labels)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: `trial_types`, or all values of the first subject, sorted."""
        if self.reading.trial_types:
            return list(self.reading.trial_types)
        return sorted(self._read(self.settings.subjects[0])[1]["class_name"].unique())

    @property
    def _first_names_classes(self) -> bool:
        return type(self).class_names is Loader.class_names and not self.reading.trial_types

    def recordings(self, subject: int) -> list[Recording]:
        """Recordings of one subject; signals are read when they are first used.

        MNE's annotations stay where they mark bad stretches and joints.
        """
        paths, events = self._read(subject)
        events, recordings = self._with_labels(events), []
        for number, path in enumerate(paths):
            trials = events.loc[events["recording"] == number, ["onset", *METADATA]]
            if trials.empty:
                continue
            raw = self._signals(path)
            inside = (trials["onset"] >= 0) & (trials["onset"] < raw.n_times / raw.info["sfreq"])
            if not inside.all():
                self._note(
                    f"{path.basename}: {(~inside).sum()} of {len(trials)} events lie outside the "
                    "recording and are left out.",
                    warn=True,
                )
            recordings.append(Recording(raw, trials[inside].reset_index(drop=True)))
        return recordings

    def stimuli(self) -> pd.DataFrame:
        """Images of the profile's subjects that stand in the folder ``stimuli``."""
        tables = [self._with_labels(self._read(s)[1]) for s in self.settings.subjects]
        table = pd.concat(tables, ignore_index=True)
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
        return table[["image", "label", "class_name", "file"]].reset_index(drop=True)

    def files(self, subject: int | None = None) -> list[Path]:
        """The subject's folder; for all, the tables at the top and the pictures.

        Who takes part (``participants.tsv``) and what was derived from others do not count. Where
        the first subject names the classes, the others depend on that subject's events.
        """
        if subject is None:
            tables = [p for p in self.folder.glob("[!.]*") if "participants" not in p.name]
            return self._below([p for p in tables if p.is_file() or p.name == "stimuli"])
        labels, first = self.labels, self.settings.subjects[0]
        tops = [self.folder / f"sub-{labels[subject]}"] if subject in labels else []
        if subject != first and first in labels and self._first_names_classes:
            tops += (self.folder / f"sub-{labels[first]}").rglob("*_events.tsv")
        return self._below(tops)

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        description = read_json(self.folder / "dataset_description.json")
        subject = self.settings.subjects[0]
        paths = self._read(subject)[0]
        raw = self._open(paths[0])
        kinds = raw.get_channel_types()
        others = [f"{n} ({k})" for n, k in zip(raw.ch_names, kinds, strict=True) if k != "eeg"]
        kind = self._sidecar(paths[0]).get("RecordingType", "not stated")
        return {
            "title": description.get("Name", "not stated"),
            "licence": description.get("License", "not stated"),
            "source": description.get("DatasetDOI", "not stated"),
            "subjects": self._who_is_who(),
            "recordings": f"{len(paths)} of subject {subject}, {kind}",
            "channels": f"{kinds.count('eeg')} EEG, {raw.info['sfreq']:g} Hz, volts",
            "channels left out": ", ".join(others) or "none",
            "channels marked bad, kept": ", ".join(raw.info["bads"]) or "none",
            "classes": ", ".join(self.class_names),
        }

    # --- tables -----------------------------------------------------------------------------

    @cached_property
    def events(self) -> dict[int, tuple[list[mne_bids.BIDSPath], pd.DataFrame]]:
        """Recordings and events by subject, of those that were asked for."""
        return {}

    def _read(self, subject: int) -> tuple[list[mne_bids.BIDSPath], pd.DataFrame]:
        """One subject's recordings and trials, before the signals are looked at."""
        if subject not in self.events:
            paths = self._paths(subject)
            kind = "session" if any(path.session for path in paths) else "run"
            sessions = _numbered([getattr(path, kind) or "1" for path in paths])
            tables = [
                self._table(path).assign(subject=subject, recording=number, session=session)
                for number, (path, session) in enumerate(zip(paths, sessions, strict=True))
            ]
            events = pd.concat(tables, ignore_index=True)
            if events.empty:
                types = ", ".join(self.reading.trial_types or ())
                raise DatasetError(
                    f"No event of sub-{self._label(subject)} names a class in column "
                    f"{self.reading.label_column!r}{types and f' among {types}'}. Set "
                    "dataset.options.label_column and trial_types to what events.tsv holds."
                )
            events["image"] = self._image_names(events["file"])
            events["order"] = range(len(events))
            self.events[subject] = paths, self._with_pictures(events)
        return self.events[subject]

    def _paths(self, subject: int) -> list[mne_bids.BIDSPath]:
        """Files of one subject's recordings, in the order of session and run."""
        import mne_bids

        label = self._label(subject)
        files = sorted((self.folder / f"sub-{label}").glob("**/eeg/[!.]*_eeg.*"))
        there = [
            mne_bids.get_bids_path_from_fname(file, check=False)
            for file in files
            if file.suffix.lower() in EXTENSIONS
        ]
        tasks = sorted({path.task for path in there if path.task})
        task, sessions = self.reading.task, self.reading.sessions
        if task is None and len(tasks) > 1:
            raise DatasetError(
                f"sub-{label} has several tasks: {', '.join(tasks)}. Name one in "
                "dataset.options.task."
            )
        paths = [
            path
            for path in there
            if task in (None, path.task) and (sessions is None or path.session in sessions)
        ]
        if not paths:
            names = ", ".join(path.fpath.name for path in there) or "none"
            raise DatasetError(
                f"sub-{label} has no EEG recording ({', '.join(EXTENSIONS)}) of task "
                f"{task or 'any'} and session {sessions or 'any'}; found: {names}."
            )
        return sorted(paths, key=lambda path: (sort_key(path.session), sort_key(path.run)))

    def _table(self, path: mne_bids.BIDSPath) -> pd.DataFrame:
        """Trials of one recording, from its ``events.tsv``; all columns as text.

        `mne_bids.read_raw_bids` gives these as annotations, but always names them by the column
        ``trial_type``, and without the column ``value``.
        """
        reading = self.reading
        file = path.find_matching_sidecar("events", ".tsv", on_error="ignore")
        if file is None:
            raise DatasetError(
                f"{path.basename} has no events.tsv, so that nobody knows what was shown when. "
                "Write one with the columns onset, duration and trial_type."
            )
        try:
            table = pd.read_csv(
                file, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig"
            )
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise DatasetError(f"{file} is not a table of tab-separated text: {error}") from None
        needed = ["onset", reading.label_column]
        if "image_column" in reading.model_fields_set and reading.image_column:
            needed.append(reading.image_column)
        for column in needed:
            if column not in table:
                raise DatasetError(
                    f"{file} has no column {column!r}; it has: {', '.join(table.columns)}. Add it, "
                    "or name another one in dataset.options."
                )
        names = table[reading.label_column].str.strip()
        if reading.trial_types:
            table = table[names.isin(reading.trial_types)]
        else:
            shown = [re.fullmatch(NO_CLASS, name) is None for name in names]
            table = table[np.array(shown, bool)]
        onsets = pd.to_numeric(table["onset"], errors="coerce")
        wrong = table["onset"][onsets.isna() & ~table["onset"].str.lower().isin(["n/a", "nan", ""])]
        if len(wrong):
            raise DatasetError(
                f"{file}, row {wrong.index[0] + 1}: onset is {wrong.iloc[0]!r}; seconds or n/a "
                "allowed."
            )
        timed = np.isfinite(onsets)
        if not timed.all():
            self._note(
                f"{Path(file).name}: {(~timed).sum()} events without an onset are left out.",
                warn=True,
            )
        files = table.get(reading.image_column, pd.Series("", table.index))
        blocks = table.get(reading.block_column, pd.Series("", table.index))
        events = pd.DataFrame(
            {
                "onset": onsets,
                "block": pd.to_numeric(blocks, errors="coerce").fillna(-1).astype(int),
                "class_name": names[table.index],
                "file": files.str.strip().replace({"n/a": "", "nan": ""}),
            }
        )
        return events[timed].sort_values("onset", kind="stable")

    def _image_names(self, files: pd.Series) -> pd.Series:
        """Name each image by its file without folder and extension, where that tells all apart."""
        folder = self.folder / "stimuli"
        pictures = [path for path in folder.rglob("*") if path.is_file()]
        everything = [path.relative_to(folder).as_posix() for path in pictures]
        distinct = pd.Series(everything or files.unique(), dtype=str)
        if not distinct.map(lambda file: Path(file).stem).duplicated().any():
            return files.map(lambda file: Path(file).stem)
        return files.map(lambda file: str(Path(file).with_suffix("")) if file else "")

    def _with_pictures(self, events: pd.DataFrame) -> pd.DataFrame:
        """Leave out trials whose picture is missing, where there is a folder of pictures."""
        folder = self.folder / "stimuli"
        files = [file for file in events["file"].unique() if file]
        if not folder.is_dir() or not files:
            return events
        missing = [file for file in files if not can_open(folder / file)]
        if len(missing) == len(files):
            raise DatasetError(
                f"None of the {len(files)} pictures that events.tsv names is in {folder}, such as "
                f"{missing[0]}. Put them there, or remove the folder to go on without pictures."
            )
        report_missing(missing, folder, self._note)
        return events[~events["file"].isin(missing)]

    def _with_labels(self, events: pd.DataFrame) -> pd.DataFrame:
        names = self.class_names
        stray = sorted(set(events["class_name"]) - set(names))
        if stray:
            raise DatasetError(
                f"Subject {events['subject'].iloc[0]} has events of classes that subject "
                f"{self.settings.subjects[0]} does not have: {', '.join(stray)}. Name all classes, "
                f"such as dataset.options.trial_types={sorted({*names, *stray})}."
            )
        return events.assign(label=events["class_name"].map(names.index).astype(int))

    def _label(self, subject: int) -> str:
        labels = self.labels
        if not labels:
            raise DatasetError(
                f"{self.folder} is no BIDS data set: it has no folder sub-<label>. Set "
                "dataset.root to the folder that holds dataset_description.json."
            )
        if subject not in labels:
            raise DatasetError(
                f"No subject {subject} in {self.folder}; there are: {self._who_is_who()}. Change "
                "dataset.subjects."
            )
        return labels[subject]

    def _who_is_who(self) -> str:
        return ", ".join(
            str(n) if label.isdigit() else f"{n} = sub-{label}" for n, label in self.labels.items()
        )

    # --- signals ----------------------------------------------------------------------------

    def _sidecar(self, path: mne_bids.BIDSPath) -> dict:
        file = path.find_matching_sidecar("eeg", ".json", on_error="ignore")
        return read_json(Path(file)) if file else {}

    def _signals(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """EEG channels of one recording, with positions, bad stretches and joints."""
        raw = self._open(path)
        if "eeg" not in raw.get_channel_types():
            raise DatasetError(
                f"{path.basename} has no EEG channel, only "
                f"{', '.join(sorted(set(raw.get_channel_types())))}. Correct the column type of "
                "its channels.tsv."
            )
        raw.pick("eeg", exclude=())
        if all(np.isnan(c["loc"][:3]).any() or not c["loc"][:3].any() for c in raw.info["chs"]):
            place_channels(raw.info)
        return raw

    def _open(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """Open a file with what its tables say on its channels; MNE's warnings are reported."""
        import mne
        import mne_bids

        sidecar = self._sidecar(path)
        length = sidecar.get("EpochLength") if sidecar.get("RecordingType") == "epoched" else 0
        if not isinstance(length, int | float) or length < 0:
            raise DatasetError(
                f"{path.basename} is epoched, but its eeg.json has no EpochLength (s). Add it."
            )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                if not length:
                    raw = mne_bids.read_raw_bids(path, on_ch_mismatch="reorder", verbose="warning")
                else:  # mne-bids cuts such files itself; filters want the stretches side by side
                    info = mne_bids.read_epochs_bids(path, verbose="warning").info
                    raw = mne.io.read_raw(path.fpath, verbose="error")
                    types = dict(zip(info["ch_names"], info.get_channel_types(), strict=True))
                    raw.set_channel_types(types, on_unit_change="ignore")
                    raw.info["bads"] = list(info["bads"])
                    raw.set_montage(info.get_montage(), on_missing="ignore")
            except Exception as error:  # whatever it stumbles over, the user must learn the file
                raise DatasetError(f"{path.fpath.name} cannot be read: {error}") from None
        for text in (str(warning.message).strip().split("\n")[0] for warning in caught):
            if not re.search(NO_MATTER, text):
                self._note(f"{path.fpath.name}: {text}")
        stated = sidecar.get("SamplingFrequency")
        if isinstance(stated, int | float) and not np.isclose(stated, raw.info["sfreq"], rtol=0.01):
            raise DatasetError(
                f"{path.fpath.name} is sampled at {raw.info['sfreq']:g} Hz, but its eeg.json "
                f"states {stated:g} Hz. Correct the one that is wrong."
            )
        _keep_stretches(raw, length, self.reading.trial_types or ())
        return raw


def _keep_stretches(raw: mne.io.BaseRaw, epoch_length: float, classes: tuple[str, ...]) -> None:
    """Keep the annotations of bad stretches and joints; joints get the name that MNE looks for.

    The others are trials, some of them perhaps of a class whose name MNE would take for a mark.
    """
    marks = raw.annotations  # changed in place: their onsets count from where the raw's times do
    marks.rename({d: "EDGE boundary" for d in set(marks.description) if re.fullmatch(JOINT, d)})
    joints = (marks.description == "EDGE boundary") & (marks.onset > raw.first_time)
    bad = [bool(re.match("(?i)bad", d)) and d not in classes for d in marks.description]
    marks.delete(np.flatnonzero(~(joints | np.array(bad, bool))))
    if epoch_length:
        n_epochs = round(raw.n_times / raw.info["sfreq"] / epoch_length)
        onsets = raw.first_time + np.arange(1, n_epochs) * epoch_length
        marks.append(onsets, 0.0, "EDGE boundary")


def read_json(file: Path) -> dict:
    """Read a sidecar; a missing one is empty."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig")) if file.is_file() else {}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{file} must hold keys and values, got a {type(content).__name__}.")
    return content


def numbers_of(labels: list[str]) -> list[int]:
    """Number each label: its own number where all are different numbers above 0, else 1, 2, ..."""
    if labels and all(re.fullmatch(r"[0-9]+", label) for label in labels):
        own = [int(label) for label in labels]
        if len(set(own)) == len(own) and min(own) > 0:
            return own
    return list(range(1, len(labels) + 1))


def _numbered(labels: list[str]) -> list[int]:
    present = sorted(set(labels), key=sort_key)
    numbers = dict(zip(present, numbers_of(present), strict=True))
    return [numbers[label] for label in labels]


def sort_key(label: str | None) -> tuple:
    """Key that sorts labels with numbers in them as people do (``2`` before ``10``)."""
    parts = re.split(r"([0-9]+)", label or "")
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
