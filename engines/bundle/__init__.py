"""The bundle: one signed file with all that a device needs of a run (Python 3.6, numpy only)."""
