"""The proxy in front of Redis, which the benchmark has too."""

from harness.proxy import Proxy

__all__ = ["Proxy"]
