"""The simulated recording: what is put in comes out, and nothing else does."""

import json
import os
import tempfile
import time
from pathlib import Path

import mne
import mne_bids
import numpy as np
import pandas
import pytest
from scipy import signal, stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import simulator
from benchmarks._truth import autocorrelation, truth_of
from eeglib.datasets import METADATA, DatasetError, open_dataset
from eeglib.datasets import simulation as model
from eeglib.datasets.bids_writer import write_recording
from eeglib.datasets.montage import ACTICAP_128, montage_1005
from eeglib.datasets.simulated import Options, draw_stimuli, simulate
from eeglib.datasets.simulation import (
    OCCIPITAL,
    TEMPORAL,
    SimulatedSubject,
    build_head,
    draw_schedule,
    similarity_scores,
)
from eeglib.datasets.stimuli import each
from eeglib.profile import DatasetSettings

CHANNELS = ("Fp1", "Fp2", "Fz", "Cz", "T7", "T8", "P7", "P8", "Pz", "PO7", "PO8", "O1", "Oz", "O2")
SMALL = {
    "n_classes": 5,
    "images_per_class": 40,
    "classes_per_session": 5,
    "sfreq": 250,
    "channels": CHANNELS,
    "pause": 4.0,
    "seed": 3,
}


def subject_of(**changes) -> SimulatedSubject:
    """One simulated subject whose pictures are random vectors with class structure."""
    options = Options(**(SMALL | changes))
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(options.n_classes), options.images_per_class)
    features = rng.standard_normal((options.n_classes, 30))[labels]
    features = features + rng.standard_normal(features.shape)
    stimuli = pandas.DataFrame({"image": [f"i{i}" for i in range(len(labels))], "label": labels})
    return SimulatedSubject(options, 1, stimuli, features)


def filtered_trials(subject: SimulatedSubject) -> tuple[np.ndarray, np.ndarray]:
    """Trials after the paper's band-pass, and their labels."""
    sfreq, data, labels = subject.options.sfreq, [], []
    bands = [
        signal.butter(2, (49, 51), "bandstop", fs=sfreq, output="sos"),
        signal.butter(2, (14, 70), "bandpass", fs=sfreq, output="sos"),
    ]
    for session in range(subject.n_sessions):
        recording = subject.signals(session)
        for sos in bands:
            recording = signal.sosfiltfilt(sos, recording)
        for trial in subject.trials(session).itertuples():
            start = round(trial.onset * sfreq)
            data.append(recording[:, start : start + sfreq // 2])
            labels.append(subject.stimuli["label"][trial.stimulus])
    return np.array(data), np.array(labels)


def correct_by_power(trials: np.ndarray, labels: np.ndarray) -> int:
    power = np.log((trials**2).mean(axis=-1))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.3, max_iter=500))
    return correct(model, power, labels)


def correct_by_mean(trials: np.ndarray, labels: np.ndarray) -> int:
    bins = trials[..., :120].reshape(*trials.shape[:2], -1, 4).mean(axis=-1)
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return correct(model, bins.reshape(len(bins), -1) * 1e6, labels)


def correct(model, features: np.ndarray, labels: np.ndarray) -> int:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return int((cross_val_predict(model, features, labels, cv=folds) == labels).sum())


def at_chance(n_correct: int, labels: np.ndarray) -> bool:
    """Whether guessing gives so many right answers in all but one of a thousand cases."""
    chance = 1 / len(np.unique(labels))
    return stats.binom.sf(n_correct - 1, len(labels), chance) > 1e-3


# --- the four worlds ------------------------------------------------------------------------


def test_nothing_put_in_nothing_found():
    trials, labels = filtered_trials(subject_of(stimulus_strength=0, drift_strength=0))
    assert at_chance(correct_by_power(trials, labels), labels)
    assert at_chance(correct_by_mean(trials, labels), labels)


