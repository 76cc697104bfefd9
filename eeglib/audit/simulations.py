"""Small simulated recordings of known truth, which judge the audit itself (chapter 8)."""

import json
from pathlib import Path

import numpy as np
import pandas

from eeglib.audit.decoders import one_thread
from eeglib.audit.features import AuditTrials, audit_trials
from eeglib.datasets.montage import ACTICAP_128
from eeglib.datasets.simulated import Options
from eeglib.datasets.simulation import SimulatedSubject
from eeglib.preprocessing import filter_signals

N_CLASSES, IMAGES_PER_CLASS = 10, 40
N_CHANS, SFREQ, BAND = 64, 200, (14.0, 70.0)
# A drift of 1 is that of real EEG (``python -m benchmarks simulator``). The stimulus is chosen so
# that it can be seen; what it gives holds for one decoder only, others read more of it or less.
STIMULUS_STRENGTH, DRIFT_STRENGTH = 2.0, 1.0
BENCHMARK = Path(__file__).with_name("simulations.json")
CAUSES = {  # stimulus strength, drift strength
    "neither": (0.0, 0.0),
    "drift only": (0.0, DRIFT_STRENGTH),
    "stimulus only": (STIMULUS_STRENGTH, 0.0),
    "both": (STIMULUS_STRENGTH, DRIFT_STRENGTH),
}


@one_thread
def simulate_trials(
    stimulus_strength: float, drift_strength: float, design: str = "block", seed: int = 0
) -> tuple[AuditTrials, np.ndarray]:
    """Simulate one small subject, in memory: 10 classes of 40 images, 64 channels, 200 Hz.

    The ``design`` is "block" or "randomized". Noise, drift, responses and order follow from the
    seed and do not depend on the strengths. Gives the trials, and what drives the responses, shape
    (n_trials, 20): random class centres, and images around them.
    """
    size = {"n_classes": N_CLASSES, "classes_per_session": N_CLASSES, "sfreq": SFREQ}
    size |= {"images_per_class": IMAGES_PER_CLASS, "channels": ACTICAP_128[:N_CHANS]}
    causes = {"stimulus_strength": stimulus_strength, "drift_strength": drift_strength}
    settings = Options(design=design, seed=seed, **causes, **size)
    rng = np.random.default_rng([seed, 1])
    labels = np.repeat(np.arange(N_CLASSES), IMAGES_PER_CLASS)
    features = rng.standard_normal((N_CLASSES, 20))[labels]
    features += 0.7 * rng.standard_normal(features.shape)
    images = np.array([f"image{k:05d}" for k in range(len(labels))])
    subject = SimulatedSubject(settings, 1, pandas.DataFrame({"label": labels}), features)
    signal, n_times = subject.signals(0), round(settings.image_duration * SFREQ)
    filtered = filter_signals(signal.astype(float), SFREQ, notch=None, band=BAND)
    starts = np.round(subject.schedule["onset"].to_numpy() * SFREQ).astype(int)
    samples = starts[:, None] + np.arange(n_times)
    narrow, wide = (values[:, samples].swapaxes(0, 1).copy() for values in (filtered, signal))
    order = subject.schedule["stimulus"].to_numpy()
    metadata = subject.schedule.rename(columns={"onset": "time"})
    metadata = metadata.assign(order=range(len(order)), image=images[order], label=labels[order])
    return audit_trials(narrow, SFREQ, metadata, wide, BAND), features[order]


def benchmark_tables() -> tuple[dict[str, pandas.DataFrame], dict[str, str]]:
    """What ``python -m benchmarks audit --write`` found, and the command and date, by table."""
    found = json.loads(BENCHMARK.read_text(encoding="utf-8"))
    tables = {name: pandas.DataFrame(part["rows"]) for name, part in found.items()}
    return tables, {name: part["source"] for name, part in found.items()}
