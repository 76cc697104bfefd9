"""From a run's subject to the audit card: what is read, and in which order (chapter 8)."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import pandas

from eeglib import timefrequency
from eeglib.audit.card import AuditCard, run_audit
from eeglib.audit.decoders import network_decoder
from eeglib.audit.designs import RANDOMIZED, design_of
from eeglib.audit.phantom import phantom_trials
from eeglib.audit.student import StudentAnswers, retrained_controls
from eeglib.audit.trials import AuditError, AuditTrials, audit_trials
from eeglib.chapter import Predictions, chapter_folder, load_predictions, replacing
from eeglib.datasets import METADATA, Dataset
from eeglib.decoding import teacher
from eeglib.preprocessing import preprocess, remaining_steps

if TYPE_CHECKING:
    import mne

    from eeglib.chapter import Chapter
    from eeglib.profile import FilteringSettings

CHAPTER = "08_audit_confounds"
STUDENT_CHAPTER = "05_distill_student"
FILE = "audit_trials.npz"


def trials_of_chapter(chapter: Chapter, epochs: mne.BaseEpochs) -> AuditTrials:
    """The features of one subject's trials, computed once and kept for the group page.

    Parameters
    ----------
    chapter : Chapter
        Chapter 8 of a subject.
    epochs : mne.BaseEpochs
        What chapter 2 made of it.

    Raises
    ------
    AuditError
        If the trials cannot be audited.
    """
    dataset, settings = chapter.dataset, chapter.profile.filtering
    metadata = with_time(epochs.metadata, dataset, chapter.subject)
    band = remaining_steps(settings.model_dump(), dataset.processed)["band"]
    trials = audit_trials(
        epochs.get_data(copy=False),
        epochs.info["sfreq"],
        metadata,
        len(dataset.class_names),
        broadband=broadband_trials(dataset, chapter.subject, settings, len(epochs)),
        band=band,
        seed=chapter.profile.seed,
        kind=chapter.profile.audit.features,
    )
    save_trials(trials, chapter.output(FILE))
    return trials


def broadband_trials(
    dataset: Dataset, subject: int, settings: FilteringSettings, n_trials: int
) -> np.ndarray | None:
    """The same trials without the band-pass, volts; None where they cannot be had."""
    if settings.band is None or any(step.startswith("band") for step in dataset.processed):
        return None
    wide = {**settings.model_dump(), "band": None, "standardize": False}
    epochs = preprocess(dataset, subject, **wide).epochs
    if len(epochs) != n_trials:
        raise AuditError(
            f"Chapter 2 kept {n_trials} trials and the data now give {len(epochs)}. The data have "
            "changed; run chapter 2 again (--only 02)."
        )
    return epochs.get_data(copy=False)


def with_time(metadata: pandas.DataFrame, dataset: Dataset, subject: int) -> pandas.DataFrame:
    """Metadata with the onset of each trial in its session (``time``, s) where it is known."""
    known = dataset.trials(subject)
    if "onset" not in known or (known["order"] < 0).any() or known["order"].duplicated().any():
        return metadata
    onset = known.set_index("order")["onset"]
    return metadata.assign(time=onset.reindex(metadata["order"]).to_numpy())


def audit_chapter(chapter: Chapter, trials: AuditTrials, epochs: mne.BaseEpochs) -> AuditCard:
    """Run all controls for one subject of a run.

    Parameters
    ----------
    chapter : Chapter
        Chapter 8 of a subject.
    trials : AuditTrials
        See `trials_of_chapter`.
    epochs : mne.BaseEpochs
        The same trials, for the network where it is trained anew.
    """
    profile, settings = chapter.profile, chapter.profile.audit
    seen = None
    if not chapter.dataset.stimuli().empty:
        seen = teacher.Teacher.load(chapter.input("04_train_teacher", "teacher.npz"))
        seen = seen.of_trials(trials.metadata)
    reference = None if settings.reference is None else load_reference(settings.reference)
    phantom = None
    if reference is not None and design_of(trials) != RANDOMIZED:
        phantom = phantom_trials(reference, trials.n_classes)
    card = run_audit(
        trials,
        chapter.subject,
        controls=settings.controls,
        image_features=None if seen is None else seen.features,
        teacher_logits=None if seen is None else seen.logits,
        phantom=phantom,
        reference=reference,
        student=answers_of_student(chapter, trials),
        seed=profile.seed,
    )
    if settings.retrain:
        grid = profile.timefrequency
        images = timefrequency.spectrograms(
            epochs.get_data(copy=False), epochs.info["sfreq"], grid.window, grid.step
        )
        decoder = network_decoder(profile.seed, **profile.training.model_dump(exclude={"seeds"}))
        for control in retrained_controls(trials, images, decoder, profile.seed):
            card = card.with_control(control)
    return card


def answers_of_student(chapter: Chapter, trials: AuditTrials) -> StudentAnswers | None:
    """What the network of chapter 5 said, with the teacher if there is one; None without it."""
    folder = chapter_folder(chapter.run_dir, STUDENT_CHAPTER, chapter.subject)
    if not any(folder.glob("predictions-*.npz")):
        return None
    found = load_predictions(folder)
    method = "distillation_stft" if "distillation_stft" in found else next(iter(found))
    chapter.input(STUDENT_CHAPTER, f"predictions-{method}.npz")
    return StudentAnswers(
        method, rows_of(found[method], trials.metadata), found[method].probabilities
    )


def rows_of(predictions: Predictions, metadata: pandas.DataFrame) -> np.ndarray:
    """Rows of the audited trials that predictions are about.

    Raises
    ------
    AuditError
        If some test trial is not among them, or the trials cannot be told apart.
    """
    keys = ["session", "block", "order", "image", "label"]
    place = pandas.Series(np.arange(len(metadata)), pandas.MultiIndex.from_frame(metadata[keys]))
    if place.index.has_duplicates:
        # Neither order nor image: the answers cannot be laid on the timeline, nor need they be.
        counter = metadata.groupby(keys).cumcount()
        place.index = pandas.MultiIndex.from_frame(metadata[keys].assign(n=counter))
        asked = predictions.metadata[keys].assign(n=predictions.metadata.groupby(keys).cumcount())
    else:
        asked = predictions.metadata[keys]
    rows = place.reindex(pandas.MultiIndex.from_frame(asked)).to_numpy()
    if np.isnan(rows.astype(float)).any():
        raise AuditError(
            "The test trials of chapter 5 are not among the trials of chapter 2. Run chapter 5 "
            "again (--only 05)."
        )
    return rows.astype(int)


def load_reference(run_dir: Path) -> AuditTrials:
    """A randomised recording that was audited before: the first subject of another run.

    Raises
    ------
    AuditError
        If that run has no audited subject.
    """
    files = sorted(Path(run_dir).glob(f"sub-*/{CHAPTER}/{FILE}"))
    if not files:
        raise AuditError(
            f"audit.reference: {run_dir} holds no audited subject. Give the folder of a run of a "
            "randomised recording, after: eeglib audit --run-dir ..."
        )
    return load_trials(files[0])


def save_trials(trials: AuditTrials, path: Path) -> None:
    """Write trials to an npz file, half of it metadata as text; read it with `load_trials`."""
    arrays = {"n_classes": np.array(trials.n_classes)}
    for item in fields(trials):
        value = getattr(trials, item.name)
        if isinstance(value, dict):
            arrays |= {f"{item.name}/{key}": array for key, array in value.items()}
        elif isinstance(value, np.ndarray):
            arrays[item.name] = value
    for name in trials.metadata:
        column = trials.metadata[name]
        text = name in ("image", "class_name")
        arrays[f"metadata/{name}"] = column.to_numpy(str if text else None)
    with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def load_trials(path: Path) -> AuditTrials:
    """Read what `save_trials` wrote.

    Raises
    ------
    AuditError
        If the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise AuditError(f"{path} cannot be read ({error}). Run chapter 8 again.") from None
    parts: dict = {"bands": {}, "windows": {}, "metadata": {}}
    for name, array in arrays.items():
        group, _, key = name.partition("/")
        if key:
            parts[group][key] = array
        else:
            parts[group] = array
    if not {"features", "n_classes"} <= set(parts) or not set(METADATA) <= set(parts["metadata"]):
        raise AuditError(f"{path} holds no audited trials. Run chapter 8 again.")
    parts["metadata"] = pandas.DataFrame(parts["metadata"])
    return AuditTrials(**{**parts, "n_classes": int(parts["n_classes"])})
