"""A simulated recording, honest about being one (chapter 1).

Nobody was recorded. The signals follow the published protocol of EEG-ImageNet. What the pictures
do (``stimulus_strength``) and what the clock does (``drift_strength``) are separate.
"""

import json
import shutil
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas
from PIL import Image
from pydantic import Field, field_validator

from eeglib.datasets import DatasetError, bids
from eeglib.datasets import Options as BaseOptions
from eeglib.datasets.files import whole_folder, write_whole
from eeglib.datasets.montage import ACTICAP_128
from eeglib.datasets.stimuli import CLASSES, drawn_stimuli, each, spread_classes, visual_features

MODEL_VERSION = 2  # counts changes of the signals; older simulations are then made again
TASK = "images"
NOTE = Path("sourcedata") / "simulation.json"
FACTS = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
"""Texts of the caution, of the README, and of BIDS on the data set, a recording, a column."""


class Options(BaseOptions):
    """What to simulate; the defaults are the published protocol, and the drift of real EEG."""

    image_duration: ClassVar[float] = 0.5  # s, without a gap
    session_gap: ClassVar[float] = 300.0  # s

    n_classes: int = Field(40, ge=2, le=40, description="classes, spread over the 40")
    images_per_class: int = Field(50, ge=1, description="drawings of each class: a block")
    classes_per_session: int = Field(10, ge=1, description="blocks in a session")
    design: Literal["block", "randomized"] = "block"
    stimulus_strength: float = Field(1.0, ge=0, description="factor on what images drive")
    drift_strength: float = Field(1.0, ge=0, description="factor on what drifts; 1 is real EEG")
    drift_tau: float = Field(300.0, gt=0, description="time constant of the drift, s")
    image_share: float = Field(0.3, ge=0, le=1, description="share that differs within a class")
    pause: float = Field(10.0, ge=0, description="between blocks, s")
    sfreq: int = Field(1000, ge=200, multiple_of=2, description="Hz")
    channels: tuple[str, ...] = Field(ACTICAP_128, min_length=2, description="10-05 names")
    seed: int = Field(0, ge=0, description="of everything random")

    @field_validator("channels")
    @classmethod
    def _are_in_the_montage(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        from eeglib.datasets.simulation import build_head

        build_head(names)
        return names


def simulate(
    folder: str | Path, options: Options, subjects: tuple[int, ...] = (1,), replace: bool = False
) -> Path:
    """Write what is missing of a simulation; `replace` deletes one with *other* options first."""
    folder = Path(folder)
    _claim(folder, options, replace)
    missing = [s for s in subjects if not (folder / f"sub-{s:02d}").is_dir()]
    if missing:
        stimuli, features = draw_stimuli(folder, options)
        for subject in each(_simulate_subject, missing, folder, options, stimuli, features):
            print(f"Simulated subject {subject}")
    people = sorted(f"{path.name}\tn/a\tn/a" for path in folder.glob("sub-*"))
    table = "\n".join(["participant_id\tage\tsex", *people, ""])
    write_whole(folder / "participants.tsv", table)
    return folder


def draw_stimuli(folder: Path, options: Options) -> tuple[pandas.DataFrame, np.ndarray]:
    """Draw a simulation's pictures, if they are not there; their table and `visual_features`."""
    labels, target = spread_classes(options.n_classes), folder / "stimuli"
    table = drawn_stimuli(target, labels, options.images_per_class, options.seed)
    return table, visual_features([Image.open(target / f).convert("RGB") for f in table["file"]])


def _claim(folder: Path, options: Options, replace: bool) -> None:
    """Make sure that the folder is ours and holds this very simulation."""
    note = folder / NOTE
    ours = {"model": MODEL_VERSION, "options": options.model_dump(mode="json")}
    there = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
    if there is None and folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f"{folder} is not empty and holds no simulation. Give a new folder.")
    if there not in (None, ours):
        keys = [k for k, new in ours["options"].items() if there["options"].get(k) != new]
        changed = ", ".join(keys) or "an older version of the model"
        if not replace:
            text = f"{folder} holds another simulation ({changed})"
            raise DatasetError(f"{text}. Delete it, or give another folder.")
        print(f"Simulating again, because the options changed: {changed}.")
        shutil.rmtree(folder)
    note.parent.mkdir(parents=True, exist_ok=True)
    description = json.dumps(FACTS["description"], indent=2) + "\n"
    write_whole(note, json.dumps(ours, indent=2) + "\n")
    write_whole(folder / "dataset_description.json", description)
    write_whole(folder / "README", FACTS["readme"])


def _simulate_subject(
    subject: int, folder: Path, options: Options, stimuli: pandas.DataFrame, features: np.ndarray
) -> int:
    """Write one subject; its number, to say that it is done."""
    from mne_bids import BIDSPath

    from eeglib.datasets.bids_writer import write_recording
    from eeglib.datasets.simulation import SimulatedSubject

    simulated = SimulatedSubject(options, subject, stimuli, features)
    pictures = stimuli.rename(columns={"class_name": "trial_type", "file": "stim_file"})
    columns, names = FACTS["columns"], list(options.channels)
    with whole_folder(folder / f"sub-{subject:02d}") as partial:
        for session in range(simulated.n_sessions):
            path = BIDSPath(f"{subject:02d}", f"{session + 1:02d}", TASK, root=partial.parent)
            trials = simulated.trials(session)
            events = trials.join(pictures, on="stimulus").assign(
                duration=options.image_duration, session=session + 1, order=trials.index
            )[["onset", "duration", "trial_type", *columns]]
            texts, signals = (columns, FACTS["sidecar"]), simulated.signals(session)
            write_recording(path, signals, names, options.sfreq, events, *texts)
    return subject


class Loader(bids.Loader):
    """Simulated recordings, read back exactly as any BIDS data set is."""

    Options: ClassVar = Options
    simulated: ClassVar[bool] = True
    reading: ClassVar[bids.Options] = bids.Options(task=TASK)

    def prepare(self) -> None:
        # A folder that the user named may serve others as well: a changed option deletes none.
        replace = self.settings.root is None
        simulate(self.folder, self.options, self.settings.subjects, replace)

    @property
    def caution(self) -> tuple[str, str]:
        return "Simulated data", FACTS["caution"].format(**dict(self.options))

    @cached_property
    def class_names(self) -> list[str]:
        return [CLASSES[i].name for i in spread_classes(self.options.n_classes)]

    def card(self) -> dict[str, str]:
        o = self.options
        return super().card() | {
            "SIMULATED": "no person was recorded; see sourcedata/simulation.json for the options",
            "design": o.design,
            "stimulus strength": f"{o.stimulus_strength:g}",
            "drift strength": f"{o.drift_strength:g}",
            "seed": str(o.seed),
        }
