"""The ``paper`` protocol: what Visual-RFT's own evaluation and training code does, quirks included.

Facts of arXiv 2503.01785 and of its repository (github.com/Liuziyu77/Visual-RFT), rebuilt from their description. It is
here to reproduce the paper's tables and to measure what its rules let through; ``docs/protocols.md`` lists every quirk
with an example. Nothing of it is imported under ``strict``.
"""
