"""What a notebook opens: a chapter's inputs, outputs and results (every chapter).

A run is one folder::

    runs/demo/profile.yml                          the profile, complete
    runs/demo/group/04_train_teacher/              chapters that run once
    runs/demo/sub-01/05_distill_student/           chapters that run for every subject
        notebook.ipynb                             the chapter as it was executed
        metrics.json                               scores, facts, outputs (`Metrics`)
        provenance.json                            when, where and from what
        figures/*.png, *.npz, ...                  what the chapter made

A notebook opens its chapter with `open_chapter`, asks it for inputs and outputs by name, and
closes it with `Chapter.finish`. No notebook builds a path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import resource
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from zipfile import BadZipFile

import numpy as np
from pooch import file_hash
from pydantic import BaseModel, TypeAdapter

import eeglib
from eeglib.datasets import METADATA, Dataset, DatasetError, DatasetWarning, open_dataset
from eeglib.decoding.splits import Split, SplitError, check_disjoint, split_by_group, split_by_image
from eeglib.profile import Profile, load_profile

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

METRICS = "metrics.json"
PROVENANCE = "provenance.json"
NOTEBOOK = "notebook.ipynb"
FAILURE = "failure.json"
FIGURES = "figures"
DATA_CHAPTER = "01_download_data"
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "mne", "torch", "open-clip-torch")
PACKAGES += ("diffusers", "transformers")  # whose versions may change a result
TEXT_FILES = {".csv", ".json", ".tsv", ".txt", ".vhdr", ".vmrk"}  # small, and edited by hand


class ResultsError(RuntimeError):
    """Results that are missing or damaged; the message says which chapter makes them."""


class Score(BaseModel, extra="allow"):
    """One score: never without its chance level, its n and its interval."""

    metric: str
    value: float | None
    chance: float | None
    n: int
    low: float | None
    high: float | None


class OutputFile(BaseModel):
    """Size and checksum of a file that later chapters may read."""

    bytes: int
    sha256: str


class Metrics(BaseModel, extra="forbid"):
    """Content of ``metrics.json``: what one chapter found. Equal results are equal files."""

    schema_version: Literal[2] = 2
    chapter: str
    subject: int | None
    scores: list[Score]
    facts: dict[str, Any]
    outputs: dict[str, OutputFile]


class Predictions(NamedTuple):
    """What one method said about the test trials, whose `METADATA` stand beside it."""

    probabilities: np.ndarray  # float32, (n_trials, n_classes)
    metadata: pandas.DataFrame
    class_names: list[str]


def subject_folder(subject: int | None) -> str:
    """Name of a subject's folder; ``group`` for None."""
    return "group" if subject is None else f"sub-{subject:02d}"


def chapter_folder(run_dir: str | Path, chapter: str, subject: int | None) -> Path:
    """Folder of a chapter's results: under ``group`` or under the subject, such as ``sub-01``."""
    return Path(run_dir) / subject_folder(subject) / chapter


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that takes its place at once when all went well."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_metrics(folder: str | Path) -> Metrics:
    """Read the ``metrics.json`` of a chapter's folder; ResultsError if there is none that fits."""
    return _load(Path(folder) / METRICS, Metrics.model_validate_json)


def load_provenance(folder: str | Path) -> dict[str, Any]:
    """Read the ``provenance.json`` of a chapter's folder; raises as `load_metrics` does."""
    return _load(Path(folder) / PROVENANCE, json.loads)


def _load(path: Path, parse: Callable) -> Any:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultsError(f"No {path}: that chapter has not finished. Run it first.") from None
    except ValueError as error:
        raise ResultsError(f"{path} is not valid; run its chapter again. {error}") from None


def data_folder(run_dir: Path) -> Path:
    """A run's own folder of data: of all of them, where ``dataset.root`` is empty."""
    return chapter_folder(run_dir, DATA_CHAPTER, None) / "data"


def data_fingerprints(dataset: Dataset, subjects: Iterable[int | None]) -> dict[str, str]:
    """Checksums of the files that each subject's trials depend on; for None, of those all share."""
    found = {}
    for subject in subjects:
        digest = hashlib.sha256()
        with suppress(DatasetError):  # what is missing is told by the chapter that reads it
            for path in dataset.files(subject):
                inside, state = path.relative_to(dataset.folder).as_posix(), path.stat()
                if not inside.startswith(("README", "CHANGES")):
                    # Signals and pictures, often gigabytes, count by size and time of change.
                    text = path.suffix.lower() in TEXT_FILES and state.st_size < 1e8
                    content = file_hash(path) if text else f"{state.st_size} {state.st_mtime_ns}"
                    digest.update(f"{inside}\0{content}\0".encode())
        found[subject_folder(subject)] = digest.hexdigest()[:16]
    return found


