"""Loggers: metrics, configuration, figures and films of a run, for what shows and compares runs."""
