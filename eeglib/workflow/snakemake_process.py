"""Snakemake with a watch on the run that started it.

``python -m eeglib.workflow.snakemake_process`` takes the process id of the run and the run's
folder, then Snakemake's own arguments. If the run is killed, Snakemake and its jobs end too, and
jobs that wait on a cluster are cancelled.
"""

from __future__ import annotations

import sys
from pathlib import Path

from eeglib.workflow.locks import hold_jobs_lock
from eeglib.workflow.watch import end_with_parent

GRACE = 20
"""Seconds that Snakemake has to cancel its jobs on a cluster, s."""


def main(arguments: list[str]) -> int:
    """Be Snakemake, for as long as the run lives."""
    from snakemake.cli import main as snakemake

    parent, run_dir, *options = arguments
    end_with_parent(int(parent), GRACE)
    with hold_jobs_lock(Path(run_dir)):
        return snakemake(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
