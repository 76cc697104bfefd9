"""Where a run keeps things, and what is known about how they came about (every chapter).

A run is one folder::

    runs/demo/profile.yml                          the profile, complete
    runs/demo/group/04_train_teacher/              chapters that run once
    runs/demo/sub-01/05_distill_student/           chapters that run for every subject
        notebook.ipynb                             the chapter as it was executed
        metrics.json                               scores, outputs, provenance (`Metrics`)
        figures/*.png, *.npz, ...                  what the chapter made

A notebook opens its chapter with `open_chapter`, asks it for inputs and outputs by name, and
closes it with `Chapter.finish`. No notebook builds a path.
"""

from __future__ import annotations

import re
import time
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from pydantic import ValidationError

from eeglib.datasets import METADATA, Dataset, DatasetWarning, open_dataset
from eeglib.metrics import (
    Metrics,
    OutputFile,
    ResultsError,
    collect_provenance,
    load_metrics,
    plain,
)
from eeglib.profile import Profile, load_profile
from eeglib.run_folder import METRICS, chapter_folder, replacing, sha256_of, write_text
from eeglib.splits import Split, SplitError, check_disjoint, split_by_image

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

DATA_CHAPTER = "01_download_data"


@dataclass(frozen=True)
class Predictions:
    """What one method said about the test trials.

    Attributes
    ----------
    probabilities : np.ndarray
        Float32, shape (n_trials, n_classes).
    metadata : pandas.DataFrame
        The trials' `METADATA`, one row per trial.
    class_names : list of str
        Names of the columns of ``probabilities``.
    """

    probabilities: np.ndarray
    metadata: pandas.DataFrame
    class_names: list[str]


class Chapter:
    """One chapter of one run: its profile, data, inputs and outputs.

    Made by `open_chapter`.

    Attributes
    ----------
    name : str
        Such as ``05_distill_student``.
    profile : Profile
        The run's settings.
    subject : int | None
        None in the chapters that run once for all subjects.
    run_dir : Path
        Folder of the run.
    folder : Path
        Folder of this chapter's results.
    """

    def __init__(self, name: str, profile: Profile, run_dir: Path, subject: int | None):
        self.name = name
        self.profile = profile
        self.run_dir = run_dir
        self.subject = subject
        self.folder = chapter_folder(run_dir, name, subject)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._outputs: set[str] = set()
        self._started = time.perf_counter()

    @cached_property
    def dataset(self) -> Dataset:
        """The data set of the run, opened; chapters 1 and 2 print what it reports."""
        # The same lines as warnings would stand in every chapter, and pages show no warnings.
        warnings.filterwarnings("ignore", category=DatasetWarning)
        return open_dataset(self.profile.dataset, self._data_folder)

    def input(self, chapter: str, name: str, subject: int | None = None) -> Path:
        """Path of something that an earlier chapter made, checked to be there and undamaged.

        Parameters
        ----------
        chapter : str
            The chapter that made it.
        name : str
            File name, as that chapter gave it to `output`.
        subject : int | None
            Whose; the own subject where left out.

        Raises
        ------
        ResultsError
            If it is not there, or is not what that chapter wrote.
        """
        subject = self.subject if subject is None else subject
        folders = [chapter_folder(self.run_dir, chapter, s) for s in {subject, None}]
        path = next((f / name for f in folders if (f / name).exists()), None)
        if path is None:
            whose = "" if subject is None else f" --subjects {subject}"
            raise ResultsError(
                f"{name} of chapter {chapter} is not in {self.run_dir}. Run that chapter first: "
                f"eeglib run --profile {self.profile.name} --run-dir {self.run_dir} "
                f"--only {chapter[:2]}{whose}"
            )
        # Interactive readers may look at a chapter that has not finished: nothing to compare then.
        if (path.parent / METRICS).exists() and path.is_file():
            known = load_metrics(path.parent).outputs.get(name)
            if known is not None and known.sha256 != sha256_of(path):
                raise ResultsError(
                    f"{path} is not the file that chapter {chapter} wrote: it is damaged or was "
                    f"edited. Delete it and run the chapter again (--only {chapter[:2]})."
                )
        return path

    def output(self, name: str) -> Path:
        """Path for a file of this chapter; `finish` records its size and checksum."""
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"An output stays inside the chapter's folder, got {name!r}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._outputs.add(name)
        return path

    def save_figure(self, figure: matplotlib.figure.Figure, name: str) -> matplotlib.figure.Figure:
        """Write a figure to ``figures/<name>.png`` and return it, closed.

        As the last line of a cell it shows the figure, once: Jupyter shows open figures by itself.
        Elsewhere in a cell: ``display(chapter.save_figure(...))``.
        """
        import matplotlib.pyplot as plt

        with replacing(self.output(f"figures/{name}.png")) as temporary:
            # Without the writer's name the same figure gives the same file.
            figure.savefig(temporary, format="png", metadata={"Software": None})
        plt.close(figure)
        return figure

    def save_predictions(
        self,
        method: str,
        probabilities: np.ndarray,
        metadata: pandas.DataFrame,
        class_names: list[str],
    ) -> Path:
        """Write what a method said about the test trials, for chapters 6 to 9.

        Parameters
        ----------
        method : str
            Name of the row, such as ``distillation_stft``.
        probabilities : np.ndarray
            Shape (n_trials, n_classes).
        metadata : pandas.DataFrame
            The same trials, with the columns `METADATA`.
        class_names : list of str
            Length n_classes.

        Raises
        ------
        ValueError
            If the three do not belong together, or a probability is not finite.
        """
        probabilities = np.asarray(probabilities, dtype=np.float32)
        expected = (len(metadata), len(class_names))
        if probabilities.shape != expected:
            raise ValueError(
                f"probabilities of {method} have shape {probabilities.shape}; trials and classes "
                f"ask for {expected}."
            )
        if not np.isfinite(probabilities).all():
            raise ValueError(f"probabilities of {method} hold values that are not finite.")
        columns = {
            f"trial_{name}": np.asarray(metadata[name], dtype=kind)
            for name in METADATA
            for kind in [str if name in ("image", "class_name") else np.int64]
        }
        path = self.output(f"predictions-{method}.npz")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                probabilities=probabilities,
                class_names=np.asarray(class_names, dtype=str),
                **columns,
            )
        return path

    def split(self, trials: pandas.DataFrame) -> Split:
        """Training, validation and test trials: the same images for all subjects and the teacher.

        Parameters
        ----------
        trials : pandas.DataFrame
            One row per trial or picture, with ``image`` and ``label``.

        Raises
        ------
        SplitError
            If they cannot be split as the profile asks.
        """
        settings, dataset = self.profile.split, self.dataset
        if not settings.published:
            shares = settings.model_dump(exclude={"published"})
            return split_by_image(
                trials, **shares, seed=self.profile.seed, stimuli=dataset.stimuli()
            )
        parts = dataset.published_split(trials)
        if parts is None:
            raise SplitError(
                f"split.published is true, but data set {self.profile.dataset.name!r} has no parts "
                "of its authors, or their file is not in the data's folder. Set split.published to "
                "false, or get the file: `eeglib download` says where."
            )
        split = Split(**parts)
        check_disjoint(split, trials)
        return split

    def subjects_with(self, chapter: str) -> list[int]:
        """Subjects of the profile for whom a chapter has finished; the others failed or wait."""
        return [
            subject
            for subject in self.profile.dataset.subjects
            if (chapter_folder(self.run_dir, chapter, subject) / METRICS).is_file()
        ]

    def finish(
        self, scores: pandas.DataFrame | None = None, facts: dict[str, Any] | None = None
    ) -> Metrics:
        """Close the chapter: write ``metrics.json``.

        Parameters
        ----------
        scores : pandas.DataFrame | None
            One row per score with at least the columns metric, value, chance, n, low, high.
        facts : dict | None
            Other findings, by name: numbers, strings, lists or dicts of them.

        Returns
        -------
        Metrics
            What was written.
        """
        try:
            metrics = Metrics(
                chapter=self.name,
                subject=self.subject,
                profile=self.profile.model_dump(mode="json"),
                scores=[] if scores is None else plain(scores.to_dict("records")),
                facts=plain(facts or {}),
                outputs={name: _output_file(self.folder / name) for name in sorted(self._outputs)},
                provenance=collect_provenance(
                    self.profile, self._data_folder, time.perf_counter() - self._started
                ),
            )
        except ValidationError as error:
            raise ResultsError(f"Chapter {self.name} cannot write its metrics: {error}") from None
        write_text(self.folder / METRICS, metrics.model_dump_json(indent=1) + "\n")
        return metrics

    @property
    def _data_folder(self) -> Path:
        inside = chapter_folder(self.run_dir, DATA_CHAPTER, None) / "data"
        return self.profile.dataset.root or inside


