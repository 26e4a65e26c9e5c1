"""One definition of a visual perception task: prompt, parser, verifiable reward and metric, to evaluate and to train."""

__version__ = "0.1.0"
