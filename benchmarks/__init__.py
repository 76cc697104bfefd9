"""Measurements: ``python -m benchmarks NAME`` prints a table and one last line of figures."""

import eeglib  # noqa: F401 - before torch: it says how torch's threads wait
