"""Open one recording of a BIDS data set with what the tables beside it say (chapter 1).

Whatever could be read in two ways is said: it ends in the report, or in an error.
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import mne
import mne_bids
import numpy as np
import pandas as pd
from mne_bids.dig import _read_dig_bids  # all that BIDS knows of coordinates, in one function

from eeglib.datasets import DatasetError
from eeglib.datasets.montage import check_places, place_channels
from eeglib.datasets.tables import EMPTY, find_sidecar, read_json, read_numbers, read_table

# Where a recording was stopped, cut or joined; stretches marked as bad.
JOINT, BAD = r"(?i:(edge )?boundary|new segment/?.*|-99(\.0)?)", r"BAD.*|(?i:bad)([^a-z].*)?"
# Kinds by the types of BIDS, and by names or types in the file: of eyes, heart, muscles, triggers.
KINDS, NOT_EEG = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
WIDTHS = {"INT_16": 2, "UINT_16": 2, "INT_32": 4, "IEEE_FLOAT_32": 4}  # bytes in BrainVision files


def open_recording(
    path: mne_bids.BIDSPath,
    eeg_channels: Sequence[str],
    columns: set[str],
    classes: Sequence[str],
    note: Callable[..., None],
) -> tuple[mne.io.BaseRaw, Path]:
    """Open a recording, typed, placed and annotated; also the file that holds its signals.

    Marks stand in ``columns`` of events.tsv; those that name one of ``classes`` are trials.
    """
    file, sidecar = path.fpath, read_json(find_sidecar(path, "eeg", ".json"))
    with warnings.catch_warnings(record=True) as caught, mne.use_log_level("warning"):
        warnings.simplefilter("always")
        try:
            table, events = find_sidecar(path, "channels"), find_sidecar(path, "events")
            if table is None:
                warnings.warn("no channels.tsv: names alone tell what is no EEG", stacklevel=2)
            table = read_table(table) if table else pd.DataFrame(columns=["name", "type"])
            if missing := {"name", "type"} - {*table}:
                raise ValueError(f"channels.tsv has no column {missing.pop()!r}")
            stated = zip(table["name"], table["type"].str.upper(), strict=True)
            stated = {name: kind for name, kind in stated if kind not in ("N/A", "")}
            raw, signals, joints = _read(file, stated, eeg_channels, sidecar)
            _check_files(file, signals, raw)
            _type_channels(raw, table, stated, eeg_channels, [str(w.message) for w in caught])
            tables = find_sidecar(path, "electrodes"), find_sidecar(path, "coordsystem", ".json")
            if all(tables):
                _read_dig_bids(*tables, datatype="eeg", raw=raw)
            if raw.get_montage() is None:
                place_channels(raw.info)
            check_places(raw.info)
            events = read_table(events) if events else pd.DataFrame()
            _annotate(raw, events, columns, classes, joints)
            _check_scale(raw)
        except DatasetError:
            raise
        except Exception as error:  # whatever it stumbles over, the user must learn the file
            is_hdf = file.open("rb").read(10) == b"MATLAB 7.3"
            hint = " (MATLAB 7.3: install pymatreader, or save it with -v7)" if is_hdf else ""
            size = f"{file.stat().st_size:,} bytes"
            raise DatasetError(f"{file.name} ({size}) cannot be read: {error}{hint}") from None
    for warning in caught:
        note(f"{file.name}: {' '.join(str(warning.message).split())}")
    rate, by_json = raw.info["sfreq"], sidecar.get("SamplingFrequency")
    if isinstance(by_json, int | float) and abs(by_json / rate - 1) > 1e-3:
        note(f"{file.name}: {rate:g} Hz by its header, which counts; eeg.json: {by_json:g}.", True)
    return raw, signals[-1]


def _read(file: Path, stated: dict[str, str], eeg_channels: Sequence[str], sidecar: dict):
    """Signals by MNE, the files that hold them, and where trials that were cut are joined (s)."""
    joints = np.array([])
    try:
        raw = mne.io.read_raw(file, verbose="warning")
        signals = [Path(name) for name in raw.filenames]
    except TypeError as error:  # trials that EEGLAB has cut; filters want them side by side
        if "number of trials" not in str(error):
            raise
        epochs = mne.io.read_epochs_eeglab(file, verbose="error")
        values = np.concatenate(epochs.get_data(copy=False), axis=1)
        raw = mne.io.RawArray(values, epochs.info, verbose="error")
        joints = np.arange(1, len(epochs)) * len(epochs.times) / raw.info["sfreq"]
        signals = [file, *(f for f in [file.with_suffix(".fdt")] if f.exists())]
    if file.suffix.lower() in (".edf", ".bdf"):
        others = _other_rates(raw, file, stated, eeg_channels)
        raw = mne.io.read_raw(file, exclude=others) if others else raw
    if sidecar.get("RecordingType") == "epoched" and not len(joints):
        if "EpochLength" not in sidecar:
            raise ValueError("eeg.json says epoched, but not EpochLength, in seconds")
        joints = np.arange(sidecar["EpochLength"], raw.duration, sidecar["EpochLength"])
    return raw, signals, joints


def _other_rates(raw: mne.io.BaseRaw, file: Path, stated: dict, eeg_channels: Sequence[str]):
    """Channels of an EDF file with another rate than EEG: MNE would raise all to the highest."""
    head, header = file.open("rb").read(256), raw._raw_extras[0]  # as MNE has read it
    if head[192:197] in (b"EDF+D", b"BDF+D"):
        raise ValueError("it is discontinuous (EDF+D), and MNE sees no gaps. Write it as EDF+C")
    record = sum(header["n_samps"]) * header["dtype_byte"]
    _refuse_short(file, header["data_offset"] + int(head[236:244]) * record)
    rates = header["n_samps"][header["sel"]] / header["record_length"][0]
    kinds = channel_kinds(raw.ch_names, raw.get_channel_types(), stated, eeg_channels)
    every = [*zip(raw.ch_names, rates, kinds, strict=True)]
    eeg = {rate: f"{name} {rate:g} Hz" for name, rate, kind in every if kind == "eeg"}
    if len(eeg) > 1:
        found = ", ".join(eeg.values())
        raise ValueError(f"EEG has several rates ({found}). Type other channels in channels.tsv")
    others = [name for name, rate, _ in every if eeg and rate not in eeg]
    if others:
        warnings.warn(f"left out, not at the rate of EEG: {', '.join(others)}", stacklevel=2)
    return others


def _check_files(file: Path, signals: Sequence[Path], raw: mne.io.BaseRaw) -> None:
    """Raise if the signals are those of another recording, or fewer than the header promises."""
    named, size = [], signals[-1].stat().st_size
    if file.suffix.lower() == ".vhdr":
        fields = dict(re.findall(r"(?m)^(\w+)=(.*\S)", file.read_text("latin-1")))
        named = [file.parent / fields["MarkerFile"]] if "MarkerFile" in fields else []
        if frame := int(fields["NumberOfChannels"]) * WIDTHS.get(fields.get("BinaryFormat"), 0):
            _refuse_short(signals[-1], frame * int(fields.get("DataPoints", -(-size // frame))))
    elif signals[-1].suffix == ".fdt":
        _refuse_short(signals[-1], 4 * len(raw.ch_names) * raw.n_times)
    for other in [*signals, *named]:
        stem, own = (re.sub("_split-[0-9]+", "", path.stem) for path in (other, file))
        is_own = stem == own or not stem.startswith("sub-")
        if other.parent.resolve() != file.parent.resolve() or not is_own:
            raise ValueError(f"its header leads to {other}, a file of another recording")


def _refuse_short(file: Path, expected: int) -> None:
    if (size := file.stat().st_size) < expected:
        text = f"{file.name} holds {size:,} bytes; its header promises {expected:,}. A copy broke"
        raise DatasetError(f"{text} off: get it again. If no more exists, write it anew with MNE.")


def channel_kinds(
    names: Sequence[str], kinds: Sequence[str], stated: dict[str, str], eeg_channels: Sequence[str]
) -> list[str]:
    """Kind of each channel by channels.tsv, or by the file, or against both by its name."""
    # A name such as EXG1 counts more than a table that calls everything EEG, as programs write it.
    by_hand = bool(set(stated.values()) - {"EEG", "TRIG", "STIM", "MISC"})
    found = []
    for name, kind in zip(names, kinds, strict=True):
        kind = KINDS.get(stated[name], "misc") if name in stated else kind
        if kind == "eeg" and not (by_hand and name in stated):
            kind = kind_by_name(name)
        found.append("eeg" if name in eeg_channels else kind)
    return found


def kind_by_name(name: str) -> str:
    """What a name, such as HEOG or Resp, says of a channel."""
    kinds = (kind for kind, pattern in NOT_EEG.items() if re.fullmatch(pattern, name.upper()))
    return next(kinds, "eeg")


def _type_channels(raw, table, stated, eeg_channels, texts: list[str]) -> None:
    """Set the channels' types and the bad ones; say what is left out for its name."""
    names, own, listed = raw.ch_names, raw.get_channel_types(), table["name"].tolist()
    unlisted = [name for name in names if name not in {"STI 014", *listed}]
    strangers = [n for n in listed if n not in names or listed.count(n) > 1]
    strangers += (missing := [name for name in eeg_channels if name not in names])
    if (strangers and unlisted) or missing:
        what = f"{', '.join(strangers)}, but the file has {', '.join(unlisted or names)}"
        raise ValueError(f"channels.tsv or the profile names channels {what}. Write each once")
    if strangers or (unlisted and listed):
        what = f"{', '.join(strangers)} are not in the file" if strangers else ", ".join(unlisted)
        warnings.warn(f"channels.tsv and the file differ: {what}", stacklevel=2)
    hints = own.copy()
    for text in texts:  # MNE makes EEG of types that it does not know, which may be HEOG or GSR
        for kind, quoted in re.findall(r"(?m)^(\S+): (\[.*\])$", text):
            for name in ast.literal_eval(quoted) if text.startswith("Unknown types") else ():
                hints[names.index(name)] = kind_by_name(kind)
    kinds = channel_kinds(names, hints, stated, eeg_channels)
    every = zip(names, kinds, own, strict=True)
    odd = [n for n, k, o in every if k != "eeg" and o == "eeg" == KINDS.get(stated.get(n, "EEG"))]
    if odd:
        why = f"names or types in the file say that they are no EEG: {', '.join(odd)}"
        text = f"left out, because {why}. dataset.options.eeg_channels decodes them all the same."
        warnings.warn(text, stacklevel=2)
    types = dict(zip(names, kinds, strict=True))
    raw.set_channel_types(types, on_unit_change="ignore", verbose="error")
    if "status" in table:
        bad = set(table["name"][table["status"].str.lower() == "bad"])
        raw.info["bads"] = [name for name in names if name in bad]
    if "eeg" not in raw:
        raise ValueError("its channels.tsv, or their names, give no channel the type EEG")


