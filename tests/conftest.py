"""Fixtures that several test modules share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import eeglib  # before torch: it says how torch's threads wait


@pytest.fixture(scope="session")
def tiny_site(tmp_path_factory) -> Path:
    """A book of four tiny chapters, in a folder that no command line likes."""
    from tiny_project import write_site

    folder = tmp_path_factory.mktemp("ein Buch über {EEG} d'été #1 100%") / "site"
    folder.mkdir()
    return write_site(folder)


@pytest.fixture(scope="session")
def tiny_run(tiny_site) -> Iterator[Path]:
    """A run of the tiny chapters that has finished; tests work on copies of it.

    What is stale is judged by a copy of eeglib's source, so that an edit made while the tests run
    is not found by them.
    """
    from tiny_project import tiny_request

    from eeglib.workflow import dependencies
    from eeglib.workflow.run import run

    source = tiny_site.parent / "eeglib"
    skip = shutil.ignore_patterns("pretrained", "__pycache__")
    shutil.copytree(Path(eeglib.__file__).parent, source, ignore=skip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "PACKAGE", source)
        run_dir = tiny_site.parent / "Läufe 1"
        assert run(tiny_request(tiny_site / "notebooks", run_dir)) == []
        yield run_dir
