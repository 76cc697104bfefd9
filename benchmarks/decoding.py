"""Decoders side by side on the same trials and splits.

``python -m benchmarks decoding --data FOLDER`` compares the methods of the book's table with
pyRiemann's tangent space and braindecode's networks, in three parts:

- *phantom*: real EEG with invented labels, subject 1 of PhysioNet's EEGMMIDB, below whose folder
  ``MNE-eegbci-data`` lies; trials, split and teacher are those of the profile ``phantom``. Nobody
  saw these pictures: what is read is the clock.
- *uci*: real EEG of pictures, three conditions, 16 subjects left out one by one; where FOLDER
  holds ``uci_eeg_objects.npz``.
- *simulated*: a recording of the full protocol in random order, with the ideal observer as the
  ceiling (`benchmarks._ideal_observer` says what it ignores). Trials are at 250 Hz instead of
  1,000, which no method here minds after a 70 Hz filter.

Whatever must be chosen is chosen on validation trials: penalties, epochs, the peers' learning rate.
Predictions of several seeds are averaged, as in chapter 6; the mean of the single networks stands
beside it. All of it takes hours on two cores: ``--parts``, ``--rows``, ``--networks``,
``--riemann``, ``--seeds`` and ``--epochs`` restrict it, and with ``--write`` what has been computed
is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.methods import METHODS, fit_predict
from eeglib.decoding.splits import Split, split_by_image
from eeglib.evaluation import bootstrap_interval, paired_difference, score
from eeglib.profile import DatasetSettings, FilteringSettings, Profile, load_profile

PARTS = ("phantom", "uci", "simulated")
NETWORKS = ("EEGNet", "ShallowFBCSPNet", "Deep4Net", "EEGConformer", "ATCNet")
RIEMANN = ("tangent space", "xDAWN + tangent space")
LEARNING_RATES = (1e-3, 3e-4)
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)
SFREQ = 250.0
"""Hz that braindecode's networks were made for; some take no trial of 80 points."""
STUDENT, IDEAL = "distillation_stft", "ideal observer"
FILTER = FilteringSettings()
CURVE, N_DRAWS = (3, 6, 9, 12, 15), 2
"""Numbers of subjects of the learning curve, and how often each is drawn."""

EXTRA: dict[str, object] = {}
"""Other options of the data; tests make them small."""


def main(arguments: list[str]) -> int:
    """Compare, print the tables and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decoding", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, help="folder with the recordings; left out: simulated only")
    add("--parts", nargs="+", default=PARTS, choices=PARTS)
    add("--rows", nargs="*", default=tuple(METHODS), choices=METHODS, help="of the book's table")
    add("--networks", nargs="*", default=NETWORKS, choices=NETWORKS, help="of braindecode")
    add("--riemann", nargs="*", default=RIEMANN, choices=RIEMANN, help="of pyRiemann")
    add("--seeds", type=int, nargs="+", default=(0, 1, 2), help="of our methods")
    add("--peer-seeds", type=int, nargs="+", default=(0,), help="of braindecode's networks")
    add("--epochs", type=int, default=50, help="of all networks, at most")
    add("--strength", type=float, default=2.0, help="of the simulated response")
    add("--images", type=int, default=50, help="of each of the 40 simulated classes")
    add("--learning-curve", action="store_true", help="of the kernel decoder, on uci")
    add("--pooled", action="store_true", help="kernel decoder on uci without subjects, too")
    add("--write", type=Path, help="folder for the results, and to go on from")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="braindecode|sklearn|torch|mne")
    keys = ("phantom_student_top1", "phantom_best", "phantom_best_peer", "uci", "uci_best_peer")
    closing = dict.fromkeys(keys, "not_run")
    with tempfile.TemporaryDirectory(prefix="eeglib-decoding-") as scratch:
        results = Results(options.write or Path(scratch))
        for part in options.parts:
            compare = {"phantom": _phantom, "uci": _uci, "simulated": _simulated}[part]
            closing |= compare(options, results, Path(scratch))
    print("decoding " + " ".join(f"{key}={value}" for key, value in closing.items()))
    return 0


class Trials(NamedTuple):
    """Trials of one subject, and what methods may know of them."""

    data: np.ndarray
    labels: np.ndarray
    sfreq: float
    n_classes: int
    options: dict[str, Any]  # further keywords of `fit_predict`


class Result(NamedTuple):
    probabilities: np.ndarray
    seconds: float
    chosen: str  # on validation trials


class Results:
    """Predictions as they come, in a folder that a run which was cut off can go on from."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, labels, part: str, method: str, seed: int, size: str, compute) -> Result:
        """Read the result, or compute and keep it; labels are those of the predicted trials."""
        name = re.sub(r"\W+", "_", f"{part} {method} {seed} {size}")
        file = self.folder / f"{name}.npz"
        if not file.is_file():
            started = time.perf_counter()
            probabilities, chosen = compute()
            seconds = time.perf_counter() - started
            np.savez(file, probabilities=probabilities, seconds=seconds, chosen=chosen)
            accuracy = (probabilities.argmax(axis=1) == labels).mean()
            row = (part, method, seed, size, chosen, f"{accuracy:.4f}", len(labels))
            with (self.folder / "decoding.csv").open("a", newline="", encoding="utf-8") as table:
                csv.writer(table).writerow((*row, f"{seconds:.1f}"))
            print(
                f"  .. {method}, seed {seed}: {accuracy:.3f}, {seconds:.0f} s {chosen}", flush=True
            )
        with np.load(file) as stored:
            return Result(*(stored[field][()] for field in Result._fields))


