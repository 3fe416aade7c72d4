"""report.json turned into one self-contained page for people (`pipeline.report.page.render`)."""
