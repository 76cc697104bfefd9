"""Is it the picture or the clock? The audit of chapter 8.

`features` holds what the controls work on, `decoders` the classifier and the splits it is audited
with, `controls` the controls, `share` the estimate of what the stimulus drives, `card` what they
found together and what may be said of it, for a subject and for all, and `simulations` the
recordings of known truth that judge the audit itself.
"""
