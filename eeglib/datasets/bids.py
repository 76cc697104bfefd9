"""Any data set of EEG in BIDS (Brain Imaging Data Structure) whose events say what was shown."""

from __future__ import annotations

import filecmp
import re
from collections import Counter, defaultdict
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import pandas as pd
from pydantic import BeforeValidator

from eeglib.datasets import METADATA, Dataset, DatasetError, Recording
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets import tables as sidecars
from eeglib.datasets.images import COLUMNS, usable_pictures
from eeglib.profile import DatasetSettings

if TYPE_CHECKING:
    import mne
    import mne_bids

EXTENSIONS = (".vhdr", ".edf", ".bdf", ".set", ".fif")
# Values that never name a class.
NO_CLASS = r"BAD.*|(?i:bad)([^a-z].*)?|(?i:(edge )?boundary|new segment/?.*|n/a|nan|)"
ENTITIES = ("acquisition", "processing", "description", "extension")
# Parts of a file's name, and the options that choose by them.
CHOICES = {"task": "task", "session": "sessions", "run": "runs", **{n: n for n in ENTITIES}}


def _words(value: Any) -> Any:
    """One word or several, as YAML gives them: 1 and 1.0 are the word 1."""
    words = []
    for word in value if isinstance(value, list | tuple) else [value]:
        if isinstance(word, bool):
            raise ValueError("put words such as 'yes', 'no', 'on' and 'true' in quotes")
        words.append(f"{word:g}" if isinstance(word, int | float) else word)
    return None if value is None else tuple(words)


Words = Annotated[tuple[str, ...] | None, BeforeValidator(_words)]


class Options(BaseOptions):
    """Which recordings and events of a BIDS data set are trials."""

    task: Words = None  # only this one; needed where there are several
    sessions: Words = None  # only these, as in ses-<label>; the same for those below
    runs: Words = None
    acquisition: Words = None  # acq-<label>; "" is without one
    processing: Words = None  # proc-<label>
    description: Words = None  # desc-<label>
    extension: Words = None  # such as .vhdr
    eeg_channels: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()  # whatever their names
    label_column: str = "trial_type"  # of events.tsv, names the classes
    trial_types: Words = None  # the classes, in the order of their labels; or all
    image_column: str = "stim_file"
    block_column: str = "block"  # holds integers


