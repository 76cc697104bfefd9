"""What each ingredient beyond the paper's recipe contributes to the student.

``python -m benchmarks ingredients --cache FOLDER`` trains the student on STFT images of simulated
recordings of the full protocol, randomised (40 classes of 50 images, 250 Hz), with no ingredient of
`eeglib.decoding.ingredients`, each alone, all, all without one, and all that clearly help alone. Every seed
is a recording, a split and a network of its own. Validation trials decide, by the log-loss of the
classes; the table gives its difference from the plain student on the same trials, with a 95%
interval of a bootstrap over trials, top-1 accuracy, and the expected calibration error before and
after a temperature, which is fitted on one half of the validation trials and measured on the other.
The choice is the smallest recipe that validation cannot tell from the best. The test trials are
used once, for the plain student and that choice. The sizes of the ingredients (how far a shift, how
much noise) were chosen before, on the validation trials of seed 0.

FOLDER keeps trials and predictions: an interrupted run goes on there. Empty it after a change of
the code.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from eeglib.decoding.calibration import expected_calibration_error, fit_temperature
from eeglib.decoding.splits import Split, split_by_image
from eeglib.decoding.teacher import softmax
from eeglib.profile import IngredientSettings, TeacherSettings, TrainingSettings

INGREDIENTS = {
    "time_shift": 2,
    "channel_dropout": 0.2,
    "noise": 0.5,
    "mixup": 0.2,
    "averaging": 0.98,
    "embedding": 1.0,
    "attention": True,
}
N_BOOTSTRAP = 2000


def main(arguments: list[str]) -> int:
    """Train, choose, print the tables and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks ingredients", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="folder for trials and results")
    parser.add_argument("--strength", type=float, default=4.0, help="of the simulated response")
    parser.add_argument("--images", type=int, default=50, help="of each of the 40 classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=50, help="of each student, at most")
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    data = [_trials(seed, options) for seed in options.seeds]
    print(
        f"validation, n {sum(len(d.split.validation) for d in data)} of {len(data)} seeds, "
        f"chance {1 / (data[0].labels.max() + 1):.3f}:"
    )
    recipes, found = _recipes(), {}
    for name, recipe in recipes.items():
        found[name] = _run(recipe, data, options)
        _print_row(name, found)
    plain = found["none"].loss
    helpful = [n for n in INGREDIENTS if _bounds(found[n].loss - plain)[1] < 0]
    if 1 < len(helpful) < len(INGREDIENTS):
        name = "those that help alone"
        recipes[name] = {n: INGREDIENTS[n] for n in helpful}
        found[name] = _run(recipes[name], data, options)
        _print_row(name, found)
    chosen = _choice(recipes, found)
    print(f"validation chooses {chosen}: {recipes[chosen]}; test trials, used once:")
    tested = {"none": _test(found["none"], data)}
    _print_row("none", tested)
    if chosen != "none":
        tested[chosen] = _test(found[chosen], data)
        _print_row(chosen, tested)
    closing = {
        "chosen": "+".join(recipes[chosen]) or "none",
        "validation_loss": f"{found[chosen].loss.mean():.3f}",
        "validation_loss_plain": f"{found['none'].loss.mean():.3f}",
        "test_top1": f"{tested[chosen].right.mean():.3f}",
        "test_top1_plain": f"{tested['none'].right.mean():.3f}",
        "calibration_error": f"{tested[chosen].before:.3f}/{tested[chosen].after:.3f}",
        "seconds": f"{sum(result.seconds for result in found.values()):.0f}",
    }
    print("ingredients " + " ".join(f"{key}={value}" for key, value in closing.items()))
    return 0


def _choice(recipes: dict[str, dict], found: dict[str, SimpleNamespace]) -> str:
    """The recipe with the fewest ingredients that validation cannot tell from the best."""
    best = min(found.values(), key=lambda result: result.loss.mean())
    as_good = [n for n in found if _bounds(found[n].loss - best.loss)[0] <= 0]
    return min(as_good, key=lambda name: (len(recipes[name]), found[name].loss.mean()))


def _recipes() -> dict[str, dict]:
    alone = {name: {name: value} for name, value in INGREDIENTS.items()}
    without = {
        f"all without {left_out}": {n: v for n, v in INGREDIENTS.items() if n != left_out}
        for left_out in INGREDIENTS
    }
    return {"none": {}} | alone | {"all": dict(INGREDIENTS)} | without


def _trials(seed: int, options) -> SimpleNamespace:
    """Images, labels, split and what a teacher says, of one recording."""
    file = options.cache / f"trials-{seed}-{options.strength:g}-{options.images}.npz"
    if not file.exists():
        found = _simulated(seed, options)
        with open(file.with_suffix(".part"), "wb") as whole:
            np.savez(whole, **found)
        file.with_suffix(".part").replace(file)
    with np.load(file, allow_pickle=False) as stored:
        values = {name: stored[name] for name in stored.files}
    split = Split(*(values.pop(part) for part in ("training", "validation", "test")))
    return SimpleNamespace(seed=seed, split=split, **values)


def _simulated(seed: int, options) -> dict[str, np.ndarray]:
    from benchmarks.decoding import _recording
    from eeglib.decoding.teacher import cls_tokens, fit_teacher, load_clip
    from eeglib.timefrequency import spectrograms

    folder = options.cache / f"recording-{seed}-{options.strength:g}-{options.images}"
    asked = argparse.Namespace(images=options.images, seed=seed)
    _, epochs, _ = _recording(folder, options.strength, asked)
    metadata = epochs.metadata
    split = split_by_image(metadata, 0.8, 0.1, 0.1, seed=seed)
    # Every image is shown once, so that the trials' split is that of the teacher's images.
    files = [next((folder / "stimuli").rglob(f"{name}.*")) for name in metadata["image"]]
    features = cls_tokens(load_clip("demo"), files)
    labels = metadata["label"].to_numpy()
    teacher = fit_teacher(
        features, labels, split.training, split.validation, TeacherSettings(), seed
    )
    images = spectrograms(epochs.get_data(copy=False), epochs.info["sfreq"])
    return {
        "images": images,
        "labels": labels,
        "logits": teacher.logits,
        "features": features,
        "training": split.training,
        "validation": split.validation,
        "test": split.test,
    }


def _predict(trials: SimpleNamespace, recipe: dict, options) -> dict[str, np.ndarray]:
    """Probabilities of validation and test trials by a student of a recipe."""
    asked = f"{trials.seed} {options.strength} {options.images} {options.epochs} {recipe}"
    file = options.cache / f"student-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npz"
    if not file.exists():
        np.savez(file, **_train(trials, recipe, options))
    with np.load(file, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _train(trials: SimpleNamespace, recipe: dict, options) -> dict[str, np.ndarray]:
    from eeglib.decoding.distillation import fit, predict, residual_network

    ingredients = IngredientSettings(**recipe)
    n_classes = int(trials.labels.max()) + 1
    build = residual_network(trials.images.shape[1:], n_classes, ingredients.attention)
    started = time.perf_counter()
    student = fit(
        build,
        trials.images,
        trials.labels,
        trials.split,
        TrainingSettings(max_epochs=options.epochs),
        trials.logits,
        trials.seed,
        progress=False,
        ingredients=ingredients,
        teacher_features=trials.features,
    )
    seconds = time.perf_counter() - started
    return {
        "validation": predict(student.network, trials.images[trials.split.validation]),
        "test": predict(student.network, trials.images[trials.split.test]),
        "seconds": np.array(seconds),
        "epochs": np.array(len(student.history)),
    }


def _run(recipe: dict, data: list, options) -> SimpleNamespace:
    """Students of a recipe, judged on the validation trials of all seeds."""
    students = [_predict(trials, recipe, options) for trials in data]
    result = _judge(
        [
            # Half of the trials calibrate the other half, and the other way round.
            (
                student["validation"][half::2],
                trials.labels[trials.split.validation][half::2],
                student["validation"][1 - half :: 2],
                trials.labels[trials.split.validation][1 - half :: 2],
            )
            for student, trials in zip(students, data, strict=True)
            for half in (0, 1)
        ]
    )
    result.seconds = sum(float(student["seconds"]) for student in students)
    result.epochs = [int(student["epochs"]) for student in students]
    result.students = students
    return result


def _test(result: SimpleNamespace, data: list) -> SimpleNamespace:
    """The same students on the test trials, calibrated by all validation trials."""
    tested = _judge(
        [
            (
                student["test"],
                trials.labels[trials.split.test],
                student["validation"],
                trials.labels[trials.split.validation],
            )
            for student, trials in zip(result.students, data, strict=True)
        ]
    )
    tested.seconds, tested.epochs = result.seconds, result.epochs
    return tested


def _judge(parts: list[tuple]) -> SimpleNamespace:
    """Scores of trials, before and after a temperature that other trials gave."""
    labels = np.concatenate([own for _, own, *_ in parts])
    before = np.concatenate([probabilities for probabilities, *_ in parts])
    after = np.concatenate(
        [
            softmax(np.log(np.maximum(probabilities, 1e-30)), fit_temperature(*others))
            for probabilities, _, *others in parts
        ]
    )
    return SimpleNamespace(
        loss=log_loss(before, labels),
        calibrated=log_loss(after, labels),
        right=(before.argmax(axis=1) == labels).astype(float),
        before=expected_calibration_error(before, labels),
        after=expected_calibration_error(after, labels),
    )


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Nats of every trial, shape (n_trials,)."""
    of_class = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(of_class, 1e-12))


def _print_row(name: str, found: dict[str, SimpleNamespace]) -> None:
    result, plain = found[name], found["none"]
    gain = "" if result is plain else f", change {_interval(result.loss - plain.loss)}"
    print(
        f"  {name:<27} log-loss {_interval(result.loss)}{gain}; top-1 {_interval(result.right)}; "
        f"calibration error {result.before:.3f} -> {result.after:.3f}, log-loss then "
        f"{result.calibrated.mean():.3f}; epochs {result.epochs}, {result.seconds:.0f} s",
        flush=True,
    )


def _interval(values: np.ndarray) -> str:
    low, high = _bounds(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _bounds(values: np.ndarray) -> np.ndarray:
    """95% interval of the mean by a bootstrap over trials."""
    rng = np.random.default_rng(0)
    draws = values[rng.integers(0, len(values), (N_BOOTSTRAP, len(values)))].mean(axis=1)
    return np.quantile(draws, [0.025, 0.975])
