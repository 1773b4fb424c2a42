"""What an overlay needs of a cluster before anything of it is applied. Nothing here calls the cluster."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from cluster import NAMESPACE
from cluster.objects import Object

EVENTING = "Knative Eventing", "./scripts/kind install, or https://knative.dev/docs/install/"
PRODUCTS = {
    "serving.knative.dev": ("Knative Serving", EVENTING[1]),
    "eventing.knative.dev": EVENTING,
    "sources.knative.dev": EVENTING,
    "sinks.knative.dev": EVENTING,
    "internal.kafka.eventing.knative.dev": (
        "the Knative Broker for Apache Kafka",
        "https://knative.dev/docs/eventing/brokers/broker-types/kafka-broker/",
    ),
    "monitoring.coreos.com": (
        "the Prometheus Operator",
        "https://prometheus-operator.dev/docs/getting-started/installation/",
    ),
}
"""The product that a group of kinds belongs to, and how it is installed."""
OF_BROKER_CLASS = {
    "Kafka": ("internal.kafka.eventing.knative.dev/v1alpha1", "ConsumerGroup"),
}
"""A kind by which one sees that a class of Brokers is installed. The class itself is only an annotation."""
OIDC = "authentication-oidc"
SWITCH_ON = (
    "kubectl -n knative-eventing patch configmap config-features --type=merge "
    f'-p \'{{"data": {{"{OIDC}": "enabled"}}}}\''
)


class Reference(NamedTuple):
    """An object that an overlay uses and does not bring."""

    kind: str
    namespace: str
    name: str
    why: str
    """Who uses it."""
    key: str = ""
    """The key of a Secret that is used; empty: the object as a whole."""


class Cluster(NamedTuple):
    """What there is in a cluster."""

    kinds: set[tuple[str, str]]
    """The group and kind of everything that it knows."""
    versions: set[str]
    """The group and version of everything that it serves, as an apiVersion has them."""
    features: Mapping[str, str]
    """The data of Knative Eventing's ConfigMap `config-features`."""
    present: set[Reference]
    """Those of `references` that exist."""


def references(overlay: Iterable[Object]) -> list[Reference]:
    """Return the objects that an overlay uses and does not bring: Secrets made by hand, the config of a Broker."""
    overlay = list(overlay)
    brought = {(obj["kind"], obj["metadata"]["name"]) for obj in overlay}
    used: dict[tuple[str, ...], Reference] = {}
    for obj in overlay:
        owner = f"{obj['kind']} {obj['metadata']['name']}"
        for name, key in _secrets(obj):
            for part in {"", key}:
                if ("Secret", name) not in brought:
                    one = Reference("Secret", NAMESPACE, name, owner, part)
                    used.setdefault((one.kind, one.namespace, one.name, one.key), one)
        config = obj.get("spec", {}).get("config") if obj["kind"] == "Broker" else None
        if config and (config["kind"], config["name"]) not in brought:
            place = (config["kind"], config.get("namespace", NAMESPACE), config["name"])
            used.setdefault(place, Reference(*place, owner))
    return list(used.values())


def missing(overlay: Iterable[Object], cluster: Cluster) -> list[str]:
    """Return what the cluster lacks for an overlay, a line each that says how to get it; none when it has it all."""
    overlay = list(overlay)
    lines = []
    for api_version, kind in sorted(_needed_kinds(overlay)):
        group = api_version.rpartition("/")[0]
        if (group, kind) not in cluster.kinds or api_version not in cluster.versions:
            product, how = PRODUCTS.get(group, ("its own product", "install that"))
            lines.append(f"The cluster does not know {kind} ({api_version}), which comes with {product}: {how}")
    if any(obj["kind"] == "EventPolicy" for obj in overlay) and cluster.features.get(OIDC, "").lower() != "enabled":
        lines.append(f"An EventPolicy is refused until Knative Eventing asks for tokens: {SWITCH_ON}")
    absent = [used for used in references(overlay) if used not in cluster.present]
    gone = {used[:3] for used in absent if not used.key}
    for used in absent:
        kind, namespace, name, why, key = used
        how = "the first lines of the overlay say how it is made" if kind == "Secret" else "see its documentation"
        if not key:
            lines.append(f"{kind} {name} is not in the namespace {namespace}, and {why} uses it: {how}")
        elif used[:3] not in gone:
            lines.append(f"{kind} {name} in the namespace {namespace} has no {key}, and {why} uses it: {how}")
    return lines


def _needed_kinds(overlay: Iterable[Object]) -> set[tuple[str, str]]:
    needed = set()
    for obj in overlay:
        needed.add((obj["apiVersion"], obj["kind"]))
        broker_class = obj["metadata"].get("annotations", {}).get("eventing.knative.dev/broker.class", "")
        if obj["kind"] == "Broker" and broker_class in OF_BROKER_CLASS:
            needed.add(OF_BROKER_CLASS[broker_class])
    return needed


def _secrets(value: Any) -> Iterator[tuple[str, str]]:
    """Find the Secrets that pods within an object need: each name, with the key where one is named."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in ("secretKeyRef", "secretRef") and not child.get("optional"):
                yield child["name"], child.get("key", "")
            elif key == "secret" and "secretName" in child and not child.get("optional"):
                yield child["secretName"], ""
            else:
                yield from _secrets(child)
    elif isinstance(value, list):
        for child in value:
            yield from _secrets(child)
