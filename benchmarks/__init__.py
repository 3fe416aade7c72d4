"""Measuring engines: latency, accuracy and their statistics (Python 3.6, numpy only)."""
