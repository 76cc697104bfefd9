"""From EEG to a class: splits, teacher, student, and the table of methods (chapters 4 to 6)."""
