"""A simulated recording, honest about being one (chapter 1).

Nobody was recorded. The signals follow the published protocol of EEG-ImageNet and come from a
model of the head: sources in the brain, seen through a spherical conductor by 128 electrodes. Two
knobs are separate and either may be 0: ``stimulus_strength``, what the pictures do, and
``drift_strength``, what the clock does. What was put in is kept beside the data
(`eeglib.datasets.simulation.truth`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from eeglib.datasets import DatasetError, bids
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets.simulation.forward_model import ACTICAP_128

if TYPE_CHECKING:
    import pandas

MODEL_VERSION = 1
"""Counts changes of the model that change signals; older simulations are then made again."""

TASK = "images"
NOTE = Path("sourcedata") / "simulation.json"

README = """\
SIMULATED EEG. No person was recorded.

Signals computed by eeglib from a model of the head, for teaching and for testing methods whose
right answer must be known. What was put in stands in sourcedata/truth, the options of the
simulation in sourcedata/simulation.json, the drawings that were "shown" in stimuli/.
"""

COLUMNS = {
    "stim_file": "Drawing shown, below the folder stimuli",
    "image": "Name of the drawing",
    "label": "Class of the drawing, counted from 0",
    "session": "Session, as in the name of the file",
    "block": "Block, counted from 0 over the whole recording",
    "order": "Position in the order of presentation, counted from 0 over the whole recording",
}


class Options(BaseOptions):
    """What to simulate; the defaults are the published protocol.

    Notes
    -----
    Strengths of 1 are meant to be realistic; see `simulate` for what they give.
    """

    n_classes: int = Field(40, ge=2, le=40, description="classes, spread over the 40")
    images_per_class: int = Field(50, ge=1, description="drawings of each class")
    trials_per_block: int | None = Field(None, ge=1, description="none: all images of a class")
    classes_per_session: int = Field(10, ge=1, description="blocks in a session")
    design: Literal["block", "randomized"] = "block"
    stimulus_strength: float = Field(1.0, ge=0, description="factor on what images drive")
    drift_strength: float = Field(1.0, ge=0, description="factor on slow changes")
    drift_tau: float = Field(300.0, gt=0, description="time constant of the drift, s")
    image_share: float = Field(0.3, ge=0, le=1, description="share that differs within a class")
    image_duration: float = Field(0.5, gt=0, description="s, without a gap")
    pause: float = Field(10.0, ge=0, description="between blocks, s")
    session_gap: float = Field(300.0, ge=0, description="between sessions, s")
    sfreq: int = Field(1000, ge=200, description="Hz")
    channels: tuple[str, ...] = Field(ACTICAP_128, min_length=2, description="10-05 names")
    image_size: int = Field(64, ge=16, description="height and width of a drawing, pixels")
    resolution: float = Field(0.1, gt=0, description="microvolts per bit")
    seed: int = Field(0, ge=0, description="of everything random")

    @field_validator("channels")
    @classmethod
    def _known_channels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from eeglib.datasets.simulation.forward_model import build_head

        build_head(tuple(names))
        return names

    @model_validator(mode="after")
    def _trial_is_whole_samples(self) -> Options:
        n_times = self.image_duration * self.sfreq
        if abs(n_times - round(n_times)) > 1e-6 or n_times < 1:
            raise ValueError(
                f"image_duration x sfreq must be a whole number of samples, got {n_times}"
            )
        return self

    @property
    def block_size(self) -> int:
        """Trials in a block."""
        return min(self.trials_per_block or self.images_per_class, self.images_per_class)

    def labels(self) -> list[int]:
        """Which of the 40 classes are shown, spread evenly over the list."""
        return [int(i) for i in np.round(np.linspace(0, 39, self.n_classes))]

    def fingerprint(self) -> str:
        """Hash of all that the signals depend on."""
        content = {"model": MODEL_VERSION, **self.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def simulate(
    folder: str | Path,
    options: Options,
    subjects: tuple[int, ...] = (1,),
    replace: bool = False,
    progress: bool = True,
) -> Path:
    """Write a simulated BIDS data set, or what is missing of it.

    Parameters
    ----------
    folder : str | Path
        Of the data set. What an earlier call with the same options wrote is kept.
    options : Options
    subjects : tuple of int
        Numbers of the subjects; each has its own sources, responses, noise and drift.
    replace : bool
        Whether a simulation with *other* options in this folder is deleted and made again. Never
        deletes a folder that this function did not write.
    progress : bool
        Whether to print a line per session.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DatasetError
        If the folder holds something else, or a simulation with other options.
    """
    folder = Path(folder)
    say = print if progress else (lambda *_: None)
    _claim(folder, options, replace, say)
    missing = [s for s in subjects if not (folder / f"sub-{s:02d}").is_dir()]
    if not missing:
        return folder
    stimuli, features = _draw_stimuli(folder, options)
    for subject in missing:
        _simulate_subject(folder, options, subject, stimuli, features, say)
    _describe(folder)
    return folder


def _claim(folder: Path, options: Options, replace: bool, say) -> None:
    """Make sure that the folder is ours and holds this very simulation."""
    note = folder / NOTE
    ours = {
        "fingerprint": options.fingerprint(),
        "model": MODEL_VERSION,
        "options": options.model_dump(mode="json"),
    }
    if note.is_file():
        there = json.loads(note.read_text(encoding="utf-8"))
        if there.get("fingerprint") == ours["fingerprint"]:
            return
        changed = _differences(there, ours)
        if not replace:
            raise DatasetError(
                f"{folder} holds a simulation with other options ({changed}). Delete the folder, "
                "or give another one."
            )
        say(f"Simulating again, because the options changed: {changed}.")
        shutil.rmtree(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(
            f"{folder} is not empty and holds no simulation of ours. Give an empty or new folder."
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    _write_text(note, json.dumps(ours, indent=2) + "\n")


def _differences(there: dict, ours: dict) -> str:
    old, new = there.get("options", {}), ours["options"]
    keys = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    short = [f"{k}: {_brief(old.get(k))} there, {_brief(new.get(k))} wanted" for k in keys]
    return "; ".join(short) or "an older version of the model"


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _draw_stimuli(folder: Path, options: Options) -> tuple[pandas.DataFrame, np.ndarray]:
    """Draw the pictures; return their table and a description of what they look like."""
    import pandas
    from PIL import Image

    from eeglib.datasets.stimuli import visual_features, write_stimuli

    target = folder / "stimuli"
    if not target.is_dir():
        temporary = Path(tempfile.mkdtemp(prefix=".partial-stimuli-", dir=folder))
        drawn = write_stimuli(
            temporary,
            options.labels(),
            options.images_per_class,
            options.seed,
            options.image_size,
        )
        drawn.to_csv(temporary / "stimuli.tsv", sep="\t", index=False, lineterminator="\n")
        temporary.chmod(0o755)
        temporary.rename(target)
    table = pandas.read_csv(target / "stimuli.tsv", sep="\t")
    pictures = []
    for file in table["file"]:
        with Image.open(target / file) as picture:
            pictures.append(picture.convert("RGB"))
    return table, visual_features(pictures)


def _simulate_subject(
    folder: Path, options: Options, subject: int, stimuli, features: np.ndarray, say
) -> None:
    """Write one subject into a hidden folder and rename it when complete."""
    import mne_bids

    from eeglib.datasets.bids_writer import write_recording
    from eeglib.datasets.simulation.subject import SimulatedSubject

    simulated = SimulatedSubject(options, subject, stimuli, features)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        for session in range(simulated.n_sessions):
            say(f"Simulating subject {subject}, session {session + 1} of {simulated.n_sessions}")
            path = mne_bids.BIDSPath(
                root=temporary,
                subject=f"{subject:02d}",
                session=f"{session + 1:02d}",
                task=TASK,
                datatype="eeg",
                suffix="eeg",
                extension=".vhdr",
            )
            write_recording(
                path,
                simulated.signals(session),
                list(options.channels),
                float(options.sfreq),
                _events(simulated.trials(session), stimuli, options),
                COLUMNS,
                {
                    "EEGReference": "average of all channels",
                    "Manufacturer": "none: simulated",
                    "TaskDescription": "SIMULATED. Drawings of objects, one after the other",
                    "Instructions": "none: no person was recorded",
                },
                options.resolution,
            )
        simulated.truth().save(folder, subject)
        name = f"sub-{subject:02d}"
        os.rename(Path(temporary) / name, folder / name)


def _events(trials: pandas.DataFrame, stimuli, options: Options) -> pandas.DataFrame:
    shown = stimuli.iloc[trials["stimulus"]]
    return trials[["onset"]].assign(
        duration=options.image_duration,
        trial_type=shown["class_name"].to_numpy(),
        stim_file=shown["file"].to_numpy(),
        image=shown["image"].to_numpy(),
        label=shown["label"].to_numpy(),
        session=trials["session"] + 1,
        block=trials["block"],
        order=trials.index,
    )


def _describe(folder: Path) -> None:
    """Write the tables that a BIDS data set has at its top."""
    description = {
        "Name": "SIMULATED EEG: drawings of objects (no person was recorded)",
        "BIDSVersion": "1.9.0",
        "DatasetType": "raw",
        "License": "CC0",
        "Authors": ["eeglib (computed, not recorded)"],
        "HowToAcknowledge": "State that the data are simulated.",
    }
    _write_text(folder / "dataset_description.json", json.dumps(description, indent=2) + "\n")
    _write_text(folder / "README", README)
    people = sorted(p.name for p in folder.glob("sub-*") if p.is_dir())
    rows = "".join(f"{name}\tsimulated\tn/a\tn/a\n" for name in people)
    _write_text(folder / "participants.tsv", "participant_id\tspecies\tage\tsex\n" + rows)


def _write_text(path: Path, text: str) -> None:
    """Write a file so that it is never seen half written."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class Loader(bids.Loader):
    """Simulated recordings, read back exactly as any BIDS data set is."""

    Options: ClassVar = Options
    simulated: ClassVar[bool] = True

    @cached_property
    def reading(self) -> bids.Options:
        """How to read what the simulation wrote."""
        return bids.Options(task=TASK)

    def prepare(self) -> None:
        """Simulate the profile's subjects, unless they are there already."""
        # A folder inside the run is derived from the profile; one that the user named may serve
        # others as well, and is not deleted for a changed option.
        simulate(
            self.folder, self.options, self.settings.subjects, replace=self.settings.root is None
        )
        vars(self).pop("events", None)

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the simulated classes, in the order of their labels."""
        from eeglib.datasets.stimuli import CLASSES

        return [CLASSES[i].name for i in self.options.labels()]

    def card(self) -> dict[str, str]:
        """Facts for the data card."""
        o = self.options
        return super().card() | {
            "SIMULATED": "no person was recorded; see sourcedata/truth for what was put in",
            "design": o.design,
            "stimulus strength": f"{o.stimulus_strength:g}",
            "drift strength": f"{o.drift_strength:g}",
            "seed": str(o.seed),
        }