# --- the methods: to probabilities of the test trials, and what validation chose --------------


def _row(name: str, trials: Trials, split: Split, seed: int, epochs: int):
    options = trials.options | {"training": trials.options["training"] | {"max_epochs": epochs}}
    return fit_predict(
        name,
        trials.data,
        trials.labels,
        split,
        sfreq=trials.sfreq,
        n_classes=trials.n_classes,
        seeds=(seed,),
        **options,
    ), ""


def _riemann(name: str, data, labels, split: Split):
    """OAS covariances; fitted again on training and validation, as the kernel decoder is."""
    from pyriemann.estimation import Covariances, XdawnCovariances
    from pyriemann.tangentspace import TangentSpace
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline

    data, classes = data.astype(np.float64), np.unique(labels)
    # xDAWN's filters are counted for each class: with many classes one of each is plenty.
    estimate = Covariances("oas")
    if name != RIEMANN[0]:
        estimate = XdawnCovariances(4 if len(classes) <= 4 else 1, estimator="oas")

    def fit(train, penalties):
        features = make_pipeline(estimate, TangentSpace()).fit(data[train], labels[train])
        inputs = features.transform(data[train])
        models = [
            LogisticRegression(C=c, max_iter=200).fit(inputs, labels[train]) for c in penalties
        ]
        return lambda rows: [m.predict_proba(features.transform(data[rows])) for m in models]

    validation = fit(split.training, PENALTIES)(split.validation)
    losses = [log_loss(labels[split.validation], p, labels=classes) for p in validation]
    chosen = PENALTIES[int(np.argmin(losses))]
    both = np.concatenate([split.training, split.validation])
    return fit(both, (chosen,))(split.test)[0], f"C {chosen:g}"


def _network(name: str, data, sfreq, labels, split: Split, n_classes: int, seed: int, epochs: int):
    import braindecode.models
    from scipy import signal

    from eeglib.decoding.training import fit, predict

    if sfreq < SFREQ:
        data = signal.resample_poly(data, round(SFREQ), round(sfreq), axis=-1, padtype="line")
        sfreq = SFREQ
    data = (data / data[split.training].std(axis=(0, 2), keepdims=True)).astype(np.float32)
    shape = {"n_chans": data.shape[1], "n_times": data.shape[2], "n_outputs": n_classes}

    def build():
        return getattr(braindecode.models, name)(**shape, sfreq=sfreq)

    trained = {
        rate: fit(build, data, labels, split, learning_rate=rate, max_epochs=epochs, seed=seed)
        for rate in LEARNING_RATES
    }
    best = min(trained, key=lambda rate: trained[rate].history["validation_loss"].min())
    return predict(trained[best].network, data[split.test]), f"learning rate {best:g}"


