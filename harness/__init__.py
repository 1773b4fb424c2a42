"""What the tests, the benchmark and the chaos run share: local mode as a process, and a proxy before Redis."""
