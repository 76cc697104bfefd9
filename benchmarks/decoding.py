"""Decoders side by side on the same trials and splits.

``python -m benchmarks decoding`` compares our decoder, `eeglib.decoding.kernel_decoder`, with
pyRiemann's tangent-space classifiers, braindecode's networks and those methods of the book's table
that need no teacher, (a) on simulated recordings of the full protocol, randomised, at three
strengths of the response, with the ideal observer as the ceiling (`benchmarks._ideal_observer` says
what it ignores), and (b) with ``--uci FILE`` on real EEG, 16 subjects left out one by one.
Simulated trials are at 250 Hz instead of 1,000, which no method here minds after a 70 Hz filter.
All of it takes hours on two cores; ``--networks``, ``--riemann`` and ``--methods`` without names
leave those out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from eeglib.decoding.kernel_decoder import KernelDecoder
from eeglib.decoding.methods import METHODS, fit_predict
from eeglib.decoding.splits import Split, split_by_image
from eeglib.profile import FilteringSettings

NETWORKS = ("EEGNet", "ShallowFBCSPNet", "Deep4Net", "EEGConformer", "ATCNet")
RIEMANN = ("tangent space", "xDAWN + tangent space")
TABLE = ("lr_power", "lr_windowed", "lr_windowed_pca", "lstm", "conv1d", "cnn_stft")
STRENGTHS = (1.0, 2.0, 4.0)
BAND = (14.0, 70.0)
OURS = "kernel decoder"

EXTRA: dict[str, object] = {}
"""Other options of the simulation; tests make it small."""


def main(arguments: list[str]) -> int:
    """Compare, print the tables and the closing line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks decoding", description=__doc__)
    parser.add_argument("--uci", type=Path, help="uci_eeg_objects.npz; left out: simulated only")
    parser.add_argument("--strengths", type=float, nargs="*", default=STRENGTHS)
    parser.add_argument("--images", type=int, default=50, help="of each of the 40 classes")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--riemann", nargs="*", default=RIEMANN, choices=RIEMANN)
    parser.add_argument("--methods", nargs="*", default=TABLE, choices=TABLE, help="of our table")
    parser.add_argument("--epochs", type=int, default=50, help="of the networks, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="braindecode|sklearn|torch")
    closing: dict[str, object] = {}
    if options.strengths:
        closing |= _simulated(options)
    if options.uci:
        closing |= _uci(options)
    print("decoding " + " ".join(f"{key}={value}" for key, value in closing.items()))
    return 0


# --- the methods: (trials, sfreq, labels, split, n_classes) to probabilities of the test trials ---


def _ours(trials, sfreq, labels, split, n_classes):
    return KernelDecoder(trials, sfreq, band=BAND).fit_predict(labels, split, n_classes)


def _riemann(name: str) -> Callable:
    def decode(trials, sfreq, labels, split, n_classes):
        from pyriemann.estimation import Covariances, XdawnCovariances
        from pyriemann.tangentspace import TangentSpace
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        plain = name == "tangent space"
        # Filters are counted for each class: with many classes one of each is plenty.
        n_filters = 4 if n_classes <= 4 else 1
        covariances = Covariances("oas") if plain else XdawnCovariances(n_filters, estimator="oas")
        train = np.concatenate([split.training, split.validation])
        model = make_pipeline(covariances, TangentSpace(), LogisticRegression(max_iter=200))
        model.fit(trials[train].astype(np.float64), labels[train])
        return model.predict_proba(trials[split.test].astype(np.float64))

    return decode


def _network(name: str, epochs: int, seed: int) -> Callable:
    def decode(trials, sfreq, labels, split, n_classes):
        import braindecode.models

        from eeglib.decoding.training import fit, predict

        scale = trials[split.training].std(axis=(0, 2), keepdims=True)
        scaled = (trials / scale).astype(np.float32)
        shape = {"n_chans": trials.shape[1], "n_times": trials.shape[2], "n_outputs": n_classes}

        def build():
            return getattr(braindecode.models, name)(**shape, sfreq=sfreq)

        student = fit(
            build, scaled, labels, split, learning_rate=1e-3, max_epochs=epochs, seed=seed
        )
        return predict(student.network, scaled[split.test])

    return decode


def _of_table(name: str, options) -> Callable:
    def decode(trials, sfreq, labels, split, n_classes):
        return fit_predict(
            name,
            trials,
            labels,
            split,
            sfreq=sfreq,
            n_classes=n_classes,
            seeds=(options.seed,),
            training={"max_epochs": options.epochs},
        )

    return decode


def _peers(options) -> dict[str, Callable]:
    riemann = {name: _riemann(name) for name in options.riemann}
    return riemann | {n: _network(n, options.epochs, options.seed) for n in options.networks}


# --- (a) simulated --------------------------------------------------------------------------


def _simulated(options) -> dict[str, object]:
    from benchmarks._ideal_observer import posterior

    shares, best_peers = [], []
    for strength in options.strengths:
        with tempfile.TemporaryDirectory(prefix="eeglib-decoding-") as folder:
            raw, epochs, truth = _recording(Path(folder), strength, options)
        labels = epochs.metadata["label"].to_numpy()
        split = split_by_image(epochs.metadata, 0.8, 0.1, 0.1, seed=options.seed)
        trials, sfreq = epochs.get_data(copy=False), epochs.info["sfreq"]
        n_classes = int(labels.max()) + 1
        print(f"simulated, strength {strength:g}, {len(labels)} trials, chance {1 / n_classes}:")
        started = time.perf_counter()
        ideal = posterior(truth, raw[split.test], FilteringSettings(band=BAND))
        ceiling = _row("ideal observer", ideal, labels[split.test], started)
        methods = {OURS: _ours}
        for name in options.methods:
            methods[METHODS[name].title] = _of_table(name, options)
        accuracy = {}
        for name, decode in (methods | _peers(options)).items():
            started = time.perf_counter()
            probabilities = decode(trials, sfreq, labels, split, n_classes)
            accuracy[name] = _row(name, probabilities, labels[split.test], started)
        chance = 1 / n_classes
        shares.append((accuracy[OURS] - chance) / (ceiling - chance))
        text = f"  share of the way to the ceiling: {OURS} {shares[-1]:.3f}"
        if _peers(options):
            best = max(_peers(options), key=accuracy.get)
            best_peers.append((accuracy[best] - chance) / (ceiling - chance))
            text += f", {best} {best_peers[-1]:.3f}"
        print(text, flush=True)
    return {
        "sim_share_of_ceiling": "/".join(f"{s:.3f}" for s in shares),
        "sim_best_peer": "/".join(f"{s:.3f}" for s in best_peers),
    }


def _recording(folder: Path, strength: float, options):
    """One subject: trials filtered in volts, the same standardised, and what was put in."""
    from benchmarks._truth import truth_of
    from eeglib.datasets import simulated
    from eeglib.datasets.simulation import SimulatedSubject
    from eeglib.preprocessing import preprocess
    from eeglib.profile import DatasetSettings

    settings = DatasetSettings(
        name="simulated",
        subjects=(1,),
        options={
            "images_per_class": options.images,
            "design": "randomized",
            "sfreq": 250,
            "stimulus_strength": strength,
            "drift_strength": 1.0,
            "seed": options.seed,
            **EXTRA,
        },
    )
    loader = simulated.Loader(settings, folder)
    loader.prepare()
    volts = preprocess(loader, 1, band=BAND, standardize=False).epochs.get_data(copy=False)
    stimuli, features = simulated.draw_stimuli(folder, loader.options)
    truth = truth_of(SimulatedSubject(loader.options, 1, stimuli, features))
    return volts, preprocess(loader, 1, band=BAND).epochs, truth


def _row(name: str, probabilities: np.ndarray, labels: np.ndarray, started: float) -> float:
    from eeglib.evaluation import score

    table = score(probabilities / probabilities.sum(axis=1, keepdims=True), labels)
    top1 = table.set_index("metric").loc["top-1"]
    print(
        f"  {name:<34} {top1['value']:.3f} [{top1['low']:.3f}, {top1['high']:.3f}], n "
        f"{len(labels)}, {time.perf_counter() - started:6.1f} s",
        flush=True,
    )
    return float(top1["value"])


# --- (b) real EEG ---------------------------------------------------------------------------


def _uci(options) -> dict[str, object]:
    """Three conditions, each subject left out once; three others choose, the rest train.

    Means and scales of the subject left out are taken from its unlabelled trials by the kernel
    decoder, unless subjects are not told apart; the networks and pyRiemann are given trials
    standardised subject by subject as well.
    """
    with np.load(options.uci, allow_pickle=False) as stored:
        eeg = ~np.isin(stored["ch_names"], ("X", "Y", "nd"))
        trials, sfreq = stored["X"][:, eeg].astype(np.float64), float(stored["sfreq"])
        labels = np.unique(stored["cond"], return_inverse=True)[1]
        subjects = np.unique(stored["subject"], return_inverse=True)[1]
    trials -= trials[..., :15].mean(axis=-1, keepdims=True)
    trials -= trials.mean(axis=1, keepdims=True)
    decoder = KernelDecoder(trials, sfreq, subjects)
    standardized, rate = _for_peers(trials, subjects, sfreq)
    methods = {
        OURS: lambda split: decoder.fit_predict(labels, split, 3),
        f"{OURS}, subjects not told apart": lambda split: KernelDecoder(trials, sfreq).fit_predict(
            labels, split, 3
        ),
    }
    for name, decode in _peers(options).items():
        methods[name] = lambda split, decode=decode: decode(standardized, rate, labels, split, 3)
    print(f"real EEG, {len(labels)} trials, 3 conditions, chance 1/3, balanced accuracy:")
    accuracy = {}
    for name, decode in methods.items():
        started, probabilities = time.perf_counter(), np.empty((len(labels), 3))
        for subject in range(subjects.max() + 1):
            others = [(subject + step) % (subjects.max() + 1) for step in (1, 6, 11)]
            validation = np.isin(subjects, others)
            test = subjects == subject
            split = Split(*map(np.flatnonzero, (~(validation | test), validation, test)))
            probabilities[test] = decode(split)
        accuracy[name] = _balanced(probabilities.argmax(axis=1), labels, subjects, name, started)
    result = {"uci_balanced_accuracy": f"{accuracy[OURS]:.3f}"}
    if _peers(options):
        best = max(_peers(options), key=accuracy.get)
        result["uci_best_peer"] = f"{accuracy[best]:.3f} ({best})"
    return result


def _for_peers(trials, subjects, sfreq) -> tuple[np.ndarray, float]:
    """Below 20 Hz, at 128 Hz, each subject's channels of mean 0 and variance 1."""
    from scipy import signal

    slow = signal.sosfiltfilt(signal.butter(3, 20, fs=sfreq, output="sos"), trials)[..., ::2]
    for subject in np.unique(subjects):
        own = subjects == subject
        slow[own] -= slow[own].mean(axis=0)
        slow[own] /= slow[own].std(axis=(0, 2))[:, np.newaxis]
    return slow, sfreq / 2


def _balanced(named, labels, subjects, name: str, started: float) -> float:
    """Mean recall, with an interval that draws subjects."""
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(subjects == s) for s in np.unique(subjects)]
    draws = []
    for _ in range(1000):
        drawn = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        draws.append(balanced_accuracy_score(labels[drawn], named[drawn]))
    value = balanced_accuracy_score(labels, named)
    low, high = np.quantile(draws, [0.025, 0.975])
    print(
        f"  {name:<40} {value:.3f} [{low:.3f}, {high:.3f}], n {len(labels)}, "
        f"{time.perf_counter() - started:6.1f} s",
        flush=True,
    )
    return float(value)
