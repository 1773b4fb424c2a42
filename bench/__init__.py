"""The benchmark: this job API and its peers on one machine, one after another, in several rounds.

`python -m bench` is what `scripts/bench` starts:

    systems/     one file a system: its front, its worker, how both are started; and the empty function
    running      starts a system with a Redis of its own, and ends both                    running.py
    load         the load generator                                                        load.py
    fill         puts many finished jobs into a store                                      fill.py
    measures     what is measured                                                          measures.py
    report       medians, ratios, the table, the JSON file, the picture                    report.py, picture.py
    slow         a `redis-server` that is 1 ms away                                        slow/redis-server
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".bench"
HOST = "127.0.0.1"
LIMITS = ("empty", "bare")
PEERS = ("original", "rq", "celery", "dramatiq", "huey", "arq")
