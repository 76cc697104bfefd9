"""Parts of the simulated recording of `eeglib.datasets.simulated` (chapter 1).

`forward_model` says how a source in the brain is seen on the scalp, `response` what a picture
does to the sources, `ongoing` what happens without any picture; `subject` adds them up.
"""
