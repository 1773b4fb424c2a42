"""What the benchmark and the chaos run share: a proxy that stands in front of Redis."""
