"""How much reward and how much metric a task gives away: completions that never looked at the image, or cheat."""