def _compared(part: str, rows, trials: Trials, split: Split, options, results: Results):
    """Results of our rows and of the peers, each a list with one result a seed."""
    size, labels = f"{options.epochs} epochs", trials.labels

    def of(name: str, seeds, size, decode: Callable) -> list[Result]:
        return [
            results.of(labels[split.test], part, name, s, size, lambda s=s: decode(s))
            for s in seeds
        ]

    ours = {
        name: of(
            name,
            options.seeds if METHODS[name].seeded else options.seeds[:1],
            size,
            lambda seed, name=name: _row(name, trials, split, seed, options.epochs),
        )
        for name in rows
    }
    peers = {
        name: of(name, (0,), "", lambda _, name=name: _riemann(name, trials.data, labels, split))
        for name in options.riemann
    }
    for name in options.networks:
        peers[name] = of(
            name,
            options.peer_seeds,
            size,
            lambda seed, name=name: _network(
                name,
                trials.data,
                trials.sfreq,
                labels,
                split,
                trials.n_classes,
                seed,
                options.epochs,
            ),
        )
    return ours, peers


def _table(
    title: str, found: dict[str, list[Result]], labels: np.ndarray, ours
) -> dict[str, float]:
    """Print a line for each method, and paired tests of our best against each peer."""
    print(
        f"\n{title}, n {len(labels)}, top-1 [95% interval], top-5, single networks, seconds each:"
    )
    together, accuracy = {}, {}
    for name, seeds in found.items():
        together[name] = np.mean([_rows_sum_to_one(r.probabilities) for r in seeds], axis=0)
        table = score(together[name], labels).set_index("metric")
        top1, accuracy[name] = table.loc["top-1"], float(table.loc["top-1", "value"])
        top5 = f"{table.loc['top-5', 'value']:.3f}" if "top-5" in table.index else "     "
        single = [(r.probabilities.argmax(axis=1) == labels).mean() for r in seeds]
        print(
            f"  {_title(name):<40} {accuracy[name]:.3f} [{top1['low']:.3f}, {top1['high']:.3f}] "
            f"{top5}  {np.mean(single):.3f} (of {len(seeds)})  "
            f"{np.mean([r.seconds for r in seeds]):7.1f} s  {seeds[0].chosen}"
        )
    if our_best := max((n for n in found if n in ours), key=accuracy.get, default=None):
        for name in found:
            if name not in METHODS and name != IDEAL:
                pair = paired_difference(together[our_best], together[name], labels)
                print(
                    f"  {_title(our_best)} minus {name}: {pair['difference']:+.3f} "
                    f"[{pair['low']:+.3f}, {pair['high']:+.3f}], p {pair['p_value']:.4f}"
                )
    print(flush=True)
    return accuracy


def _title(name: str) -> str:
    return METHODS[name].title if name in METHODS else name


def _rows_sum_to_one(probabilities: np.ndarray) -> np.ndarray:
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def _best(accuracy: dict[str, float], names) -> str:
    best = max((n for n in names if n in accuracy), key=accuracy.get, default=None)
    return f"{accuracy[best]:.3f}({best.replace(' ', '_')})" if best else "not_run"


# --- real EEG with invented labels ------------------------------------------------------------


