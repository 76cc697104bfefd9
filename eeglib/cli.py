"""The command ``eeglib``: run the chapters, build the book, simulate or download recordings.

Whatever takes long to import is imported inside the commands, so that ``--help`` answers at once.
"""

from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Literal

import typer

import eeglib

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _option(help: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, help=help, **settings)


ProfileOption = Annotated[str, _option("A shipped profile (see `eeglib profiles`) or a .yml.")]
SubjectsOption = Annotated[str, _option("Subjects: all, 3, 1-4 or 1,3,7-9.")]
RunDirOption = Annotated[Path | None, _option("Folder of the results; else runs/<profile>.")]
JobsOption = Annotated[int, _option("Chapters that run at the same time.", min=1)]
GpusOption = Annotated[int | None, _option("GPUs to use; all if left out.", min=0)]
JobsPerGpuOption = Annotated[int | None, _option("Chapters on a GPU; else as fit.", min=1)]
ExecutorOption = Annotated[Literal["local", "slurm"], _option("Run here, or on Slurm.")]
KeepGoingOption = Annotated[bool, _option("If one fails, others go on.")]
DryRunOption = Annotated[bool, _option("Say what would run and why.", "--dry-run")]
ForceOption = Annotated[bool, _option("Run even if nothing has changed.", "--force")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: training.max_epochs=5."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"eeglib {eeglib.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Decode what a person sees from EEG: run every chapter of the course-book, headless."""


@app.command("run")
def run_command(
    profile: ProfileOption = "demo",
    subjects: SubjectsOption = "all",
    run_dir: RunDirOption = None,
    jobs: JobsOption = 1,
    gpus: GpusOption = None,
    jobs_per_gpu: JobsPerGpuOption = None,
    executor: ExecutorOption = "local",
    settings: SetOption = None,
    only: Annotated[str | None, _option("Chapters to run, with what they need: 05,06.")] = None,
    keep_going: KeepGoingOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
) -> None:
    """Run the chapters for every subject; what is up to date does not run again.

    Examples: eeglib run --profile demo --subjects 1-2

    eeglib run --profile paper --subjects all --jobs 4 --gpus 4 --keep-going

    Each chapter is a notebook. The executed ones stay in the run's folder, with their figures and
    a metrics.json: runs/demo/sub-01/05_distill_student/notebook.ipynb. If a chapter fails, the
    last lines say for whom, in which notebook and line, and the exit status is 1.
    """
    from eeglib.workflow.stages import select_stages

    chosen = select_stages(only.split(",")) if only else ()
    how = {"jobs": jobs, "gpus": gpus, "jobs_per_gpu": jobs_per_gpu, "executor": executor}
    how |= {"only": chosen, "keep_going": keep_going, "force": force}
    request = _request(_load(profile, settings), run_dir, subjects, **how)
    failures = _run(request, dry_run)
    following = f"eeglib {'status' if failures else 'book'} --run-dir {quote(str(request.run_dir))}"
    typer.echo(f"\nResults: {request.run_dir}\nNext: {following}")
    _end(failures)


@app.command("status")
def status_command(
    profile: Annotated[str | None, _option("Profile; else that of the run, or demo.")] = None,
    subjects: SubjectsOption = "all",
    run_dir: RunDirOption = None,
    settings: SetOption = None,
) -> None:
    """Show where a run stands: subjects x chapters, with time and memory. Runs nothing.

    Example: eeglib status --profile paper

    A chapter is done, skipped (nothing to do, such as no pictures), running, failed, stale (what
    it was computed from has changed since) or not yet run. The book has the same as a page.
    """
    from eeglib.workflow.status import describe_status, read_status

    own = run_dir / "profile.yml" if run_dir and not profile else None
    loaded = _load(str(own) if own and own.is_file() else profile or "demo", settings)
    request = _request(loaded, run_dir, subjects)
    typer.echo(f"{request.run_dir}\n\n{describe_status(read_status(request))}")


@app.command("audit")
def audit_command(
    profile: ProfileOption = "demo",
    subjects: SubjectsOption = "all",
    run_dir: RunDirOption = None,
    jobs: JobsOption = 1,
    gpus: GpusOption = None,
    jobs_per_gpu: JobsPerGpuOption = None,
    executor: ExecutorOption = "local",
    settings: SetOption = None,
    keep_going: KeepGoingOption = True,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
) -> None:
    """Ask whether accuracies come from the pictures or from the clock: chapter 8 for a data set.

    Example: eeglib audit --profile my_profile.yml

    Runs what chapter 8 needs and the chapter itself, prints the audit card and writes it to
    audit_card.md in the run's folder.
    """
    from eeglib.audit.card import read_cards, report
    from eeglib.chapter import open_chapter
    from eeglib.workflow.stages import select_stages

    name = "08_audit_confounds"
    how = {"jobs": jobs, "gpus": gpus, "jobs_per_gpu": jobs_per_gpu, "executor": executor}
    how |= {"only": select_stages([name]), "keep_going": keep_going, "force": force}
    request = _request(_load(profile, settings), run_dir, subjects, **how)
    failures = _run(request, dry_run)
    chapter = open_chapter("09_summarize_group", request.profile, request.run_dir)
    done = {s: found for s, found in chapter.results(name).items() if s in request.subjects}
    files = {s: chapter.input(name, "audit_trials.npz", s) for s in done}
    text = report(read_cards({s: found.facts["audit"] for s, found in done.items()}, files))
    place = request.run_dir / "audit_card.md"
    place.write_text(text, encoding="utf-8")
    typer.echo(f"\n{text}\n{place}")
    _end(failures)


@app.command("student-notebooks")
def student_notebooks_command(
    folder: Annotated[Path, typer.Argument(help="Where to write the copies.")],
) -> None:
    """Write the notebooks without their solutions, to hand out to a class.

    Example: eeglib student-notebooks for_my_class

    Each copy is the chapter with an empty cell in the place of every solution. A copy that is
    already there and differs, such as one with a student's answers, is never overwritten.
    """
    from eeglib.workflow.stages import site_folder
    from eeglib.workflow.student_notebooks import write_student_notebooks

    for path in write_student_notebooks(site_folder() / "notebooks", folder):
        typer.echo(path)


@app.command("book")
def book_command(
    profile: ProfileOption = "demo",
    run_dir: RunDirOption = None,
    slides: Annotated[bool, _option("Make slides of each chapter, too.", "--slides")] = False,
    settings: SetOption = None,
) -> None:
    """Build the HTML book from what ran, and print the path of its index.html.

    Example: eeglib book --profile demo --slides

    Nothing is executed: the pages show the notebooks that `eeglib run` left in the run's folder.
    Slides are written to `slides` in that folder, and the book has a page of links to them.
    """
    from eeglib.workflow.book import build_book

    run_dir = run_dir or Path("runs") / _load(profile, settings).name
    typer.echo(build_book(run_dir, slides=slides))


@app.command("simulate")
def simulate_command(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("simulated_eeg"),
    profile: ProfileOption = "demo",
    subjects: SubjectsOption = "1",
    settings: SetOption = None,
) -> None:
    """Write a simulated EEG recording as a BIDS data set.

    Example: eeglib simulate my_recording --subjects 1 --set stimulus_strength=2
    """
    from eeglib.datasets import DatasetError, open_dataset, simulated
    from eeglib.workflow.stages import parse_subjects

    loaded = _load(profile, [f"dataset.options.{setting}" for setting in settings or []])
    dataset = open_dataset(loaded.dataset, folder)
    if not dataset.simulated:
        raise DatasetError(f"The data of profile {loaded.name!r} are not simulated. Choose demo.")
    chosen = parse_subjects(subjects, loaded.dataset.subjects)
    typer.echo(simulated.simulate(folder, dataset.options, tuple(chosen)))


@app.command("download")
def download_command(
    name: Annotated[str, typer.Argument(help="eeg_imagenet, randomized_trials or things_eeg2.")],
    folder: Annotated[Path | None, typer.Argument(help="Place; else data/<name>.")] = None,
    subjects: SubjectsOption = "all",
    timeout: Annotated[float, _option("Seconds without a byte until it is given up.", min=1)] = 30,
) -> None:
    """Download a published data set, or say exactly how to get it by hand.

    Example: eeglib download things_eeg2 data/things_eeg2 --subjects 1

    A download that was interrupted goes on where it stopped when the command runs again. Files
    that no program may fetch are listed with their size, the places to look, and where to put
    them; if the chapters need one of these, the exit status is 2.
    """
    import warnings

    from eeglib.datasets import DatasetError
    from eeglib.datasets.download import fetch, files_of
    from eeglib.workflow.stages import parse_subjects

    offered = sorted({f.subject for f in files_of(name) if f.subject is not None})
    chosen = None if subjects == "all" else parse_subjects(subjects, range(1, 1000))
    if chosen and not set(chosen) <= set(offered):
        has = f"of subjects {', '.join(map(str, offered))}" if offered else "of all subjects in one"
        raise DatasetError(f"{name} has files {has}, got --subjects {subjects}.")
    folder = (folder or Path("data") / name).resolve()
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        paths = fetch(name, folder, chosen, timeout)
    following = f"Next: eeglib run --profile {name} --set dataset.root={folder}"
    for line in [*paths, *(note.message for note in notes), following]:
        typer.echo(line)


@app.command("live")
def live_command(
    stream: Annotated[str | None, _option("Name of the stream of signals, in LSL.")] = None,
    markers: Annotated[str | None, _option("Of its markers; else <stream>-markers.")] = None,
    replay: Annotated[bool, _option("Play a recording of the subject.", "--replay")] = False,
    profile: ProfileOption = "demo",
    subject: Annotated[int, _option("Whose student decodes.")] = 1,
    run_dir: RunDirOption = None,
    recording: Annotated[int, _option("Which one to replay.", min=1)] = 1,
    speed: Annotated[float, _option("Of the replay; true speed is 1.", min=0.1)] = 1,
    jitter: Annotated[float, _option("Error of its time stamps (s.d.), s.", min=0)] = 0,
    drop: Annotated[float, _option("Share of its samples that get lost.", min=0, max=0.9)] = 0,
    port: Annotated[int, _option("Of the page; 0: any that is free.")] = 8010,
    settings: SetOption = None,
) -> None:
    """Decode EEG while it comes, with the student of chapter 10.

    Example: eeglib live --profile demo --subject 1 --replay

    A page on this machine shows class, posterior and picture of each trial. Every decision goes,
    with its times, into live/decisions-*.jsonl in the folder of chapter 10. Ctrl-C ends it.
    """
    import os
    import time

    from PIL import Image

    from eeglib import live
    from eeglib.chapter import data_notice, open_chapter
    from eeglib.decoding.training import Decoder
    from eeglib.reconstruction import drawing

    if replay == bool(stream):
        raise live.LiveError("Give --stream NAME, or --replay to try it without an amplifier.")
    loaded = _load(profile, settings)
    run_dir = run_dir or Path("runs") / loaded.name
    chapter = open_chapter("10_close_the_loop", loaded, run_dir, subject)
    student = Decoder.load(chapter.input(chapter.name, "student.pt"))
    draw = loaded.reconstruction.model_dump(include={"steps", "guidance_scale", "size"})
    pipeline, shown = drawing.load_pipeline(loaded.reconstruction.model), {}
    page, names = live.Page(chapter.folder / "live", port), student.class_names
    page.update(title=f"Subject {subject}", class_names=names, state="Waiting for a trial.")
    if replay:
        live.use_loopback()
        stream, played = f"replay-{os.getpid()}", chapter.dataset.recordings(subject)
        if recording > len(played):
            raise live.LiveError(f"--recording takes 1 to {len(played)}, got {recording}.")
        raw, trials = played[recording - 1]
        marks = live.markers_of(trials, student.sfreq, student.preprocessing["epoch"][0])
        signals, how = raw.get_data(picks=student.ch_names), (speed, jitter, drop)
        live.replay(signals, student.sfreq, student.ch_names, marks, stream, *how)
        page.update(notice=data_notice(chapter).text)
        shown = chapter.dataset.stimuli().set_index("image")["file"]
    inlets = live.connect(stream, student.ch_names, student.sfreq, markers)

    def paint(decision: live.Decision) -> None:
        said, (word, _, image) = decision.said(names), decision.marker.partition("/")
        prompt = drawing.prompt(said, loaded.reconstruction.prompt)
        (picture,) = drawing.reconstruct(pipeline, [prompt], [causal.counts["decided"]], **draw)
        file = shown.get(image)
        page.update(drawn=picture, drawn_class=said, shown_class=word)
        page.update(shown=Image.open(file).convert("RGB") if file else None)

    causal, painter = live.CausalTrials(student.sfreq, **student.preprocessing), live.Painter(paint)
    path = page.folder / f"decisions-{time.strftime('%Y%m%dT%H%M%S')}.jsonl"
    typer.echo(f"{page.url} (Ctrl-C ends it)\n{path}")
    with open(path, "ab", buffering=0) as file, suppress(KeyboardInterrupt):
        for decision in live.decisions(inlets, causal, student, 5.0 if replay else float("inf")):
            decision.log(file)
            painter.ask(decision)
            delay = f"{1e3 * (decision.decided - decision.end):.0f} ms"
            facts = {"latency": delay, **causal.counts, "pictures left out": painter.n_left_out}
            about = {"marker": decision.marker.partition("/")[0], "facts": facts}
            about |= {"said": decision.said(names), "posterior": decision.posterior}
            page.update(state="Decoding.", **about)
    typer.echo(", ".join(f"{name}: {count}" for name, count in causal.counts.items()))


@app.command("profiles")
def profiles_command() -> None:
    """List the profiles that come with eeglib."""
    from eeglib.profile import load_profile, shipped_profiles

    for name in shipped_profiles():
        typer.echo(f"{name:12} {load_profile(name).title}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command; errors that eeglib itself raises are one message, exit status 2."""
    try:
        app(arguments)
    except Exception as error:
        # Its own errors say what came, what is allowed and what to do; others are bugs.
        if not type(error).__module__.startswith("eeglib."):
            raise
        typer.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from None


def _run(request: Any, dry_run: bool) -> list:
    from eeglib.workflow.run import run, stale_jobs

    if dry_run:
        stale = stale_jobs(request)
        for job, reason in stale.items():
            typer.echo(f"{job}: {reason}")
        typer.echo(f"{len(stale)} chapters would run in {request.run_dir}")
        raise typer.Exit
    try:
        return run(request, typer.echo)
    except KeyboardInterrupt:
        typer.echo("Interrupted. Finished chapters are kept; the same command goes on.", err=True)
        raise typer.Exit(130) from None


def _end(failures: list) -> None:
    if failures:
        typer.echo("\n".join(["\nFailed:", *map(str, failures)]), err=True)
        raise typer.Exit(1)


def _request(profile: Any, run_dir: Path | None, subjects: str, **options: Any) -> Any:
    from eeglib.workflow.run import Request
    from eeglib.workflow.stages import parse_subjects, site_folder

    return Request(
        profile=profile,
        run_dir=(run_dir or Path("runs") / profile.name).resolve(),
        subjects=parse_subjects(subjects, profile.dataset.subjects),
        notebooks=site_folder() / "notebooks",
        **options,
    )


def _load(profile: str, settings: list[str] | None) -> Any:
    import yaml

    from eeglib.profile import ProfileError, load_profile

    overrides = {}
    for setting in settings or []:
        key, _, value = setting.partition("=")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ProfileError(f"--set {key}: the value {value!r} is not valid YAML.") from None
        if not key.strip() or "=" not in setting:
            raise ProfileError(f"--set takes KEY=VALUE (training.max_epochs=5), got {setting!r}.")
    return load_profile(profile, overrides)