def test_drift_alone_decodes_a_block_design_and_not_a_randomized_one():
    drift = {"stimulus_strength": 0, "drift_strength": 2}
    trials, labels = filtered_trials(subject_of(**drift))
    assert correct_by_power(trials, labels) > 0.35 * len(labels)
    trials, labels = filtered_trials(subject_of(design="randomized", **drift))
    assert at_chance(correct_by_power(trials, labels), labels)


def test_pictures_alone_decode_a_randomized_design():
    world = {"stimulus_strength": 5, "drift_strength": 0, "design": "randomized"}
    trials, labels = filtered_trials(subject_of(**world))
    assert correct_by_mean(trials, labels) > 0.35 * len(labels)  # evoked
    assert correct_by_power(trials, labels) > 0.35 * len(labels)  # induced
    shuffled = np.random.default_rng(1).permutation(labels)
    assert at_chance(correct_by_mean(trials, shuffled), labels)


# --- the head -------------------------------------------------------------------------------


@pytest.mark.parametrize("site", ["Oz", "PO7", "P8", "TP10"])
def test_a_source_is_seen_above_itself(site):
    head = build_head(ACTICAP_128)
    names = list(head.ch_names)
    patterns = head.topographies("visual", head.outward["visual"])
    pattern = np.abs(patterns[:, (OCCIPITAL + TEMPORAL).index(site)])
    places = np.array([montage_1005().get_positions()["ch_pos"][n] for n in names])
    nearest = np.argsort(np.linalg.norm(places - places[names.index(site)], axis=1))[:8]
    assert int(pattern.argmax()) in nearest
    assert pattern[names.index("Fz")] < 0.3 * pattern.max()
    assert np.abs(patterns.mean(axis=0)).max() < 1e-9 * np.abs(patterns).max()


def test_channels_are_the_caps_and_unknown_ones_are_named():
    assert len(ACTICAP_128) == len(set(ACTICAP_128)) == 128
    with pytest.raises(ValueError, match="O17"):
        build_head(("Oz", "O17"))


# --- protocol -------------------------------------------------------------------------------


def test_published_protocol():
    options = Options()
    classes = np.repeat(np.arange(40), 50)
    table = draw_schedule(classes, options, np.random.default_rng(0))
    assert len(table) == 2000
    assert sorted(table["stimulus"]) == list(range(2000))
    assert table["session"].value_counts().tolist() == [500] * 4
    for _, block in table.groupby("block"):
        assert len(set(classes[block["stimulus"]])) == 1
        assert np.allclose(np.diff(block["onset"]), 0.5)
    first = table[table["session"] == 0].groupby("block")["onset"]
    assert np.allclose(np.diff(first.min()), 35)
    assert first.max().iloc[-1] + 0.5 + options.pause / 2 == pytest.approx(350)


def test_randomized_design_keeps_the_slots_and_mixes_the_classes():
    classes = np.repeat(np.arange(10), 30)
    block, mixed = (
        draw_schedule(
            classes,
            Options(n_classes=10, images_per_class=30, design=design),
            np.random.default_rng(0),
        )
        for design in ("block", "randomized")
    )
    assert block["onset"].equals(mixed["onset"])
    assert block["block"].equals(mixed["block"])
    assert sorted(mixed["stimulus"]) == list(range(300))
    assert mixed.groupby("block")["stimulus"].agg(lambda s: len(set(classes[s]))).min() > 4


# --- signals --------------------------------------------------------------------------------


def test_spectrum_falls_and_has_mains_and_alpha():
    subject = subject_of(stimulus_strength=0, drift_strength=0)
    channel = CHANNELS.index("Oz")
    f, power = signal.welch(subject.signals(0)[channel], 250, nperseg=500)
    at = dict(zip(f, 10 * np.log10(power), strict=True))
    assert at[50.0] > at[47.0] + 6
    assert at[50.0] > at[53.0] + 6
    assert max(at[9.0], at[9.5], at[10.0], at[10.5], at[11.0]) > at[6.0]
    inside = (f > 14) & (f < 40)
    slope = np.polyfit(np.log10(f[inside]), np.log10(power[inside]), 1)[0]
    assert -2.5 < slope < -0.5
    rms = 1e6 * subject.signals(0).std()
    assert 8 < rms < 35


