"""One function per figure of the book.

Every function takes arrays, tables or MNE objects, and returns the figure. Times are in seconds,
frequencies in hertz, voltages in microvolts.
"""

from eeglib.plotting.audit import plot_card, plot_control, plot_lags, plot_sensitivity, plot_share
from eeglib.plotting.decoding import (
    plot_attribution,
    plot_confusion_by_group,
    plot_gains,
    plot_recall,
    plot_scores,
    plot_similarity,
    plot_soft_targets,
    plot_sweep,
    plot_training,
)
from eeglib.plotting.images import (
    plot_gallery,
    plot_picture_scores,
    plot_reconstructions,
    plot_sets,
    plot_stimuli,
)
from eeglib.plotting.signals import (
    plot_channels,
    plot_energy,
    plot_evoked,
    plot_filter_response,
    plot_power_drift,
    plot_spectra,
    plot_spectrograms,
    plot_timeline,
    plot_traces,
    plot_wavelets,
)
