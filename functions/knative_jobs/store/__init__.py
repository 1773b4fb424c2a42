"""The state of all jobs, in Redis: one Lua script for each transition."""

import sys

# redis imports OpenTelemetry's metrics wherever they are installed. Nothing here uses them, and they are a third of the
# time that its import takes at every start: so they are not to be found until it is imported.
_hidden = sys.modules.setdefault("opentelemetry", None) is None  # type: ignore[arg-type]
import redis  # noqa: E402
import redis.asyncio  # noqa: E402, F401

if _hidden:
    del sys.modules["opentelemetry"]
