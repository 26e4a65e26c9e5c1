"""Verbs of the leaderboards: compare, table, report and leaderboard. Thin: parse flags, call the library, print."""
