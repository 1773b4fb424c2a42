"""A function that a Trigger calls: it tells a webhook of each job that has ended. Run it with

WEBHOOK_URL=http://localhost:8000 ./scripts/local --component webhook
"""

import os

import functions_framework
import urllib3
from cloudevents.http import from_http
from flask import Request, Response

URL = os.environ["WEBHOOK_URL"]
TOLD = ("id", "status", "result", "error")

http = urllib3.PoolManager(timeout=10, retries=False)


@functions_framework.http
def webhook(request: Request) -> Response:
    """Answer 204 once the webhook has taken it, else 502: then the Broker brings the event again.

    An event can come twice. Its id is the same then, and goes on to the webhook as Idempotency-Key.
    """
    event = from_http(dict(request.headers), request.get_data())
    job = {name: event.data[name] for name in TOLD if name in event.data}
    try:
        answer = http.request("POST", URL, json=job, headers={"Idempotency-Key": event["id"]})
    except urllib3.exceptions.HTTPError as error:
        print(f"the webhook cannot be reached: {error}")
        return Response(status=502)
    if not 200 <= answer.status < 300:
        print(f"the webhook answered {answer.status}")
        return Response(status=502)
    return Response(status=204)
