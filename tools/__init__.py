"""What trained the demo's models and measures them; no part of the package."""

import eeglib  # noqa: F401 - before torch: it says how torch's threads wait