def _annotate(raw, events: pd.DataFrame, columns: set[str], classes: Sequence[str], joints) -> None:
    """Keep marks of joints and bad stretches alone, of the file and of events.tsv; not trials."""
    own = raw.annotations  # their onsets count from where the raw's times do
    found = [(time, 0.0, "EDGE boundary") for time in joints]
    found += zip(own.onset - raw.first_time, own.duration, own.description, strict=True)
    for column in columns & {*events}:
        rows = events[events[column].str.fullmatch(f"{JOINT}|{BAD}") & ~events["onset"].isin(EMPTY)]
        durations = read_numbers(rows.get("duration", rows["onset"].str[:0])).fillna(0)
        found += zip(read_numbers(rows["onset"]), durations, rows[column], strict=True)
    marks = {}
    for onset, duration, text in found:
        if re.fullmatch(JOINT, text) and onset > 0:
            marks[round(onset, 3), ""] = onset, 0.0, "EDGE boundary"
        elif re.fullmatch(BAD, text) and text not in classes:
            marks[round(onset, 3), text] = onset, duration, text
    marks = [*zip(*sorted(marks.values()), strict=True)] or [[], [], []]
    raw.set_annotations(mne.Annotations(*marks), verbose="error")


def _check_scale(raw: mne.io.BaseRaw) -> None:
    """Say so where the signals are too large or too small to be EEG in volts, or flat."""
    second = max(2, int(raw.info["sfreq"]))
    starts = np.linspace(0, max(0, raw.n_times - second), 8).astype(int)
    signals = [raw.get_data("eeg", start, start + second) for start in starts]
    sizes = np.median([values.std(axis=1) for values in signals], axis=0)
    names = np.array(raw.ch_names)[mne.pick_types(raw.info, eeg=True, exclude=())]
    size = np.median(sizes[sizes > 0]) if sizes.any() else 1e-5
    if not 0.2e-6 < size < 1e-3:  # V; beyond, the unit is wrong
        factor = min((1e-6, 1e-3, 1e3, 1e6), key=lambda f: abs(np.log(size * f / 2e-5)))
        text = f"signals vary by {size * 1e6:.3g} µV within a second, EEG by 5 to 50. Is the unit "
        text += f"wrong? Times {factor:g} it is {size * factor * 1e6:.3g} µV: write it anew with "
        warnings.warn(f"{text}raw.apply_function(lambda x: x * {factor:g}).", stacklevel=2)
    for odd, what in ((sizes == 0, "flat"), (sizes > 100 * size, "100 times as large as others")):
        if odd.any():
            warnings.warn(f"EEG channels that are {what}: {', '.join(names[odd])}.", stacklevel=2)
