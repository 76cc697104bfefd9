"""Decode what a person sees from EEG: one module per chapter of the course-book."""

__version__ = "0.1.0"

import os
import warnings

# Threads that wait for each other sleep instead of spinning. Where two processes share the cores,
# spinning makes training twenty times slower; alone it gains nothing. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Progress bars are plain text everywhere; libraries that ask for Jupyter's widgets do without.
warnings.filterwarnings("ignore", message="IProgress not found")