def test_noise_forgets_itself_within_half_a_second():
    head = build_head(CHANNELS)
    for noise in model.draw_noises(head, np.random.default_rng(0)):
        correlation = autocorrelation(noise.spectrum, 250, 400)
        assert correlation[0] == 1
        assert np.abs(correlation[150:]).max() < 0.05


def test_drawn_noise_has_the_stated_covariance():
    head = build_head(CHANNELS)
    for noise in model.draw_noises(head, np.random.default_rng(0)):
        n_sources, rng = noise.mixing.shape[1], np.random.default_rng(1)
        drawn = np.cov(model.draw_sources(noise.spectrum, n_sources, 2**15, 250, rng))
        assert np.abs(drawn - np.eye(n_sources)).max() < 0.15


def test_drift_has_its_size_its_memory_and_its_jump():
    def course(n_images=10, **options):
        options = Options(sfreq=200, n_classes=2, images_per_class=n_images, **options)
        schedule = draw_schedule(np.repeat([0, 1], n_images), options, np.random.default_rng(0))
        drift = model.draw_drift({"electrode": 200}, schedule, options, np.random.default_rng(0))
        return drift["electrode"] / model.DRIFT["electrode"][0]  # over minutes only

    one, two = course(classes_per_session=1)
    assert one.shape == two.shape == (200, 152)  # 10 images of 0.5 s and a pause of 10 s
    assert one.std() == pytest.approx(1, abs=0.15)
    assert np.mean(one[:, -1] * two[:, 0]) == pytest.approx(np.exp(-1), abs=0.2)  # 300 s later
    slow = course(200, drift_tau=20.0)[0]
    assert np.mean(slow[:, 100] * slow[:, 300]) == pytest.approx(np.exp(-1), abs=0.2)  # 20 s later
    steps = np.diff(course()[0], axis=1).std(axis=0)
    assert steps[102:140].mean() > 1.5 * steps[52:98].mean()  # faster in the pause than in a block
    assert not course(drift_strength=0).any()


def test_the_drift_is_that_of_real_eeg(tmp_path, capsys):
    """Beside the recording that comes with the package, which is a calm one."""
    assert simulator.main(["--seeds", "0", "--figure", str(tmp_path / "drift.png")]) == 0
    assert (tmp_path / "drift.png").stat().st_size > 10_000
    words = capsys.readouterr().out.splitlines()[-1].split()[1:]
    pairs = dict(word.split("=") for word in words)
    found = {name: [float(v) for v in pair.split("/")] for name, pair in pairs.items()}
    simulated, real = np.array(list(found.values())).T
    assert next(iter(found)) == "sd_between_blocks"
    assert np.all(simulated > real * [0.8, 0.85, 0.5, 0.5])
    assert np.all(simulated < real * [3.0, 1.25, 2.0, 2.0])


def test_classes_that_look_alike_answer_alike():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((30, 40))
    features[1] = features[0] + 0.1 * rng.standard_normal(40)
    scores = similarity_scores(np.arange(30), features, rng.standard_normal((40, 24, 4)), 0.0)
    distance = np.linalg.norm(scores.reshape(30, -1) - scores[0].ravel(), axis=1)
    assert distance[1] < 0.3 * distance[2:].min()
    assert scores.std() == pytest.approx(1, rel=0.05)


def test_nothing_is_driven_before_60_ms_and_much_after():
    subject = subject_of(stimulus_strength=1, drift_strength=0)
    response = truth_of(subject).evoked_response(0)
    assert response.shape == (len(CHANNELS), 200)
    assert not response[:, :15].any()  # 60 ms at 250 Hz
    assert not subject.response.envelopes[..., :15].any()
    assert np.abs(response[CHANNELS.index("Oz"), 20:60]).max() > 1e-6
    occipital, temporal = subject.response.waves[0, 0], subject.response.waves[-1, 0]
    assert temporal.argmax() > occipital.argmax() + 5