def _phantom(options, results: Results, scratch: Path) -> dict[str, object]:
    from eeglib.datasets import open_dataset
    from eeglib.decoding import teacher
    from eeglib.preprocessing import preprocess

    found = options.data and next(options.data.rglob("MNE-eegbci-data"), None)
    if not found:
        print("phantom: left out, --data holds no folder MNE-eegbci-data", flush=True)
        return {}
    settings = {"subjects": [1], "root": str(found.parent.resolve()), "options": EXTRA}
    profile = load_profile("phantom", {f"dataset.{key}": value for key, value in settings.items()})
    dataset = open_dataset(profile.dataset, scratch)
    epochs = preprocess(dataset, 1, **profile.filtering.model_dump()).epochs
    shares = profile.split.model_dump(include={"training", "validation", "test"})
    split = split_by_image(epochs.metadata, **shares, seed=profile.seed)  # it has all images
    keywords = _keywords(profile)
    if any(METHODS[name].needs_teacher for name in options.rows):
        stimuli = dataset.stimuli()
        clip = teacher.load_clip(profile.teacher.model, profile.teacher.weights)
        features, labels = teacher.cls_tokens(clip, stimuli["file"]), stimuli["label"].to_numpy()
        model = teacher.fit_teacher(
            features,
            labels,
            split_by_image(stimuli, **shares, seed=profile.seed),
            seed=profile.seed,
            **profile.teacher.model_dump(exclude={"model", "weights"}),
        )
        seen = model._replace(images=stimuli["image"].to_numpy()).of_trials(epochs.metadata)
        logits = seen.outputs(profile.training.teacher_output)
        keywords |= {"teacher_logits": logits, "teacher_features": seen.features}
    trials = _trials(epochs, len(dataset.class_names), keywords)
    ours, peers = _compared("phantom", options.rows, trials, split, options, results)
    title = f"real EEG, invented labels, chance {1 / trials.n_classes:g}"
    accuracy = _table(title, ours | peers, trials.labels[split.test], ours)
    return {
        "phantom_student_top1": f"{accuracy[STUDENT]:.3f}" if STUDENT in ours else "not_run",
        "phantom_best": _best(accuracy, ours),
        "phantom_best_peer": _best(accuracy, peers),
    }


def _keywords(profile: Profile) -> dict[str, Any]:
    """Keywords of `fit_predict`, as chapter 6 gives them."""
    return {
        "training": profile.training.model_dump(exclude={"seeds", "teacher_output"}),
        "band": profile.filtering.band,
        **profile.timefrequency.model_dump(),
    }


def _trials(epochs, n_classes: int, keywords: dict[str, Any]) -> Trials:
    labels = epochs.metadata["label"].to_numpy()
    return Trials(epochs.get_data(copy=False), labels, epochs.info["sfreq"], n_classes, keywords)


# --- simulated --------------------------------------------------------------------------------


def _simulated(options, results: Results, scratch: Path) -> dict[str, object]:
    from benchmarks._ideal_observer import posterior

    raw, epochs, truth = _recording(scratch, options)
    profile = load_profile("paper")
    n_classes = int(epochs.metadata["label"].max()) + 1
    trials = _trials(epochs, n_classes, _keywords(profile))
    split = split_by_image(epochs.metadata, 0.8, 0.1, 0.1, seed=0)
    labels, part = trials.labels[split.test], f"simulated {options.strength:g} {options.images}"
    ideal = results.of(
        labels, part, IDEAL, 0, "", lambda: (posterior(truth, raw[split.test], FILTER), "")
    )
    rows = [name for name in options.rows if not METHODS[name].needs_teacher]
    ours, peers = _compared(part, rows, trials, split, options, results)
    title = f"simulated, strength {options.strength:g}, chance {1 / n_classes:g}"
    accuracy = _table(title, {IDEAL: [ideal]} | ours | peers, labels, ours)
    for name in (*ours, *peers):
        share = (accuracy[name] - 1 / n_classes) / (accuracy[IDEAL] - 1 / n_classes)
        print(f"  share of the way from chance to the ceiling: {share:6.3f} {_title(name)}")
    return {}


