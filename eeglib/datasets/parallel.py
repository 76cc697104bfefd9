"""Do the same for many items on all cores that this process may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib


def each(function: Callable, items: Sequence, *arguments: Any, least: int = 1) -> Iterator:
    """Results of ``function(item, *arguments)`` in the order of the items, as they come.

    Each process takes ``least`` items or more: for few, starting it would take longer.
    """
    n_jobs = max(1, min(joblib.cpu_count(), len(items) // least))
    pool = joblib.Parallel(n_jobs, inner_max_num_threads=1, backend="loky", return_as="generator")
    return pool(joblib.delayed(function)(item, *arguments) for item in items)
