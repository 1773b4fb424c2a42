"""What every other package may import: settings, logs, traces, errors, shutdown and waiting."""
