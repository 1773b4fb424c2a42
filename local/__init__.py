"""The platform on one machine: what Knative, Kubernetes and Redis are to the functions in a cluster.

`python -m local` is one supervisor that starts, watches and stops:

    redis        a redis-server, with a user for each kind of function      redis_server.py, redis_users.py
    endpoints    every public function, in one process, on one port         endpoints.py
    knative      events in, to every Trigger that they match                knative.py, broker.py, delivery.py
    reaper       ends all of these when the supervisor was killed           reaper.py

`knative` does the same with the instances of the cluster-local functions, from 0 to N of each (activator.py,
autoscaler.py, instance.py) and with the processes of JobSinks (jobsink.py), and sends the events of the PingSources
(pings.py). With --reload the workers are restarted when their work changes (reloading.py).

Services, Triggers and PingSources are read from `knative/base`, and from the kinds and components that are asked for,
so nothing is declared twice.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FUNCTIONS = ROOT / "functions"

sys.path.append(str(FUNCTIONS))  # for the package that the functions share, knative_jobs
