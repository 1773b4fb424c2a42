"""So much of the Kubernetes API that the real kubectl can apply, get, wait for and delete objects, over HTTP.

It has no schemas, no webhooks and no controllers, but for two: an object is ready as soon as it is there, and what was
made of an object goes with it. It writes down every change that it is asked for.
"""

import json
import re
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

Object = dict[str, Any]
BROKER_URL = "http://broker-ingress.knative-eventing.svc.cluster.local/knative-jobs/default"


class Kind(NamedTuple):
    """A kind of objects that the server knows."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}".lstrip("/")


CORE = [
    Kind("", "v1", "Namespace", "namespaces", namespaced=False),
    Kind("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False),
    *(Kind("", "v1", kind, f"{kind.lower()}s") for kind in ("Pod", "Service", "Secret", "ConfigMap", "Event")),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("apps", "v1", "Deployment", "deployments"),
    Kind("apps", "v1", "StatefulSet", "statefulsets"),
    Kind("batch", "v1", "Job", "jobs"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
]
SERVING = [Kind("serving.knative.dev", "v1", kind, f"{kind.lower()}s") for kind in ("Service", "Revision")]
EVENTING = [
    Kind("eventing.knative.dev", "v1", "Broker", "brokers"),
    Kind("eventing.knative.dev", "v1", "Trigger", "triggers"),
    Kind("eventing.knative.dev", "v1alpha1", "EventPolicy", "eventpolicies"),
    Kind("eventing.knative.dev", "v1beta2", "EventType", "eventtypes"),
    Kind("sources.knative.dev", "v1", "PingSource", "pingsources"),
    Kind("sinks.knative.dev", "v1alpha1", "JobSink", "jobsinks"),
]


class ApiServer:
    """An API server with these kinds. `changes` has each request that was not a GET, as `METHOD plural/name`."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = {(kind.group, kind.version, kind.plural): kind for kind in kinds}
        self.objects: dict[tuple[str, str, str], Object] = {}
        """By group and plural, namespace and name."""
        self.changes: list[str] = []
        self.refuses: Callable[[Object], str | None] = lambda obj: None
        """Returns why an object is refused, as a webhook does."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=[0.01], daemon=True).start()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a file that makes kubectl use this server, as the context `test`."""
        file = folder / "kubeconfig"
        url = f"http://127.0.0.1:{self._server.server_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "contexts": [{"name": "test", "context": {"cluster": "test"}}],
        }
        file.write_text(json.dumps(config))
        return file

    def add(self, api_version: str, kind: str, name: str, namespace: str = "knative-jobs", **more: Any) -> None:
        """Put an object there that nobody has asked for."""
        [found] = [k for k in self.kinds.values() if (k.api_version, k.kind) == (api_version, kind)]
        metadata = {"name": name, "uid": name, **more.pop("metadata", {})}
        place = namespace if found.namespaced else ""
        if place:
            metadata["namespace"] = place
        key = (f"{found.group}/{found.plural}", place, name)
        self.objects[key] = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **more}

    def names(self, plural: str) -> set[str]:
        """The objects that there are: `services` are those of the group `""`, `serving.knative.dev/services` others."""
        wanted = plural if "/" in plural else f"/{plural}"
        return {name for where, _, name in self.objects if where == wanted}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(server: ApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._object_or_discovery()

        def do_POST(self) -> None:
            body = self._body()
            if not self._dry(body):
                where, namespace, _ = self._place()
                name = body["metadata"]["name"]
                server.changes.append(f"POST {where}/{name}")
                server.objects[where, namespace, name] = _ready(body)
            self._send(body, 201)

        def do_PATCH(self) -> None:
            patch = self._body()
            where, namespace, name = self._place()
            before = server.objects[where, namespace, name]
            after = _merged(before, patch)
            if not self._dry(after):
                server.changes.append(f"PATCH {where}/{name}")
                server.objects[where, namespace, name] = after
            self._send(after)

        def do_DELETE(self) -> None:
            self._body()
            where, namespace, name = self._place()
            gone = server.objects.pop((where, namespace, name), None)
            server.changes.append(f"DELETE {where}/{name}")
            if not gone:
                self._refuse(404, "NotFound")
                return
            for key, other in list(server.objects.items()):
                owned = [owner["uid"] for owner in other["metadata"].get("ownerReferences", [])]
                if gone["metadata"].get("uid", name) in owned or (where == "/namespaces" and key[1] == name):
                    server.objects.pop(key, None)
            self._send({"kind": "Status", "apiVersion": "v1", "status": "Success"})

        def _object_or_discovery(self) -> None:
            path = urlsplit(self.path).path.strip("/")
            if path in ("version", "openapi/v2", "openapi/v3", "api", "apis") or re.fullmatch(
                r"api/v1|apis/[^/]+/[^/]+", path
            ):
                found = _discovery(server.kinds.values(), path)
                self._send(found) if found is not None else self._refuse(404, "NotFound")
                return
            where, namespace, name = self._place()
            if name:
                obj = server.objects.get((where, namespace, name))
                self._send(obj) if obj else self._refuse(404, "NotFound")
                return
            if "true" in self._query("watch"):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.close_connection = True
                return
            items = [o for key, o in server.objects.items() if key[0] == where and namespace in ("", key[1])]
            items = [o for o in items if self._selected(o)]
            self._send({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})

        def _selected(self, obj: Object) -> bool:
            labels = obj["metadata"].get("labels", {})
            for term in ",".join(self._query("labelSelector")).split(","):
                key, _, value = term.partition("=")
                if term.startswith("!"):
                    if term[1:] in labels:
                        return False
                elif term and (labels.get(key) != value if "=" in term else key not in labels):
                    return False
            fields = {"metadata.name": obj["metadata"]["name"], "type": obj.get("type", "Opaque")}
            terms = [term.split("=") for term in ",".join(self._query("fieldSelector")).split(",") if term]
            return all(fields.get(name) == value for name, value in terms)

        def _place(self) -> tuple[str, str, str]:
            """The group and plural, the namespace, and the name, where the path has them."""
            path = urlsplit(self.path).path
            match = re.fullmatch(
                r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)"
                r"(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?",
                path,
            )
            if own := re.fullmatch(r"/api/v1/namespaces/([^/]+)", path):
                return "/namespaces", "", own[1]
            assert match, path
            found = match.groupdict(default="")
            return f"{found['group']}/{found['plural']}", found["namespace"], found["name"]

        def _query(self, name: str) -> list[str]:
            return parse_qs(urlsplit(self.path).query).get(name, [])

        def _dry(self, obj: Object) -> bool:
            return "All" in self._query("dryRun")

        def _body(self) -> Object:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return dict(json.loads(text)) if text else {}

        def _send(self, obj: Object | bytes, status: int = 200) -> None:
            if isinstance(obj, dict) and self.command in ("POST", "PATCH") and (why := server.refuses(obj)):
                self._refuse(400, "BadRequest", f'admission webhook "test" denied the request: {why}')
                return
            body = obj if isinstance(obj, bytes) else json.dumps(obj).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _refuse(self, status: int, reason: str, message: str = "") -> None:
            told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status}
            body = json.dumps(told | {"message": message or reason}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _ready(obj: Object) -> Object:
    """An object as its controller leaves it."""
    conditions = [{"type": name, "status": "True"} for name in ("Ready", "Available")]
    status: Object = {"conditions": conditions}
    if obj["kind"] == "StatefulSet":
        status = {"readyReplicas": obj["spec"]["replicas"]}
    if obj["kind"] == "Broker":
        status["address"] = {"url": BROKER_URL}
    obj["metadata"] |= {"uid": obj["metadata"]["name"], "resourceVersion": "1"}
    return {**obj, "status": status}


def _merged(before: Any, patch: Any) -> Any:
    """See RFC 7386."""
    if not isinstance(patch, dict) or not isinstance(before, dict):
        return patch
    merged = {**before, **{name: _merged(before.get(name), value) for name, value in patch.items()}}
    return {name: value for name, value in merged.items() if value is not None}


def _discovery(kinds: Iterable[Kind], path: str) -> Object | bytes | None:
    kinds = list(kinds)
    if path == "version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path.startswith("openapi"):
        return b"" if path == "openapi/v2" else {"paths": {}}  # a document in protobuf that says nothing
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "apis":
        groups = []
        for name in dict.fromkeys(kind.group for kind in kinds if kind.group):
            of_it = dict.fromkeys(kind.version for kind in kinds if kind.group == name)
            versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in of_it]
            groups.append({"name": name, "versions": versions, "preferredVersion": versions[0]})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    api_version = path.removeprefix("apis/").removeprefix("api/")
    found = [
        {
            "name": kind.plural,
            "singularName": kind.kind.lower(),
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        }
        for kind in kinds
        if kind.api_version == api_version
    ]
    if not found:
        return None
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}
