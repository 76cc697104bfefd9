"""One function per figure of the book.

Every function takes arrays, tables or MNE objects, and returns the figure. Times are in seconds,
frequencies in hertz, voltages in microvolts.
"""

from eeglib.plotting.audit import *
from eeglib.plotting.decoding import *
from eeglib.plotting.images import *
from eeglib.plotting.signals import *
