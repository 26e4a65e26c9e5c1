"""Exports: a task as a folder that another training engine runs, with the very same questions, truths and score.

A module per engine says how that engine wants its data, its reward and its configuration; everything else is shared.
Nothing is imported here, since an exported reward imports this package where only numpy is there.
"""