def open_chapter(
    chapter: str, profile: str | Path | Profile, run_dir: str | Path, subject: int | None = None
) -> Chapter:
    """Open a chapter of a run; the first call of every notebook.

    From then on pandas shows the whole text of a cell: a verdict that ends in dots is none.

    Parameters
    ----------
    chapter : str
        Name of the notebook without its extension.
    profile : str | Path | Profile
        Name of a shipped profile, path of a YAML file, or a profile.
    run_dir : str | Path
        Folder of the run. A relative one counts from the current folder or, for a notebook
        opened in ``notebooks/``, from the folder above.
    subject : int | None
        Subject, in the chapters that run for every subject.

    Raises
    ------
    ProfileError
        If the profile cannot be used.
    ValueError
        If the chapter's name or the subject is not one.
    """
    import pandas

    if not re.fullmatch(r"\d\d_[a-z0-9_]+", chapter):
        raise ValueError(f"A chapter is named like '02_filter_signals', got {chapter!r}.")
    if not isinstance(profile, Profile):
        profile = load_profile(profile)
    if subject is not None and subject not in profile.dataset.subjects:
        allowed = ", ".join(map(str, profile.dataset.subjects))
        raise ValueError(f"Profile {profile.name!r} has the subjects {allowed}, got {subject!r}.")
    run_dir = Path(run_dir)
    if not run_dir.is_absolute() and Path.cwd().name == "notebooks":
        run_dir = Path.cwd().parent / run_dir
    pandas.set_option("display.max_colwidth", None)
    return Chapter(chapter, profile, run_dir.resolve(), subject)


def load_predictions(folder: str | Path) -> dict[str, Predictions]:
    """Read all predictions that a chapter saved, by method.

    Raises
    ------
    ResultsError
        If the folder holds none, or one that cannot be read.
    """
    import pandas as pd

    found = {}
    for path in sorted(Path(folder).glob("predictions-*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                found[path.stem.removeprefix("predictions-")] = Predictions(
                    file["probabilities"],
                    pd.DataFrame({name: file[f"trial_{name}"] for name in METADATA}),
                    [str(name) for name in file["class_names"]],
                )
        except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
            raise ResultsError(f"{path} cannot be read ({error}). Run its chapter again.") from None
    if not found:
        raise ResultsError(f"No predictions in {folder}. Run that chapter first.")
    return found


def _output_file(path: Path) -> OutputFile:
    if not path.is_file():
        raise ResultsError(f"The chapter announced {path.name} but did not write it.")
    return OutputFile(bytes=path.stat().st_size, sha256=sha256_of(path))