def test_truth_adds_up():
    """What the strength knob adds is the truth's templates at the trials' onsets, and bursts."""
    world = {"drift_strength": 0, "image_share": 0.5}
    with_pictures = subject_of(stimulus_strength=2, **world)
    added = with_pictures.signals(0) - subject_of(stimulus_strength=0, **world).signals(0)
    truth, trials = truth_of(with_pictures), with_pictures.trials(0)
    evoked = np.zeros((len(CHANNELS), added.shape[1] + 200))
    power = np.zeros((truth.response.induced.shape[1], added.shape[1] + 200))
    for onset, image in zip(trials["onset"], trials["stimulus"], strict=True):
        window = slice(round(onset * 250), round(onset * 250) + 200)
        evoked[:, window] += truth.evoked_response(image)
        bursts = truth.response.induced[image].T[:, :, None] ** 2
        power[:, window] += (bursts * truth.response.envelopes.swapaxes(0, 1) ** 2).sum(axis=0)
    rest = added - evoked[:, : added.shape[1]]
    before = round(trials["onset"].iloc[0] * 250) + 15
    assert np.abs(rest[:, :before]).max() < 1e-9
    expected = (truth.response.topographies**2 @ power[:, : added.shape[1]]).mean()
    assert (rest**2).mean() == pytest.approx(expected, rel=0.1)


# --- seeds ----------------------------------------------------------------------------------


def test_same_seed_same_signals_other_seed_others():
    first, second = subject_of().signals(0), subject_of().signals(0)
    assert first.tobytes() == second.tobytes()
    assert not np.array_equal(first, subject_of(seed=4).signals(0))


def test_subjects_differ():
    options = Options(**SMALL)
    one = subject_of()
    two = SimulatedSubject(options, 2, one.stimuli, np.eye(200))
    assert not np.allclose(one.response.topographies, two.response.topographies)
    assert not one.schedule.equals(two.schedule)


# --- files ----------------------------------------------------------------------------------

TINY = {
    "n_classes": 3,
    "images_per_class": 4,
    "classes_per_session": 2,
    "sfreq": 200,
    "channels": ("Fz", "Cz", "Pz", "O1", "O2"),
    "pause": 2.0,
    "seed": 1,
}


