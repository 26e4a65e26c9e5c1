"""Visual perception tasks defined once (prompt, parser, verifiable reward, metric), to evaluate and to train."""

__version__ = "0.1.0"
