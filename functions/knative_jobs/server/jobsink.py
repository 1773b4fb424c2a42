"""A worker for jobs longer than a request may last: `python -m knative_jobs.server.jobsink`.

A JobSink makes a Kubernetes Job of an event and mounts the event as a file:
https://knative.dev/docs/eventing/sinks/job-sink/
"""

import sys
from pathlib import Path

from knative_jobs.work import launcher

if __name__ == "__main__":
    launcher.start()  # first, for it takes as long as the imports that follow

from knative_jobs.events import cloudevent, emit
from knative_jobs.jobs import attempt, outbox
from knative_jobs.runtime import job_id, logs, shutdown
from knative_jobs.runtime.errors import UnavailableError

EVENT_FILE = Path("/etc/jobsink-event/event")


def main() -> None:
    """Do one job, as each job has its own Kubernetes Job, and announce its end.

    It is the job of the event, or where that is not due, the one that has been due the longest.
    """
    logs.configure()
    shutdown.handle()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else EVENT_FILE
    event = cloudevent.read({"content-type": "application/cloudevents+json"}, path.read_bytes()).attributes
    if event["type"] == emit.SUBMITTED:
        launcher.ready()
        try:
            attempt.work_on(job_id.parse(event.get("subject")))
            outbox.announce()
        except UnavailableError as error:
            sys.exit(str(error))  # the pod has failed, and Kubernetes starts another


if __name__ == "__main__":
    main()
