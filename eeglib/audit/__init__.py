"""Is it the picture or the clock? The controls of chapter 8.

`trials` holds what the controls work on, `decoders` and `designs` the classifier and the splits
it is audited with; `clock`, `signals`, `pictures`, `comparisons`, `phantom` and `student` the
controls, `share` the estimate of what the stimulus drives, `card` what they found together and
`conclusion` what may be said of it, `subject` the way from a run to the card, `group` the cards of
all subjects, `figures` a figure for each, and `worlds` the simulations that judge the audit itself.
"""

from eeglib.audit.card import AuditCard, run_audit
from eeglib.audit.conclusion import Conclusion, conclude
from eeglib.audit.control import Control
from eeglib.audit.trials import AuditError, AuditTrials, audit_trials

__all__ = [
    "AuditCard",
    "AuditError",
    "AuditTrials",
    "Conclusion",
    "Control",
    "audit_trials",
    "conclude",
    "run_audit",
]
