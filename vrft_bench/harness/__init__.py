"""The evaluation engine: command line, run loop, model backends and result store."""
