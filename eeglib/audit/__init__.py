"""Is it the picture or the clock? The controls of chapter 8.

`trials` holds what the controls work on, `decoders` and `designs` the classifier and the splits
it is audited with; `clock`, `signals`, `pictures`, `comparisons` and `phantom` the controls,
`share` the estimate of what the stimulus drives, `card` the one page that sums them up, `subject`
the way from a run to the card, and `worlds` the simulations that judge the audit itself.
"""

from eeglib.audit.card import AuditCard, card_table, conclude, read_card, run_audit
from eeglib.audit.control import Control
from eeglib.audit.trials import AuditError, AuditTrials, audit_trials

__all__ = [
    "AuditCard",
    "AuditError",
    "AuditTrials",
    "Control",
    "audit_trials",
    "card_table",
    "conclude",
    "read_card",
    "run_audit",
]