def _recording(folder: Path, options):
    """One subject: trials filtered in volts, the same standardised, and what was put in."""
    from benchmarks._truth import truth_of
    from eeglib.datasets import simulated
    from eeglib.datasets.simulation import SimulatedSubject
    from eeglib.preprocessing import preprocess

    settings = DatasetSettings(
        name="simulated",
        subjects=(1,),
        options={
            "images_per_class": options.images,
            "design": "randomized",
            "sfreq": 250,
            "stimulus_strength": options.strength,
            "drift_strength": 0.0,  # the ideal observer is one of stationary noise
            "seed": 0,
            **EXTRA,
        },
    )
    loader = simulated.Loader(settings, folder)
    loader.prepare()
    volts = preprocess(loader, 1, standardize=False).epochs.get_data(copy=False)
    stimuli, features = simulated.draw_stimuli(folder, loader.options)
    truth = truth_of(SimulatedSubject(loader.options, 1, stimuli, features))
    return volts, preprocess(loader, 1).epochs, truth


# --- real EEG of pictures, other people's -----------------------------------------------------


def _uci(options, results: Results, scratch: Path) -> dict[str, object]:
    """Three conditions, each subject left out once; three others choose, the rest train.

    Means and scales of the subject left out are taken from its unlabelled trials by the kernel
    decoder, unless subjects are not told apart; the peers are given trials standardised subject by
    subject as well, below 20 Hz.
    """
    file = options.data and next(options.data.rglob("uci_eeg_objects.npz"), None)
    if not file:
        print("uci: left out, --data holds no uci_eeg_objects.npz", flush=True)
        return {}
    data, sfreq, labels, subjects = uci_trials(file)
    standardized, rate = _for_peers(data, subjects, sfreq)
    decoder, apart = KernelDecoder(data, sfreq, subjects), "kernel decoder"
    ours = {apart: decoder}
    if options.pooled:
        ours[f"{apart}, subjects not told apart"] = KernelDecoder(data, sfreq)
    methods: dict[str, tuple[Callable, int]] = {
        name: (lambda split, d=d: (d.fit_predict(labels, split, 3), ""), 0)
        for name, d in ours.items()
    }
    for name in options.riemann:
        methods[name] = (lambda split, n=name: _riemann(n, standardized, labels, split)), 0
    for name in options.networks:
        methods[name] = (
            (
                lambda split, n=name: _network(
                    n, standardized, rate, labels, split, 3, options.peer_seeds[0], options.epochs
                )
            ),
            options.peer_seeds[0],
        )
    hits, accuracy = {}, {}
    for name, (decode, seed) in methods.items():
        size = f"{options.epochs} epochs" if name in options.networks else ""
        result = results.of(
            labels, "uci", name, seed, size, lambda d=decode: _left_out(d, labels, subjects)
        )
        hits[name] = (result.probabilities.argmax(axis=1) == labels).astype(float)
    print(f"\nreal EEG, n {len(labels)}, chance 0.333, balanced accuracy [95% interval]:")
    for name in methods:
        accuracy[name], low, high, _ = _balanced(labels, subjects, hits[name])
        print(f"  {name:<40} {accuracy[name]:.3f} [{low:.3f}, {high:.3f}]")
    for name in list(methods)[1:]:
        value, low, high, p = _balanced(labels, subjects, hits[apart] - hits[name])
        print(f"  {apart} minus {name}: {value:+.3f} [{low:+.3f}, {high:+.3f}], p {p:.4f}")
    if options.learning_curve:
        _learning_curve(decoder, labels, subjects, results)
    peers = (*options.riemann, *options.networks)
    return {"uci": f"{accuracy[apart]:.3f}", "uci_best_peer": _best(accuracy, peers)}


def uci_trials(file: Path) -> tuple[np.ndarray, float, np.ndarray, np.ndarray]:
    """Trials minus their first 15 samples and the mean of all channels; rate, labels, subjects."""
    with np.load(file, allow_pickle=False) as stored:
        eeg = ~np.isin(stored["ch_names"], ("X", "Y", "nd"))
        data, sfreq = stored["X"][:, eeg].astype(np.float64), float(stored["sfreq"])
        labels = np.unique(stored["cond"], return_inverse=True)[1]
        subjects = np.unique(stored["subject"], return_inverse=True)[1]
    data -= data[..., :15].mean(axis=-1, keepdims=True)
    return data - data.mean(axis=1, keepdims=True), sfreq, labels, subjects


