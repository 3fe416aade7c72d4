"""The stages, from a folder of labelled pictures to a report (host only)."""
