"""Verbs of the command line that train: thin, as those of :mod:`vrft_bench.harness.cli`."""