class Chapter:
    """One chapter of one run: its profile, data, inputs and outputs; made by `open_chapter`.

    Its ``subject`` is None in the chapters that run once for all; its results lie in ``folder``.
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
        return open_dataset(self.profile.dataset, data_folder(self.run_dir))

    def input(self, chapter: str, name: str, subject: int | None = None) -> Path:
        """Path of something that an earlier chapter made; ResultsError if it is not there whole."""
        subject = self.subject if subject is None else subject
        folders = [chapter_folder(self.run_dir, chapter, s) for s in {subject, None}]
        path = next((f / name for f in folders if (f / name).exists()), None)
        command = f"eeglib run --profile {self.profile.name} --run-dir {self.run_dir} "
        command += f"--only {chapter[:2]}" + (f" --subjects {subject}" if subject else "")
        if path is None:
            raise ResultsError(f"No {name} of chapter {chapter}. Run it first: {command}")
        # Interactive readers may look at a chapter that has not finished: nothing to compare then.
        done = (path.parent / METRICS).exists() and path.is_file()
        expected = load_metrics(path.parent).outputs.get(name) if done else None
        if expected and expected.sha256 != file_hash(path):
            raise ResultsError(f"{path} is damaged or was edited. Delete it and run: {command}")
        return path

    def output(self, name: str) -> Path:
        """Path for a file of this chapter; `finish` records its size and checksum."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._outputs.add(name)
        return path

    def save_figure(self, figure: matplotlib.figure.Figure, name: str) -> matplotlib.figure.Figure:
        """Write ``figures/<name>.png`` and return it, closed: a cell's last line shows it."""
        import matplotlib.pyplot as plt

        with replacing(self.output(f"{FIGURES}/{name}.png")) as temporary:
            # Without the writer's name the same figure gives the same file.
            figure.savefig(temporary, format="png", metadata={"Software": None})
        plt.close(figure)
        return figure

    def save_predictions(
        self, method: str, probabilities: np.ndarray, metadata: pandas.DataFrame, class_names: list
    ) -> Path:
        """Write the `Predictions` of a method for chapters 6 to 9."""
        probabilities = np.asarray(probabilities, dtype=np.float32)
        shape = len(metadata), len(class_names)
        if probabilities.shape != shape or not np.isfinite(probabilities).all():
            raise ValueError(f"Probabilities of {method} must be finite and of shape {shape}.")
        arrays = {"probabilities": probabilities, "class_names": np.asarray(class_names, str)}
        for name in METADATA:
            kind = str if name in ("image", "class_name") else np.int64
            arrays[f"trial_{name}"] = np.asarray(metadata[name], dtype=kind)
        path = self.output(f"predictions-{method}.npz")
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **arrays)
        return path

    def split(self, trials: pandas.DataFrame) -> Split:
        """Split a table of trials or pictures: alike for all subjects and the teacher."""
        settings, dataset = self.profile.split, self.dataset
        if not settings.published:
            how = settings.model_dump(exclude={"published", "by"}) | {"seed": self.profile.seed}
            # Pictures alone (chapter 4) belong to no run.
            if settings.by != "image" and "session" in trials:
                return split_by_group(trials, settings.by, **how)
            return split_by_image(trials, **how, stimuli=dataset.stimuli())
        parts = dataset.published_split(trials)
        if parts is None:
            which = f"split.published is true, but data set {self.profile.dataset.name!r} has none"
            raise SplitError(f"{which}, or its file is missing: `eeglib download` says how.")
        split = Split(**parts)
        check_disjoint(split, trials)
        return split

    def results(self, chapter: str) -> dict[int, Metrics]:
        """``metrics.json`` of a chapter, by subject, of those who have finished it."""
        everybody = self.profile.dataset.subjects
        folders = {s: chapter_folder(self.run_dir, chapter, s) for s in everybody}
        return {s: load_metrics(f) for s, f in folders.items() if (f / METRICS).is_file()}

    def finish(
        self, scores: pandas.DataFrame | None = None, facts: dict[str, Any] | None = None
    ) -> Metrics:
        """Close the chapter: write ``metrics.json``, and ``provenance.json`` beside it.

        The table ``scores`` has one row per score and at least the columns metric, value, chance,
        n, low, high; ``facts`` are numbers, strings, lists or dicts of them, by name.
        """
        outputs = {}
        for name in sorted(self._outputs):
            if not name.startswith(f"{FIGURES}/"):
                path = self.folder / name
                outputs[name] = OutputFile(bytes=path.stat().st_size, sha256=file_hash(path))
        rows = [] if scores is None else scores.to_dict("records")
        found = {"scores": rows, "facts": facts or {}}
        # NumPy scalars, arrays and paths become what JSON knows, NaN and infinity null.
        text = TypeAdapter(Any).dump_json(found, fallback=lambda array: array.tolist())
        about = {"chapter": self.name, "subject": self.subject}
        metrics = Metrics(**about, **json.loads(text), outputs=outputs)
        write_text(self.folder / PROVENANCE, json.dumps(self._provenance(), indent=1) + "\n")
        write_text(self.folder / METRICS, metrics.model_dump_json(indent=1) + "\n")
        return metrics

    def _provenance(self) -> dict[str, Any]:
        """How the results came about."""
        checkout, revision = Path(eeglib.__file__).parent.parent, None
        if (checkout / ".git").exists() and shutil.which("git"):
            command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
            done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
            revision = done.stdout.strip()
        # Of this process or of one of its finished children.
        who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        peak = max(resource.getrusage(one).ru_maxrss for one in who)
        peak *= 1 if sys.platform == "darwin" else 1024
        # A chapter that never imported torch should not pay seconds for the question.
        torch = sys.modules.get("torch")
        gpu = torch.cuda if torch and torch.cuda.is_initialized() else None
        profile, own = self.profile, [] if self.subject is None else [self.subject]
        subjects = profile.dataset.subjects if self.name == DATA_CHAPTER else own
        return {
            "eeglib": eeglib.__version__,
            "git_revision": revision,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "profile": profile.model_dump(mode="json"),
            "seeds": {"profile": [profile.seed], "training": list(profile.training.seeds)},
            "dataset": data_fingerprints(self.dataset, [None, *subjects]),
            "device": gpu.get_device_name() if gpu else "cpu",
            "seconds": round(time.perf_counter() - self._started, 3),
            "peak_memory_mb": round(peak / 1e6, 1),
            "peak_gpu_memory_mb": round(gpu.max_memory_reserved() / 1e6) if gpu else None,
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def open_chapter(
    chapter: str, profile: str | Path | Profile, run_dir: str | Path, subject: int | None = None
) -> Chapter:
    """Open a chapter of a run by the name of its notebook; the first call of every notebook.

    The profile is the name of a shipped one, the path of a YAML file, or a `Profile`; a relative
    ``run_dir`` counts from the current folder or, in ``notebooks/``, from the folder above; the
    subject is None in the chapters that run once for all.
    """
    import pandas

    if not isinstance(profile, Profile):
        profile = load_profile(profile)
    if subject is not None and subject not in profile.dataset.subjects:
        allowed = ", ".join(map(str, profile.dataset.subjects))
        raise ValueError(f"Profile {profile.name!r} has the subjects {allowed}, got {subject!r}.")
    run_dir = Path(run_dir)
    if not run_dir.is_absolute() and Path.cwd().name == "notebooks":
        run_dir = Path.cwd().parent / run_dir
    pandas.set_option("display.max_colwidth", None)  # a verdict that ends in dots is none
    return Chapter(chapter, profile, run_dir.resolve(), subject)


def load_predictions(folder: str | Path) -> dict[str, Predictions]:
    """Read all predictions that a chapter saved, by method; ResultsError if there are none."""
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


class Notice(NamedTuple):
    """A boxed note that stands out in the book and in Jupyter."""

    title: str
    text: str
    kind: str = "note"  # or warning, important: the class of the box in the book

    def _repr_html_(self) -> str:
        title = f'<p class="admonition-title">{escape(self.title)}</p>'
        return f'<div class="admonition {self.kind}">{title}<p>{escape(self.text)}</p></div>'


def data_notice(chapter: Chapter) -> Notice:
    """Say where the data of this run come from; what is simulated or invented is announced."""
    profile, dataset = chapter.profile, chapter.dataset
    whose = "" if chapter.subject is None else f" Subject {chapter.subject}."
    kind = "warning" if dataset.caution else "note"
    name = dataset.card().get("title", profile.dataset.name)
    title, text = dataset.caution or ("Data", f"{name}.")
    return Notice(title, f"{text} Profile {profile.name}.{whose}", kind)


def stop_chapter(chapter: Chapter, reason: str) -> None:
    """End a chapter that a data set cannot support: in a run the cells below do not run.

    ``reason`` is shown to the reader, and is the fact ``skipped`` of ``metrics.json``, so that a
    run goes on. In a notebook that somebody works in, the cells below still run when asked to.
    """
    from IPython import get_ipython
    from IPython.display import display

    chapter.finish(facts={"skipped": reason})
    shell = get_ipython()
    # Papermill begins the cell of the parameters that it puts in with this line.
    sources = shell.user_ns.get("In", []) if shell else []
    headless = any(source.startswith("# Parameters\n") for source in sources)
    below = "The cells below were not run." if headless else "The cells below lack their input."
    display(Notice("This chapter ends here", f"{reason} {below}", "important"))
    if headless:
        shell.input_transformers_post.append(lambda lines: [])
