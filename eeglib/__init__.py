"""Decode what a person sees from EEG: one module per chapter of the course-book."""

__version__ = "0.1.0"
