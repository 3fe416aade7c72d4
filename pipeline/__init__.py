"""The stages, from a folder of labelled pictures to a report (host only)."""

__version__ = "0.1.0"
