"""Running the chapters for every subject: table of chapters, staleness, Snakemake, papermill."""
