"""What to run on what: a typed profile, read from YAML and checked before anything runs.

Values come, each overriding the one before, from the defaults below, from the profile's YAML file,
and from the command line (``--set training.max_epochs=5``). An unknown key is an error, because a
misspelt option that is silently ignored costs a night of computing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
OpenShare = Annotated[float, Field(gt=0, lt=1)]
ControlName = Literal["clock", "signals", "pictures", "comparisons", "share"]
SHIPPED = Path(__file__).parent / "profiles"
METHODS = Path(__file__).parent / "decoding" / "methods.csv"
METHOD_NAMES = tuple(line.partition(",")[0] for line in METHODS.read_text().splitlines()[1:])


class ProfileError(ValueError):
    """A profile that cannot be used; the message names the key, the value and the remedy."""


class Settings(BaseModel):
    """Base of every section: unknown keys and wrong types are errors, values are constant."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class DatasetSettings(Settings):
    """Which data set, which subjects, and the options of its own loader."""

    name: str = "simulated"  # module of eeglib.datasets that loads the data
    subjects: tuple[Count, ...] = Field((1, 2), min_length=1)  # by their numbers
    root: Path | None = None  # folder of the data; empty: inside the run's own folder
    options: dict[str, Any] = {}  # checked by the loader itself


class FilteringSettings(Settings):
    """Chapter 2. The paper: notch 49-51 Hz, second-order Butterworth 14-70 Hz, z-scores."""

    notch: tuple[Positive, Positive] | None = (49.0, 51.0)  # stop band, Hz
    band: tuple[Positive, Positive] | None = (14.0, 70.0)  # pass band, Hz
    order: Count = 2  # of both Butterworth filters
    standardize: bool = True  # zero mean and unit variance per channel
    epoch: tuple[float, float] = (0.0, 0.5)  # start and end after the onset of the image, s
    reject: Positive | None = None  # leave out trials above it, µV peak to peak; empty: none

    @field_validator("notch", "band", "epoch")
    @classmethod
    def _bounds_ascend(cls, bounds: tuple[float, float] | None) -> Any:
        if bounds is not None and bounds[0] >= bounds[1]:
            raise ValueError("the two must ascend")
        return bounds


class TimeFrequencySettings(Settings):
    """Chapter 3. The paper: windows of 40 ms moving by 20 ms; db4 wavelets beside them."""

    window: Positive = 0.04  # length of a window, s
    step: Positive = 0.02  # distance between windows, s
    wavelet: str = "db4"  # name of a PyWavelets wavelet


class SplitSettings(Settings):
    """Shares of the images (or runs, sessions) that train, validate, test; or authors' parts."""

    by: Literal["image", "run", "session"] = "image"  # what lies in one part as a whole
    published: bool = False  # the parts that come with the data; the shares then do not count
    training: OpenShare = 0.8  # share of the images that train
    validation: OpenShare = 0.1  # share that says when to stop
    test: OpenShare = 0.1  # share that is scored; the three sum to 1

    @model_validator(mode="after")
    def _sums_to_one(self) -> SplitSettings:
        if abs(self.training + self.validation + self.test - 1) > 1e-6:
            raise ValueError("training, validation and test must sum to 1")
        return self


class TeacherSettings(Settings):
    """Chapter 4. ``demo`` is the small CLIP model shipped here; the paper's kind is ViT-L-14."""

    model: str = "demo"  # open_clip model name, local folder, or demo
    weights: str | None = None  # open_clip weights' name, such as openai
    learning_rate: Positive = 1e-2  # of Adam
    max_epochs: Count = 300  # passes over the training images, at most
    patience: Count = 20  # epochs without a better validation loss


class TrainingSettings(Settings):
    """Chapter 5, sections 3.5 and 3.6 of the paper."""

    alpha: Share = 0.5  # weight of the class labels in the loss; eq. (1)
    temperature: Positive = 1.0  # of the soft targets; eq. (2)
    teacher_output: Literal["logits", "probabilities"] = "logits"  # what f_t of eq. (2) is
    learning_rate: Positive = 3e-4  # of Adam
    batch_size: Count = 64  # trials per step
    gradient_clip: Positive = 1.0  # largest norm of a gradient
    max_epochs: Count = 50  # passes over the training trials, at most
    patience: Count = 10  # epochs without a better validation loss
    seeds: tuple[int, ...] = Field((0,), min_length=1)  # a network is trained per seed
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one


class TeacherStudySettings(Settings):
    """Chapter 5: what the teacher adds; many short trainings of the same network."""

    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)  # networks per teacher
    max_epochs: Count | None = None  # of each; empty: as in training
    alphas: tuple[Share, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)  # weights of the labels to try
    temperatures: tuple[Positive, ...] = (0.5, 1.0, 2.0, 4.0)  # to try


class BaselineSettings(Settings):
    """Chapter 6: the methods of the table, `eeglib.decoding.methods.METHODS`; the paper's ten."""

    methods: tuple[Literal[METHOD_NAMES], ...] = Field(METHOD_NAMES[:10], min_length=1)  # in order


class ReconstructionSettings(Settings):
    """Chapter 7. ``demo`` is the small Stable Diffusion pipeline shipped here."""

    model: str = "demo"  # diffusers repository id, local folder, or demo
    prompt: str = "an image of a {class}"  # in which {class} is replaced by the class
    steps: Count = 25  # of denoising
    guidance_scale: float = Field(4.0, ge=0)  # strength of the prompt
    size: Count = 64  # height and width, pixels
    n_images: int = Field(8, ge=3)  # test trials to draw and measure per subject
    batch_size: Count = 4  # pictures drawn at a time
    scheduler: str | None = None  # class of diffusers; empty: the model's own


