"""One function per figure, by what is drawn."""
