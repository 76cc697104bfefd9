"""Decode what a person sees from EEG: one module per chapter of the course-book."""

__version__ = "0.1.0"

import warnings

# Progress bars are plain text everywhere; libraries that ask for Jupyter's widgets do without.
warnings.filterwarnings("ignore", message="IProgress not found")
