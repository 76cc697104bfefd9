"""Fixtures that several test modules share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_site(tmp_path_factory) -> Path:
    """A book of four tiny chapters, in a folder with spaces and umlauts."""
    from tiny_project import write_site

    folder = tmp_path_factory.mktemp("ein Buch über EEG") / "site"
    folder.mkdir()
    return write_site(folder)


@pytest.fixture(scope="session")
def tiny_run(tiny_site) -> Path:
    """A run of the tiny chapters that has finished; tests work on copies of it."""
    from tiny_project import tiny_request

    from eeglib.workflow.run import run

    run_dir = tiny_site.parent / "Läufe 1"
    assert run(tiny_request(tiny_site / "notebooks", run_dir)) == []
    return run_dir
