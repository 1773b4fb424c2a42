"""CloudEvents, and sending them to a Broker."""
