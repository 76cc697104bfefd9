"""The simulated recording of `eeglib.datasets.simulated`: a head, and a subject who has it."""
