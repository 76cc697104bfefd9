"""Is it the picture or the clock? The audit of chapter 8."""
