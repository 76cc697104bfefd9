"""The whole book through the production path: every chapter for two subjects, then its pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from uci import SHARED, write_uci_bids

from benchmarks._page_faults import page_faults
from benchmarks.book import COUNTED, browser, look_at
from eeglib.chapter import load_metrics
from eeglib.profile import load_profile
from eeglib.workflow.book import build_book
from eeglib.workflow.run import Request, run
from eeglib.workflow.stages import STAGES, Job, select_stages, site_folder
from eeglib.workflow.status import read_status

pytestmark = pytest.mark.timeout(1800)  # ten chapters for two subjects, on any machine
PROFILES = Path(__file__).with_name("profiles")
LOOKED_AT = ("05_distill_student", "08_audit_confounds")  # `python -m benchmarks book`: all


def whole_request(profile, run_dir: Path, **changes) -> Request:
    subjects = profile.dataset.subjects
    return Request(profile, run_dir, subjects, site_folder() / "notebooks", jobs=2, **changes)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A finished run of the small profile."""
    profile = load_profile(PROFILES / "small.yml")
    request = whole_request(profile, tmp_path_factory.mktemp("whole") / "run")
    failures = run(request)
    assert failures == [], "\n".join(map(str, failures))
    return request


def test_every_chapter_runs_and_the_book_has_no_faults(small):
    assert {str(s.job): s.state for s in read_status(small)}.items() >= {
        str(Job(stage.name, 1 if stage.per_subject else None)): "done" for stage in STAGES
    }.items()
    index = build_book(small.run_dir)
    html = index.parent
    assert page_faults(html) == []
    if browser():  # elsewhere tests/test_book.py says why it is skipped
        pages = [html / "notebooks" / f"{name}.html" for name in LOOKED_AT]
        assert [fault for kind, fault in look_at(html, pages) if kind in COUNTED] == []
    page = (index.parent / "notebooks" / "05_distill_student.html").read_text(encoding="utf-8")
    assert "simulated" in page.lower()


def test_the_same_seeds_give_the_same_figures_and_scores(small):
    job = Job("05_distill_student", 1)
    before = load_metrics(small.run_dir / str(job))
    again = whole_request(small.profile, small.run_dir, only=select_stages(["05"]), force=True)
    assert run(again) == []
    after = load_metrics(small.run_dir / str(job))
    assert after == before


@pytest.mark.skipif(not SHARED.is_file(), reason="needs the real recordings, which are not here")
def test_real_trials_without_pictures_go_through_the_same_chapters(tmp_path):
    data = write_uci_bids(SHARED, tmp_path / "data", [1, 3])
    # The way is tested here, not what comes out of it: one short training.
    settings = {"dataset.root": str(data), "training.max_epochs": 2, "training.seeds": [0]}
    profile = load_profile(PROFILES / "uci.yml", settings)
    request = whole_request(profile, tmp_path / "run")
    failures = run(request)
    assert failures == [], "\n".join(map(str, failures))
    states = {str(s.job): s.state for s in read_status(request)}
    assert states["group/04_train_teacher"] == "skipped"
    assert states["sub-01/07_reconstruct_images"] == "skipped"
    scores = load_metrics(tmp_path / "run" / "group" / "09_summarize_group").scores
    accuracy = [score for score in scores if score.metric == "top-1"]
    assert {score.method for score in accuracy} == {"lr_power", "cnn_stft"}
    assert all(score.chance == pytest.approx(1 / 3, abs=0.02) for score in accuracy)
