"""A function that a Trigger calls: after a job that is complete, it asks for another one. Run it with

./scripts/local --component chain
"""

import json

import functions_framework
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent, from_http
from flask import Request, Response


@functions_framework.http
def chain(request: Request) -> Response:
    """Answer with an event that asks for the second job; its input is the result of the first.

    The Broker takes the reply as any event, and the Trigger `job-requests` brings it to where jobs are submitted. Its
    id is that of the event which it replies to: an event that comes twice asks twice for the same job, and that is one.
    """
    event = from_http(dict(request.headers), request.get_data())
    attributes = {
        "type": "dev.knative-jobs.job.requested",
        "source": "/examples/chain",
        "id": event["id"],
        "datacontenttype": "application/json",
    }
    if "traceparent" in event:
        attributes["traceparent"] = event["traceparent"]
    second = {"kind": "word-count", "input": {"text": json.dumps(event.data["result"])}}
    headers, body = to_binary(CloudEvent(attributes, second))
    return Response(body, headers=headers)
