"""The user's work function, and the process that runs it."""
