"""Running the chapters for every subject: table of stages, Snakemake, papermill, the book."""
