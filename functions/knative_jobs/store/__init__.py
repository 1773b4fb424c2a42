"""The state of all jobs, in Redis: one Lua script for each transition."""
