"""The benchmark: this job API and its peers on one machine, one after another, in several rounds.

`python -m bench` is what `scripts/bench` starts:

    systems/     one file a system: its front, its worker, how both are started; and the empty function
    running      starts a system with a Redis of its own, and ends both                    running.py
    load         the load generator                                                        load.py
    fill         puts many jobs into a store                                               fill.py
    measures     what is measured of every system                                          measures.py
    growth       how the cost of ours grows                                                growth.py
    confirmation what it costs to wait for a replica or the disk                           confirmation.py
    bulk         what a key costs, and a bulk operation meanwhile                          bulk.py
    plan         all of that, by name                                                      plan.py
    report       medians, ranges, ratios, the page, the JSON file, the picture             report.py, picture.py

`harness.proxy` stands before a Redis that is 1 ms away.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".bench"
HOST = "127.0.0.1"
LIMITS = ("empty", "bare")
PEERS = ("original", "rq", "celery", "dramatiq", "huey", "arq", "bullmq", "taskiq", "saq")
