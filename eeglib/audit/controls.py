"""The controls of chapter 8: can a clock be read, does it help the decoder, is it the picture?"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path

import numpy as np
import pandas
import yaml
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.preprocessing import StandardScaler, normalize

from eeglib.audit import decoders
from eeglib.audit.decoders import Folds, discriminant, one_thread, predict, whitener
from eeglib.audit.features import SHUFFLED, AuditError, AuditTrials
from eeglib.evaluation import format_p, format_score, proportion_interval, score, unequal
from eeglib.reconstruction.identification import identify_within_class

N_PERMUTATIONS, N_REFITS = 5000, 40
WORDS = yaml.safe_load(Path(__file__).with_name("controls.yml").read_text(encoding="utf-8"))
SIGN = 0.05  # p-value below which words change; see `eeglib.audit.card.conclude`
NO_IMAGES = "which image was shown, or what it looks like, is not known in this data set."


@dataclass(frozen=True)
class Control:
    """What one control found; never a "pass": the verdict says what was seen.

    The figure with chance, interval, the number of trials (or pairs), and the test against chance.
    A permutation test has no interval, but the 95% range of what it finds by chance (``null_low,
    null_high``). ``rows`` are details for a figure; ``number`` is 0 for what is audited; ``reason``
    says why the data do not support the control, where they do not.
    """

    estimate: float = math.nan
    chance: float = math.nan
    low: float = math.nan
    high: float = math.nan
    null_low: float = math.nan
    null_high: float = math.nan
    n: int = 0
    p_value: float = math.nan
    verdict: str = ""
    rows: list[dict] = field(default_factory=list)
    reason: str = ""
    number: int = 0
    name: str = ""
    title: str = ""

    @property
    def available(self) -> bool:
        """Whether the data support this control."""
        return not self.reason


def control(function: Callable[..., Control]) -> Callable[..., Control]:
    """Put name and words on what a function finds; an `AuditError` becomes the reason why not."""

    @wraps(function)
    @one_thread
    def named(*args, name: str = function.__name__, **kwargs) -> Control:
        words = WORDS[name]
        try:
            if "designs" in words and args[0].design not in words["designs"]:
                raise AuditError(words["otherwise"].format(design=args[0].design))
            result = function(*args, **kwargs)
        except AuditError as error:
            result = Control(reason=str(error), verdict=f"not available: {error}")
        verdict = result.verdict or words["above" if result.p_value < SIGN else "at"]
        title = result.title + words["title"].removeprefix("accuracy" if result.title else "")
        return replace(result, name=name, number=words["number"], title=title, verdict=verdict)

    return named


def accuracy_of(predicted: np.ndarray, labels: np.ndarray, chance: float | None = None) -> Control:
    """Share of right answers, exact binomial test (one-sided) and interval of Wilson (1927).

    Chance, where it is not given, is the share of the commonest class among ``labels``; of unequal
    classes the balanced accuracy is given instead, as by `eeglib.evaluation.score`.
    """
    if chance is None and unequal(labels):
        one_hot = np.eye(max(*labels, *predicted) + 1)[predicted]
        table = score(one_hot, labels).set_index("metric").rename(columns={"value": "estimate"})
        figures = table.loc["balanced accuracy"].to_dict() | {"n": len(labels)}
        return Control(**figures, title="balanced accuracy")
    if chance is None:
        chance = np.unique(labels, return_counts=True)[1].max() / len(labels)
    n, n_right = len(labels), int((predicted == labels).sum())
    p_value = stats.binomtest(n_right, n, min(chance, 1), alternative="greater").pvalue
    interval = proportion_interval(n_right, n)
    return Control(n_right / n, chance, *interval, n=n, p_value=float(p_value))


def difference_of(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> Control:
    """Mean of ``first - second`` over trials; the bootstrap keeps trials of a group together."""
    difference = np.asarray(first, float) - second
    _, index = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(index, difference), np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, len(sums), (2000, len(sums)))
    draws = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    # The test is one-sided, of a normal distribution with the spread of the bootstrap.
    value, spread = float(difference.mean()), (high - low) / (2 * stats.norm.ppf(0.975))
    p_value = float(stats.norm.sf(value / spread)) if spread > 0 else 1.0
    return Control(value, 0.0, float(low), float(high), n=len(difference), p_value=p_value)


def _hits(trials: AuditTrials, *args, **kwargs) -> np.ndarray:
    """1 for every right answer, more in a rarer class: their mean is the balanced accuracy."""
    rows, probabilities = predict(trials, *args, **kwargs)
    return (probabilities.argmax(axis=1) == trials.labels[rows]) * trials.weights[rows]


@control
def accuracy(trials: AuditTrials, probabilities: np.ndarray, rows=slice(None)) -> Control:
    """The figure that is audited."""
    return accuracy_of(probabilities.argmax(axis=1), trials.labels[rows])


@control
def label_from_clock(trials: AuditTrials, seed: int = 0) -> Control:
    """Name the class of the last training trial before; no EEG is looked at."""
    # Before, not nearest: two neighbours that name each other would count twice in the test.
    position, session, labels = trials.position, trials.session, trials.labels
    predicted = np.empty(len(labels), dtype=int)
    for train, test in decoders.random_folds(trials, seed=seed):
        ahead = position[test][:, None] - position[train]
        ahead = np.where(ahead > 0, ahead, len(labels) - ahead)
        ahead[session[test][:, None] != session[train]] += 2 * len(labels)
        predicted[test] = labels[train[ahead.argmin(axis=1)]]
    return accuracy_of(predicted, labels)


@control
def pseudo_class(trials: AuditTrials) -> Control:
    """Control 3: tell the first half of a block from its second half.

    Each half is cut into four stretches, of which one of each half is tested at a time, without the
    two trials next to it; nearest mean in the space of the class means, where the decoder looks.
    """
    position, blocks, groups = trials.position, trials.blocks, trials.blocks
    if trials.design == "randomized":  # blocks mean nothing for the classes: runs of trials instead
        blocks, groups = position // min(50, max(16, len(position) // 4)), trials.labels
    white = (trials.features - trials.features.mean(axis=0)) @ whitener(trials.features, blocks)
    means = np.stack([white[groups == g].mean(axis=0) for g in np.unique(groups)])
    _, size, axes = np.linalg.svd(means - means.mean(axis=0), full_matrices=False)
    space = white @ axes[size > 1e-9 * size.max()].T
    right = []
    for members in (np.flatnonzero(blocks == block) for block in np.unique(blocks)):
        if len(members) >= 16:
            half = position[members].argsort().argsort() >= len(members) / 2
            metadata = trials.metadata.iloc[members].assign(label=half.astype(int))
            part = AuditTrials(space[members], metadata)
            folds = decoders.contiguous_folds(part, n_folds=4)
            right.append(_hits(part, folds, decoders.nearest_mean) > 0)
    if not right:
        raise AuditError("blocks hold fewer than 16 trials; longer ones are needed.")
    right = np.concatenate(right)
    return accuracy_of(right, np.ones(len(right)), 0.5)


@control
def temporal_distance(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 4: what is lost when training trials near in time are left out.

    The estimate is the accuracy on random splits minus that on contiguous stretches of each class
    with a gap of 4 trials, on the same trials. The random splits (three draws) train on no more
    trials of a class, else the smaller training would pass for a clock. Bootstrap over stretches
    of ten trials.
    """
    position, by_gap, rows = trials.position, {}, []
    for gap in (0, 2, 4, 8, 16):
        folds = decoders.contiguous_folds(trials, gap=gap)
        if any(set(trials.labels[train]) < set(trials.labels) for train, _ in folds):
            break
        by_gap[gap] = folds, _hits(trials, folds)
        rows.append(_distance_row(trials, f"gap {gap}", by_gap[gap][1], folds))
    if not by_gap:
        raise AuditError("a contiguous stretch leaves a class without training.")
    folds, hits = by_gap[max(gap for gap in by_gap if gap <= 4)]
    matched = [decoders.matched_folds(trials, folds, seed + k) for k in range(3)]
    random_hits = np.mean([_hits(trials, m) for m in matched], axis=0)
    rows.insert(0, _distance_row(trials, "random", random_hits, matched[0]))
    tested = np.sort(np.concatenate([test for _, test in folds]))
    result = difference_of(random_hits[tested], hits, position[tested] // 10)
    return replace(result, rows=rows)


@control
def leave_block_out(trials: AuditTrials) -> Control:
    """Control 4 where classes come back: the n-th block of each is left out, or a session."""
    groups = trials.session
    if trials.design == "repeated blocks":
        groups = pandas.Series(trials.blocks).groupby(trials.labels).rank("dense").to_numpy()
    rows, probabilities = predict(trials, decoders.group_folds(trials, groups))
    return accuracy_of(probabilities.argmax(axis=1), trials.labels[rows])


@control
def confusion_distance(
    trials: AuditTrials, probabilities: np.ndarray, seed: int = 0, tested: np.ndarray | None = None
) -> Control:
    """Control 5: are classes confused the more, the closer they were presented?

    Spearman correlation, over pairs of classes of one session, between the distance in time of
    their blocks and the mean log-probability that trials of one get as the other, without what
    each class gets and gives on average. Test: the times of the blocks are permuted (Mantel 1967).
    It is valid where the order of the classes is random with respect to their likeness. The
    ``probabilities`` are about all trials, or about those ``tested``.
    """
    labels = trials.labels
    classes, first = np.unique(labels, return_index=True)
    tested = labels if tested is None else labels[tested]
    if set(tested) != set(classes):
        raise AuditError("some class has no test trial.")
    session = trials.session[first]
    when = np.array([trials.time[labels == c].mean() for c in classes])
    log = np.log(np.maximum(probabilities[:, classes], 1e-6))
    mean_log = np.stack([log[tested == c].mean(axis=0) for c in classes])
    pairs = (session[:, None] == session) & ~np.eye(len(classes), dtype=bool)
    if pairs.sum() < 12:
        raise AuditError("fewer than four blocks share a session.")
    a, b = np.nonzero(np.triu(pairs))
    in_pair = np.eye(len(classes))[a] + np.eye(len(classes))[b]
    confusion = (mean_log[a, b] + mean_log[b, a]) / 2
    confusion -= in_pair @ np.linalg.lstsq(in_pair, confusion, rcond=None)[0]
    distance = np.abs(when[a] - when[b])
    # Exchanging times moves whole rows and columns: the ranks of the distances stay the same set.
    ranks = np.zeros(pairs.shape)
    ranks[a, b] = ranks[b, a] = stats.zscore(stats.rankdata(distance))
    # A mean of products of standardised ranks is Spearman's correlation.
    target = stats.zscore(stats.rankdata(confusion)) / len(a)
    value, moved, drawn = float(target @ ranks[a, b]), np.arange(len(classes)), []
    rng = np.random.default_rng(seed)
    sessions = [np.flatnonzero(session == s) for s in np.unique(session)]
    for _ in range(N_PERMUTATIONS):
        for own in sessions:
            moved[own] = rng.permutation(own)
        drawn.append(target @ ranks[moved[a], moved[b]])
    p_value = float((1 + np.sum(np.array(drawn) <= value + 1e-12)) / (1 + N_PERMUTATIONS))
    rows = pandas.DataFrame({"distance": distance, "confusion": confusion}).to_dict("records")
    return Control(value, 0.0, n=len(a), p_value=p_value, rows=rows, **_null_range(drawn))


@control
def power_and_mean(
    trials: AuditTrials, answers: np.ndarray | None = None, rows=slice(None), seed: int = 0
) -> Control:
    """Control 7: logistic regression on one number per channel, the trial's power or mean.

    The verdict compares it with the ``answers``, shape (n_tested,), of the audited decoder about
    the trials ``rows``, pair by pair. The figure adds each band by discriminant analysis: a
    band-pass does not cure a drift of power.
    """
    result, power = _by_features(trials, trials.spectra, "features", "power", seed)
    if answers is None or result.p_value >= SIGN:
        return result
    labels, weights = trials.labels[rows], trials.weights[rows]
    right = [weights * (named == labels) for named in (answers, power[rows])]
    gain = difference_of(*right, np.arange(len(labels)))
    words = WORDS["power_and_mean"]["finer" if gain.p_value < SIGN else "enough"]
    gained = format_score(gain.estimate, gain.low, gain.high, "+")
    return replace(result, verdict=words.format(gain=gained, p_value=format_p(gain.p_value)))


@control
def time_windows(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 8: decode from 50 ms at a time; the first are over before visual cortex answers."""
    first = next(iter(trials.windows))
    if first == SHUFFLED or float(first) >= 50:
        raise AuditError("no window was computed that ends 50 ms after the image or before.")
    result, _ = _by_features(trials, trials.windows, "window", first, seed)
    if trials.design == "randomized" and result.p_value < SIGN:
        result = replace(result, verdict=WORDS["time_windows"]["randomized"])
    return result


@control
def across_subjects(
    subjects: Mapping[int, tuple[np.ndarray, np.ndarray, np.ndarray | None]], subject: int
) -> Control:
    """Control 1: train on the other subjects, test on this one; always read beside `accuracy`.

    ``subjects`` holds of each the features that mean the same in all (`AuditTrials.common`), the
    labels, and the positions of the trials where the design ties classes to time. Where the classes
    came in much the same order (rank correlation with the mean of the others', classes permuted), a
    clock carries over as well, and nothing can be concluded.
    """
    if len(subjects) < 2:
        raise AuditError("only one subject is at hand; the group page has it for several.")
    if len({len(X.T) for X, *_ in subjects.values()}) > 1:
        raise AuditError("subjects have different numbers of features.")
    X = {s: StandardScaler().fit_transform(X) for s, (X, *_) in subjects.items()}
    others = [s for s in subjects if s != subject]
    y = np.concatenate([subjects[s][1] for s in others])
    probabilities = discriminant(np.concatenate([X[s] for s in others]), y, X[subject])
    predicted = np.unique(y)[probabilities.argmax(axis=1)]
    result = accuracy_of(predicted, subjects[subject][1])
    if any(order is None for *_, order in subjects.values()):
        return result
    moments = {s: pandas.Series(order).groupby(y).mean() for s, (_, y, order) in subjects.items()}
    table = pandas.DataFrame(moments).dropna().rank()
    own, rest = table.pop(subject).to_numpy(), table.mean(axis=1).to_numpy()
    agreement, rng = stats.spearmanr(own, rest).statistic, np.random.default_rng(0)
    drawn = [stats.spearmanr(rng.permutation(own), rest).statistic for _ in range(999)]
    p_value = (1 + np.sum(drawn >= agreement - 1e-9)) / 1000
    if p_value >= SIGN and agreement < 0.99:
        return result
    words = WORDS["across_subjects"]["same order"]
    return replace(result, verdict=words.format(agreement=agreement, p_value=format_p(p_value)))


@control
def phantom_blocks(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 2: accuracy on real classes minus invented blocks, trial by trial."""
    runs, n_classes = np.empty(len(trials.labels), dtype=int), trials.labels.max() + 1
    runs[np.argsort(trials.position)] = np.sort(np.arange(len(runs)) % n_classes)
    metadata = trials.metadata.assign(label=runs, block=runs, image="")
    real, invented = (_hits(t, seed=seed) for t in (trials, replace(trials, metadata=metadata)))
    parts = {"real": real, "phantom": invented}
    rows = [{"labels": k, "accuracy": float(v.mean()), "n": len(v)} for k, v in parts.items()]
    clock = accuracy_of(invented > 0, np.ones(len(invented)), 1 / n_classes).p_value < SIGN
    verdict = WORDS["phantom_blocks"]["above" if clock else "at"]
    paired = difference_of(real, invented, trials.position // 10)
    return replace(paired, verdict=verdict, rows=rows)


@control
def permutation_within_blocks(trials: AuditTrials, seed: int = 0) -> Control:
    """Control 10: the accuracy minus the mean after permuting labels within blocks (two folds)."""
    if (blocks := trials.blocks) is None:
        raise AuditError("neither blocks nor order are known.")
    if len(np.unique(blocks)) > len(blocks) / 3:
        blocks = trials.session
    folds = decoders.random_folds(trials, seed=seed)[:2]
    rng, draws, labels = np.random.default_rng(seed), [], trials.labels
    for _ in range(1 + N_REFITS):
        hits = _hits(replace(trials, metadata=trials.metadata.assign(label=labels)), folds)
        draws.append(hits.mean())
        labels = trials.labels.copy()
        for block in np.unique(blocks):
            labels[blocks == block] = rng.permutation(labels[blocks == block])
    value, *null = np.array(draws) - np.mean(draws[1:])
    p_value = float((1 + np.sum(null >= value)) / (1 + N_REFITS))  # at least 1 / 41
    return Control(float(value), 0.0, n=len(hits), p_value=p_value, **_null_range(null))


@control
def image_identification(
    trials: AuditTrials, image_features: np.ndarray | None, seed: int = 0
) -> Control:
    """Control 6: find the right image among those of the same block or class.

    Ridge regression from EEG to the first 20 principal components of ``image_features``, shape
    (n_trials, n_image_features), both after removing the mean of the class and a straight line
    over the order within it; whole classes are left out. The score is that of
    `eeglib.reconstruction.identification.identify_within_class`; chance is one half.
    """
    if image_features is None:
        raise AuditError(NO_IMAGES)
    labels, classes = trials.labels, np.unique(trials.labels)
    if len(classes) < 3 or np.bincount(labels)[classes].min() < 5:
        raise AuditError("at least 3 classes with 5 images each are needed.")
    order = trials.position if trials.ordered else np.arange(len(labels))
    components = PCA(min(20, *np.shape(image_features))).fit_transform(image_features)
    target = _detrended(components, labels, order)
    white = _detrended(trials.features @ whitener(trials.features, labels), labels, order)
    fold = np.sort(np.arange(len(classes)) % 5)[np.searchsorted(classes, labels)]
    # Regularisation scales with the number of trials: weak answers need a strong one.
    model = RidgeCV(alphas=len(labels) * np.geomspace(0.1, 100, 7))
    predicted = cross_val_predict(model, white, target, cv=PredefinedSplit(fold))
    images = decoders.image_names(trials)
    table = identify_within_class(predicted, target, labels, images, seed=seed)
    rank = table.set_index("metric").loc["within-class two-way"]
    return Control(rank.value, 0.5, rank.low, rank.high, n=int(rank.n), p_value=rank.p_value)


@control
def generation_controls(
    trials: AuditTrials, image_features: np.ndarray | None, answers: np.ndarray, rows=slice(None)
) -> Control:
    """Control 9: what do image metrics say when only the class is drawn?

    Each class that the decoder named in its ``answers`` about the trials ``rows`` is drawn as the
    mean of its images. Two-way identification: is the drawing more like (cosine) the image shown
    than like one of another class? The estimate is that of the decoder's classes minus what its
    accuracy predicts: ``a R + (1 - a) W``, with the means R for the right and W for a wrong class.
    """
    if image_features is None:
        raise AuditError(NO_IMAGES)
    labels, classes = trials.labels, np.unique(trials.labels)
    centred = image_features - np.mean(image_features, axis=0, dtype=float)
    drawings = pandas.DataFrame(centred).groupby(labels).mean()
    drawings = drawings.reindex(range(labels.max() + 1), fill_value=0.0)
    similarity = normalize(centred) @ normalize(drawings).T
    table, every = np.empty_like(similarity), np.arange(len(labels))
    for label in classes:
        own, others = labels == label, np.sort(similarity[labels != label], axis=0)
        for c in range(len(drawings)):
            table[own, c] = np.searchsorted(others[:, c], similarity[own, c]) / len(others)
    right = table[every, labels]
    wrong = (table[:, classes].sum(axis=1) - right) / max(len(classes) - 1, 1)
    table, labels, right, wrong = table[rows], labels[rows], right[rows], wrong[rows]
    named = table[np.arange(len(labels)), answers]
    predicted = np.where(answers == labels, right.mean(), wrong.mean())
    result = difference_of(named, predicted, np.arange(len(labels)))
    drawn = {"class named by the decoder": named, "true class, no EEG": right, "wrong class": wrong}
    bars = [{"drawn from": k, "identification": float(v.mean())} for k, v in drawn.items()]
    different = not result.low <= 0 <= result.high
    verdict = WORDS["generation_controls"]["above" if different else "at"]
    return replace(result, p_value=math.nan, verdict=verdict, rows=bars)


def _null_range(drawn: Sequence) -> dict[str, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"null_low": float(low), "null_high": float(high)}


def _by_features(
    trials: AuditTrials, features: dict[str, np.ndarray], column: str, audited: str, seed: int
) -> tuple[Control, np.ndarray]:
    """The accuracy from one set of features, with those of all in ``rows``; its answers."""
    answers, rows = {}, []
    for name, values in features.items():
        decoder = decoders.logistic if name in ("power", "mean") else discriminant
        answers[name] = predict(trials, None, decoder, values, seed)[1].argmax(axis=1)
        right = float(np.mean(trials.weights * (answers[name] == trials.labels)))
        rows.append({column: name, "accuracy": right, "n": len(trials.labels)})
    return replace(accuracy_of(answers[audited], trials.labels), rows=rows), answers[audited]


def _distance_row(trials: AuditTrials, split: str, hits: np.ndarray, folds: Folds) -> dict:
    """Accuracy, and the median distance in trials to the nearest training trial of the class."""
    position, labels, nearest = trials.position, trials.labels, []
    for train, test in folds:
        distance = np.abs(position[test][:, None] - position[train])
        distance[labels[test][:, None] != labels[train]] = len(labels)
        nearest.append(distance.min(axis=1))
    middle = float(np.median(np.concatenate(nearest)))
    return {"split": split, "accuracy": float(hits.mean()), "n": len(hits), "distance": middle}


def _detrended(values: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Remove each class's mean and straight line over the order."""
    of_class = labels[:, None] == np.unique(labels)
    basis = np.c_[of_class, of_class * stats.zscore(order)[:, None]]
    return values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