def _left_out(decode: Callable, labels, subjects, n_others: int | None = None, seed: int = 0):
    """Probabilities of each subject's trials by others; a fifth of these choose, the rest train.

    Without `n_others` all do, and the three that choose are always the same for a subject.
    """
    n_subjects = subjects.max() + 1
    probabilities = np.empty((len(labels), labels.max() + 1))
    for subject in range(n_subjects):
        others = (
            subject + np.array([1, 6, 11, *{*range(1, n_subjects)} - {1, 6, 11}])
        ) % n_subjects
        if n_others is not None:
            others = np.random.default_rng([seed, subject]).permutation(others)[:n_others]
        n_choosing = max(1, len(others) // 5)
        parts = others[n_choosing:], others[:n_choosing], [subject]
        split = Split(*(np.flatnonzero(np.isin(subjects, part)) for part in parts))
        probabilities[split.test] = decode(split)[0]
    return probabilities, ""


def _for_peers(data, subjects, sfreq) -> tuple[np.ndarray, float]:
    """Below 20 Hz, at 128 Hz, each subject's channels of mean 0 and variance 1."""
    from scipy import signal

    slow = signal.sosfiltfilt(signal.butter(3, 20, fs=sfreq, output="sos"), data)[..., ::2]
    for subject in np.unique(subjects):
        own = subjects == subject
        slow[own] -= slow[own].mean(axis=0)
        slow[own] /= slow[own].std(axis=(0, 2))[:, np.newaxis]
    return slow, sfreq / 2


def _balanced(labels, subjects, hits: np.ndarray) -> tuple[float, float, float, float]:
    """Mean recall of hits, or of a difference of hits; its interval draws subjects; t-test's p."""
    one_hot = np.eye(labels.max() + 1)[labels]
    of_subject = (np.arange(subjects.max() + 1)[:, np.newaxis] == subjects).astype(float)
    n_trials, n_hits = of_subject @ one_hot, of_subject @ (one_hot * hits[:, np.newaxis])

    def recall(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        return (n_hits[rows].sum(axis=-2) / n_trials[rows].sum(axis=-2)).mean(axis=-1)

    with np.errstate(invalid="ignore"):  # who has no trial of a class says nothing of it
        own = np.nanmean(n_hits / n_trials, axis=1)
    p_value = np.nan_to_num(stats.ttest_1samp(own, 0).pvalue, nan=1.0)  # no difference at all
    return *map(float, bootstrap_interval(recall, len(of_subject))), float(p_value)


def _learning_curve(decoder: KernelDecoder, labels, subjects, results: Results) -> None:
    """Accuracy against the number of other subjects, and two curves through it."""
    print("learning curve: balanced accuracy with some of the other subjects, drawn at random:")
    values = []
    for n_others in CURVE:
        hits = []
        for seed in range(N_DRAWS):
            result = results.of(
                labels,
                "uci",
                f"kernel decoder, {n_others} subjects",
                seed,
                "",
                lambda n=n_others, s=seed: _left_out(
                    lambda split: (decoder.fit_predict(labels, split, 3), ""),
                    labels,
                    subjects,
                    n,
                    s,
                ),
            )
            hits.append(result.probabilities.argmax(axis=1) == labels)
        value, low, high, _ = _balanced(labels, subjects, np.mean(hits, axis=0))
        values.append(value)
        print(f"  {n_others:>3} subjects {value:.3f} [{low:.3f}, {high:.3f}], {N_DRAWS} draws")
    for title, power in (("1 / n", -1.0), ("1 / sqrt(n)", -0.5)):
        slope, limit = np.polyfit(np.array(CURVE) ** power, values, 1)
        at = ", ".join(f"{limit + slope * n**power:.3f} at {n}" for n in (30, 100))
        print(f"  if what is missing falls as {title}: {at}, {limit:.3f} in the end", flush=True)
