"""What is shown: comparison tables, published rows, reports and the leaderboard site. Reads run folders only."""