class Loader(Dataset):
    """Continuous recordings of a BIDS data set.

    Subjects and sessions get the numbers of `numbers_of`; without sessions, runs count as such.
    Where `Options.trial_types` is not set, the first subject's events name the classes of all.
    """

    Options: ClassVar = Options

    def __init__(self, settings: DatasetSettings, folder: Path):
        super().__init__(settings, folder)
        self._signals: dict[Path, str] = {}  # files of signals, and the recordings that they are of
        self._values: Counter = Counter()  # of the column that names the classes

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
        names = (path.name for path in self.folder.glob("sub-*"))
        labels = sorted(n[4:] for n in names if re.fullmatch(r"sub-(?!emptyroom$)[^\W_]+", n))
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
            trials = events.loc[events["recording"] == number, ["onset", *METADATA, "run"]]
            if len(trials):
                raw = self._open(path).pick("eeg", exclude=())
                self._check_recording(path, raw, trials["onset"])
                pair = raw, (recordings[0].raw if recordings else raw)
                here, before = (f"{r.info['sfreq']:g} Hz, {sorted(r.ch_names)}" for r in pair)
                if here != before:
                    text = f"{path.basename} has EEG of {here}, the subject's first recording of"
                    how = "Choose by dataset.options, or mend channels.tsv."
                    raise DatasetError(f"{text} {before}. {how}")
                raw.reorder_channels(pair[1].ch_names)
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
        table = table.assign(file=[folder / f for f in table["file"]])
        return table[COLUMNS].reset_index(drop=True)

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
        description = sidecars.read_json(self.folder / "dataset_description.json")
        paths = self._read(subject := self.settings.subjects[0])[0]
        raw = self._open(paths[0])
        kinds = raw.get_channel_types()
        others = [f"{n} ({k})" for n, k in zip(raw.ch_names, kinds, strict=True) if k != "eeg"]
        return {name: description.get(key, "not stated") for name, key in keys.items()} | {
            "subjects": self._who_is_who(),
            "recordings": f"{len(paths)} of subject {subject}",
            "channels": f"{kinds.count('eeg')} EEG, {raw.info['sfreq']:g} Hz, volts",
            "channels decoded": ", ".join(raw.copy().pick("eeg", exclude=()).ch_names),
            "channels left out": ", ".join(others) or "none",
            "channels marked bad, kept": ", ".join(raw.info["bads"]) or "none",
            "classes": ", ".join(self.class_names),
        }

    def _read(self, subject: int) -> tuple[list[mne_bids.BIDSPath], pd.DataFrame]:
        """One subject's recordings and trials, before the signals are looked at."""
        (paths, events), names = self._events(subject), self.class_names
        if stray := sorted(set(events["class_name"]) - set(names)):
            text = f"Subject {subject} has classes that the first lacks: {', '.join(stray)}."
            how = f"Name all, such as dataset.options.trial_types={sorted({*names, *stray})}."
            raise DatasetError(f"{text} {how}")
        return paths, events.assign(label=events["class_name"].map(names.index).astype(int))

    @cache  # noqa: B019
    def _events(self, subject: int) -> tuple[list[mne_bids.BIDSPath], pd.DataFrame]:
        paths = self._paths(subject)
        self._values.clear()
        kind = "session" if any(path.session for path in paths) else "run"
        labels = [getattr(path, kind) or "1" for path in paths]
        present = sorted(set(labels), key=sort_key)
        numbers = dict(zip(present, numbers_of(present), strict=True))
        tables = pd.concat(map(self._table, paths), keys=range(len(paths)), names=["recording"])
        events = tables.reset_index("recording").reset_index(drop=True).assign(subject=subject)
        events["run"] = events["recording"] + 1
        events["session"] = [numbers[labels[number]] for number in events["recording"]]
        found = ", ".join(f"{v or 'empty'} ({n})" for v, n in self._values.most_common(20))
        who = f"sub-{self.labels[subject]}"
        if events.empty:
            text = f"No event of {who} names a class in column {self.reading.label_column!r}. Set"
            how = f"dataset.options.label_column and trial_types (now {self.reading.trial_types})"
            raise DatasetError(f"{text} {how} to what events.tsv holds: {found or 'nothing'}.")
        if lacking := sorted(set(self.reading.trial_types or ()) - set(events["class_name"])):
            self._note(f"{who} has no event of {', '.join(lacking)}; there are: {found}.")
        events["order"] = range(len(events))
        folder, files = self.folder / "stimuli", sorted(set(events["file"]) - {""})
        # An image is named by its file without folders, where that tells all of them apart.
        pictures = [path.stem for path in folder.rglob("*") if path.is_file()]
        stems = pictures or [Path(file).stem for file in files]
        short = len(set(stems)) == len(stems)
        names = {f: Path(f).stem if short else str(Path(f).with_suffix("")) for f in files}
        events["image"] = [names.get(file, "") for file in events["file"]]
        if folder.is_dir() and files:
            usable = usable_pictures({f: folder / f for f in files}, folder, self._note)
            events = events[events["file"].isin(["", *usable])]
        return paths, events

    def _paths(self, subject: int) -> list[mne_bids.BIDSPath]:
        """Files of one subject's recordings, in the order of session and run."""
        import mne_bids

        labels, reading = self.labels, self.reading
        if subject not in labels:
            there, how = self._who_is_who() or "none", "dataset.root to a folder of a BIDS data set"
            text = f"No subject {subject} in {self.folder}; there are: {there}. Change"
            raise DatasetError(f"{text} dataset.subjects, or set {how}.")
        # `mne_bids.find_matching_paths` would look into all subjects' folders.
        top, name = self.folder / f"sub-{labels[subject]}", "eeg/[!.]*_eeg.*"
        files = sorted([*top.glob(name), *top.glob(f"ses-*/{name}")])
        files = [file for file in files if file.suffix.lower() in EXTENSIONS]
        paths = []
        for file in files:
            parts = mne_bids.get_entities_from_fname(file, on_error="ignore")
            how = {"datatype": "eeg", "suffix": "eeg", "extension": file.suffix}
            path = mne_bids.BIDSPath(root=self.folder, check=False, **parts | how)
            if path.fpath != file:
                raise DatasetError(f"{file} does not lie where its name says: {path.fpath}.")
            # MNE reads the further parts of a file together with the first.
            allowed = ((getattr(path, n), getattr(reading, key)) for n, key in CHOICES.items())
            if int(path.split or 1) == 1 and all(is_chosen(*pair) for pair in allowed):
                paths.append(path)
        if len({path.task for path in paths}) != 1:
            now = ", ".join(f"{key} (now {getattr(reading, key)})" for key in CHOICES.values())
            text = f"sub-{labels[subject]} needs EEG recordings ({', '.join(EXTENSIONS)}) of one"
            found = ", ".join(file.name for file in files) or "none"
            raise DatasetError(f"{text} task; found: {found}. Choose by dataset.options: {now}.")
        self._refuse_copies(paths)
        return sorted(paths, key=lambda path: (sort_key(path.session), sort_key(path.run)))

    def _refuse_copies(self, paths: list[mne_bids.BIDSPath]) -> None:
        """Raise if one session and run is there several times and the profile does not choose."""
        alike, named = defaultdict(list), [n for n in ENTITIES if getattr(self.reading, n)]
        for path in paths:
            alike[path.session, path.run, *(getattr(path, n) for n in named)].append(path)
        for same in (group for group in alike.values() if len(group) > 1):
            labels = {n: [getattr(path, n) or "''" for path in same] for n in ENTITIES}
            differ = [f"{n}: {v[0]}" for n, v in labels.items() if len(set(v)) > 1]
            names = ", ".join(path.fpath.name for path in same)
            how = f"Choose by dataset.options (such as {', '.join(differ) or 'sessions'})."
            raise DatasetError(f"By their names these are one recording: {names}. {how}")

    def _table(self, path: mne_bids.BIDSPath) -> pd.DataFrame:
        """Trials of one recording; MNE-BIDS knows no other label column than ``trial_type``."""
        reading, names = self.reading, self.reading.label_column
        needed = ["onset", names]
        if "image_column" in reading.model_fields_set:
            needed.append(reading.image_column)
        sidecars.check_content(path.fpath)
        file = sidecars.find_sidecar(path, "events")
        try:
            if file is None or not file.is_file():
                raise ValueError("there is none, so that nobody knows what was shown when")
            table = sidecars.read_table(file)
            if missing := [name for name in needed if name not in table]:
                raise ValueError(f"no column {missing[0]!r}; it has: {', '.join(table)}")
            table[names] = table[names].str.replace(r"^(-?\d+)\.0+$", r"\1", regex=True)
            self._values.update(table[names])
            if reading.trial_types:
                table = table[table[names].isin(reading.trial_types)]
            else:
                table = table[~table[names].str.fullmatch(NO_CLASS)]
            files = table.get(reading.image_column, pd.Series("", table.index))
            blocks = table.get(reading.block_column, pd.Series("", table.index))
            table = table[[names]].assign(
                onset=sidecars.read_numbers(table["onset"]),
                block=sidecars.read_numbers(blocks).fillna(-1).astype(int),
                file=files.where(~files.isin(sidecars.EMPTY), ""),
            )
            again = table["onset"].notna() & table["onset"].round(4).duplicated(keep=False)
            if len(table[again].drop_duplicates()) > table.loc[again, "onset"].nunique():
                first = table[again].iloc[0]
                raise ValueError(f"several events that differ stand at onset {first['onset']:g} s")
        except ValueError as error:
            text = f"events.tsv of {path.basename}: {error}. It must be a table with the columns"
            how = "onset in seconds; dataset.options names other columns."
            raise DatasetError(f"{text} {' and '.join(needed)}, {how}") from None
        if n_untimed := table["onset"].isna().sum():
            self._note(f"{file.name}: {n_untimed} events without an onset are left out.", warn=True)
        if again.any():
            self._note(f"{file.name}: events that stand there twice count once.", warn=True)
        table = table.rename(columns={names: "class_name"}).dropna(subset="onset")
        return table.drop_duplicates("onset").sort_values("onset", kind="stable")

    def _check_recording(self, path: mne_bids.BIDSPath, raw: mne.io.BaseRaw, onset: pd.Series):
        """Raise if the onsets cannot be meant in seconds; say how many lie outside."""
        outside = ~onset.between(0, raw.duration, "left")
        if not outside.any():
            return
        about = sidecars.read_json(sidecars.find_sidecar(path, "eeg", ".json"))
        what = f"{path.basename}: {outside.sum()} of {len(onset)} events lie outside the recording"
        what += f" of {raw.duration:.6g} s; onsets run from {onset.min():g} to {onset.max():g}"
        scales = {"milliseconds": 1e-3, "samples": 1 / raw.info["sfreq"]}
        fits = [u for u, s in scales.items() if (onset * s).between(0, raw.duration).all()]
        if (seconds := about.get("RecordingDuration", 0)) > raw.duration + 1:
            raise DatasetError(f"{what}. It is cut short, to judge by {seconds:g} s in eeg.json.")
        if not (outside.all() or (outside.mean() > 0.5 and fits) or "epoched" in str(about)):
            return self._note(f"{what}.", warn=True)
        hint = f"; in {' or '.join(fits)} they would fit" if fits else ""
        raise DatasetError(f"{what}. They must be seconds after the start of the file{hint}.")

    def _who_is_who(self) -> str:
        people = self.labels.items()
        return ", ".join(str(n) if name.isdigit() else f"{n} = sub-{name}" for n, name in people)

    def _open(self, path: mne_bids.BIDSPath) -> mne.io.BaseRaw:
        """Open a recording, and make sure that no other of this data set holds its signals."""
        from eeglib.datasets.recordings import open_recording

        own, columns = path.fpath.name, {"trial_type", self.reading.label_column}
        classes, names = self.reading.trial_types or (), self.reading.eeg_channels
        raw, file = open_recording(path, names, columns, classes, self._note)
        for other, name in self._signals.items():
            if name != own and filecmp.cmp(file, other, shallow=False):  # looks at the sizes first
                raise DatasetError(f"{own} and {name} hold the same signals. Take one out.")
        self._signals[file] = own
        return raw


def numbers_of(labels: list[str]) -> list[int]:
    """Number each label: its own above 0, others after these; 1, 2, ... where two are the same."""
    own = [int(label) for label in labels if label.isdecimal()]
    if len(set(own) - {0}) < len(own):
        return list(range(1, len(labels) + 1))
    further = count(max(own, default=0) + 1)
    return [int(label) if label.isdecimal() else next(further) for label in labels]


def is_chosen(value: str | None, allowed: tuple[str, ...] | None) -> bool:
    """Whether an option allows a label; ``""`` is none, ``1`` is ``01``, ``vhdr`` is ``.vhdr``."""
    labels = [re.sub(r"^[0.]+(?=.*[^0])", "", label or "") for label in (value, *(allowed or ()))]
    return allowed is None or labels[0] in labels[1:]


def sort_key(label: str | None) -> tuple:
    """Key that sorts labels with numbers in them as people do (``2`` before ``10``)."""
    parts = re.split(r"([0-9]+)", label or "")
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
