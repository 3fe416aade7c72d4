"""Engines: what an engine is, how it is built and run (Python 3.6, numpy only)."""

__version__ = "0.1.0"