@pytest.fixture(scope="module")
def small_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "data"
    options = Options(**TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        simulate(folder, options, (1, 2))
    return folder, options


def open_tiny(folder, root=None, **changes):
    settings = DatasetSettings(name="simulated", subjects=(1, 2), options=TINY | changes, root=root)
    return open_dataset(settings, folder)


def test_round_trip_of_signals_and_metadata(small_folder):
    folder, options = small_folder
    dataset = open_tiny(folder)
    recordings = dataset.recordings(1)
    assert [len(r.trials) for r in recordings] == [8, 4]
    stimuli, features = draw_stimuli(folder, options)
    subject = SimulatedSubject(options, 1, stimuli, features)
    for session, recording in enumerate(recordings):
        error = recording.raw.get_data() - subject.signals(session)
        assert np.abs(error).max() < 0.51e-7  # half a step of 0.1 microvolts, and rounding
    trials = dataset.trials(1)
    assert list(trials.columns) == ["onset", *METADATA, "run"]
    schedule = subject.schedule
    assert np.allclose(trials["onset"], schedule["onset"])
    assert trials["image"].tolist() == stimuli["image"][schedule["stimulus"]].tolist()
    assert trials["label"].tolist() == stimuli["label"][schedule["stimulus"]].tolist()
    assert trials["block"].tolist() == schedule["block"].tolist()
    assert trials["session"].tolist() == (schedule["session"] + 1).tolist()
    assert trials["order"].tolist() == list(range(12))
    names = [dataset.class_names[label] for label in trials["label"]]
    assert trials["class_name"].tolist() == names


def test_files_say_that_they_are_simulated_and_where_electrodes_are(small_folder):
    folder, _ = small_folder
    description = json.loads((folder / "dataset_description.json").read_text())
    assert "SIMULATED" in description["Name"]
    dataset = open_tiny(folder)
    assert dataset.simulated
    assert "SIMULATED" in dataset.card()
    assert dataset.subjects() == [1, 2]
    dataset.trials(1)
    assert dataset.report() == []
    info = dataset.info(1)
    positions = np.array([c["loc"][:3] for c in info["chs"]])
    expected = mne.create_info(list(info["ch_names"]), 200.0, "eeg")
    expected.set_montage(montage_1005())
    assert np.allclose(positions, [c["loc"][:3] for c in expected["chs"]], atol=1e-3)
    assert not list(folder.glob(".*"))


def test_preparing_again_touches_nothing(small_folder):
    folder, _ = small_folder
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    open_tiny(folder).prepare()
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_other_options_are_refused_in_a_named_folder_and_made_again_in_a_runs_own(tmp_path, capsys):
    open_tiny(tmp_path / "run").prepare()
    with pytest.raises(DatasetError, match=r"another simulation \(seed\)"):
        open_tiny(tmp_path, root=tmp_path / "run", seed=2).prepare()
    open_tiny(tmp_path / "run", seed=2).prepare()
    assert "the options changed: seed" in capsys.readouterr().out
    assert '"seed": 2' in (tmp_path / "run" / "sourcedata" / "simulation.json").read_text()


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DatasetError, match="not empty"):
        simulate(tmp_path, Options(**TINY), replace=True)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stimulus_strenght": 1}, "stimulus_strenght"),
        ({"design": "blocked"}, "design"),
        ({"n_classes": 41}, "n_classes"),
        ({"drift_strength": -1}, "drift_strength"),
        ({"channels": ("Oz", "Ozz")}, "Ozz"),
        ({"sfreq": 251}, "multiple of 2"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, words):
    with pytest.raises(DatasetError, match=words):
        open_dataset(DatasetSettings(name="simulated", options=options), tmp_path)


def test_nothing_is_clipped(tmp_path):
    path = mne_bids.BIDSPath(root=tmp_path, subject="01", task="look", datatype="eeg")
    events = pandas.DataFrame({"onset": [0.0], "duration": 0.5, "trial_type": "cat"})
    data = np.full((1, 200), 1e-2, np.float32)
    with pytest.raises(ValueError, match="binary_int16"):
        write_recording(path, data, ["Oz"], 200.0, events, {}, {})


# --- on several cores, and interrupted ------------------------------------------------------


def test_several_cores_write_the_same_files(small_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    assert len(set(each(process_number, range(8)))) == 2
    assert set(each(process_number, range(8), least=100)) == {os.getpid()}
    folder, options = small_folder  # drawn in one process, see there
    simulate(tmp_path / "two", options, (1, 2))
    assert contents(tmp_path / "two") == contents(folder)


def process_number(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_interrupted_simulation_goes_on_where_it_was(small_folder, tmp_path, monkeypatch):
    complete, options = small_folder
    written = []

    def killed(path, *arguments):
        if (path.subject, path.session) == ("02", "02"):
            raise KeyboardInterrupt
        written.append((path.subject, path.session))
        write_recording(path, *arguments)

    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    with monkeypatch.context() as patch:
        patch.setattr("eeglib.datasets.bids_writer.write_recording", killed)
        patch.setattr(tempfile.TemporaryDirectory, "cleanup", lambda self: None)  # as kill -9 would
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path, options, (1, 2))
    assert written == [("01", "01"), ("01", "02"), ("02", "01")]
    assert [p.name for p in tmp_path.glob("sub-*")] == ["sub-01"]
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "sub-01").rglob("*")}
    simulate(tmp_path, options, (1, 2))
    assert done == {p: p.stat().st_mtime_ns for p in done}
    assert contents(tmp_path) == contents(complete)