class PictureSettings(Settings):
    """How pictures are measured. ``demo-clip`` needs no download."""

    backbones: tuple[str, ...] = ("demo-clip",)  # of reconstruction.image_metrics.NETWORKS
    weights: Path | None = None  # folder of weight files; empty: download them when first needed
    n_way: int = Field(50, ge=2)  # classes to choose from, at most all; papers: 50
    batch_size: Count = 16  # pictures through a network at a time


class AuditSettings(Settings):
    """Chapter 8: groups of controls, the audited method, and what the refitted decoder sees."""

    controls: tuple[ControlName, ...] = get_args(ControlName)  # groups of them to ask
    decoder: Literal[METHOD_NAMES] | None = None  # of baselines.methods; empty: chapter 5's network
    features: Literal["covariance", "amplitude"] | None = None  # empty: amplitude, below 8 Hz


class EvaluationSettings(Settings):
    """Intervals by bootstrap."""

    n_bootstrap: Count = 2000  # samples
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95  # coverage of every interval


class ChapterResources(Settings):
    """What one chapter may use; Snakemake and a cluster's scheduler are told."""

    minutes: Positive = 60  # time limit of the whole chapter
    memory_mb: Count | None = None  # MB, that a cluster enforces; empty: as its chapter says
    gpus: Literal[0, 1] | None = None  # GPUs; empty: one where it trains or draws
    gpu_memory_mb: Count | None = None  # MB of the GPU; empty: as its chapter says
    cores: Count | None = None  # empty: all divided by `--jobs`, 2 on a cluster


class ClusterSettings(Settings):
    """What ``eeglib run --executor slurm`` tells the scheduler besides each chapter's needs."""

    account: str | None = None  # to charge; empty: none
    partition: str | None = None  # for its jobs; empty: the cluster's own
    gpu_partition: str | None = None  # of chapters that use a GPU; empty: as for the others
    options: str = ""  # further options of sbatch, such as `--constraint=a100`


class Profile(Settings):
    """Everything that a run of the book depends on."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")  # names the run's folder
    title: str = ""  # one line for the title of generated pages
    seed: int = Field(0, ge=0)  # of all that is random and has none of its own
    dataset: DatasetSettings = DatasetSettings()
    filtering: FilteringSettings = FilteringSettings()
    timefrequency: TimeFrequencySettings = TimeFrequencySettings()
    split: SplitSettings = SplitSettings()
    teacher: TeacherSettings = TeacherSettings()
    training: TrainingSettings = TrainingSettings()
    teacher_study: TeacherStudySettings = TeacherStudySettings()
    baselines: BaselineSettings = BaselineSettings()
    reconstruction: ReconstructionSettings = ReconstructionSettings()
    pictures: PictureSettings = PictureSettings()
    audit: AuditSettings = AuditSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    resources: dict[str, ChapterResources] = {}  # per chapter, such as 05_distill_student
    cluster: ClusterSettings = ClusterSettings()

    @model_validator(mode="after")
    def _audited_method_is_run(self) -> Any:
        if self.audit.decoder not in (None, *self.baselines.methods):
            text = f"audit.decoder is {self.audit.decoder}, which is not in baselines.methods"
            raise ValueError(f"{text}; add it there, or leave audit.decoder empty")
        return self


PATHS = ("dataset.root", "teacher.model", "teacher.weights", "reconstruction.model")
PATHS += ("pictures.weights",)  # settings that are, or may be, paths


def shipped_profiles() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yml"))


def load_profile(source: str | Path, overrides: dict[str, Any] | None = None) -> Profile:
    """Read and check a profile: a shipped one by name (``demo``), or a YAML file by path.

    Values of ``overrides`` win over the file's, by dotted key: ``{"training.max_epochs": 5}``.
    """
    path, named = Path(source), str(source).endswith((".yml", ".yaml"))
    path = path if named else SHIPPED / f"{source}.yml"
    if not path.is_file():
        text = f"No profile {'file' if named else 'named'} {str(source)!r}. Shipped profiles:"
        raise ProfileError(f"{text} {', '.join(shipped_profiles())}; or give a .yml file's path.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ProfileError(f"{path} must hold keys and values such as 'name: demo'.")
    content.setdefault("name", path.stem)
    for key, value in (overrides or {}).items():
        section, (*names, last) = content, key.split(".")
        for name in names:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ProfileError(f"{key} cannot be set: {name} is a value, not a section.")
        section[last] = value
    _complete_paths(content, overrides or {}, path.parent.resolve())
    try:
        return Profile(**content)
    except ValidationError as error:
        raise ProfileError(_explain(error, path)) from None


def _complete_paths(content: dict, overrides: Mapping[str, Any], folder: Path) -> None:
    """Let relative paths count from where they were written; names of models stay names."""
    for key in PATHS:
        section, name = key.split(".")
        values = content.get(section)
        value = values.get(name) if isinstance(values, dict) else None
        if not isinstance(value, str) or not value or value == "demo":
            continue
        # A shell leaves the ~ of --set dataset.root=~/data as it is.
        path = (Path.cwd() if key in overrides else folder) / Path(value).expanduser()
        if key in ("dataset.root", "pictures.weights") or value[0] in ".~" or path.exists():
            values[name] = str(path)


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"{path.name} is not a valid profile:"]
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "profile"
        text = item["msg"] + (f", got {item.get('input')!r}" if item["loc"] else "")
        if item["type"] == "extra_forbidden":
            section = item["loc"][0] if len(item["loc"]) > 1 else None
            model = Profile.model_fields[section].annotation if section else Profile
            model = ChapterResources if section == "resources" else model
            text = f"unknown key; allowed here: {', '.join(sorted(model.model_fields))}"
        lines.append(f"  {key}: {text}")
    return "\n".join(lines)
