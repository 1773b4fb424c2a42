"""Every manifest is what the API server of a cluster takes."""

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.manifests.rendered import OVERLAYS, WITH_COMPONENT, Manifest, lacking, of_kind, one, rendered

KUBERNETES = "1.36"
FLAGS_ON = {"kubernetes.podspec-volumes-emptydir"}
"""Of Knative's feature flags, those that are on where nobody has changed them."""


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *WITH_COMPONENT])
def test_core_kinds_fit_the_kubernetes_schema(overlay: str) -> None:
    core = [m for m in rendered(overlay) if "knative.dev/" not in m["apiVersion"]]
    core += [{"apiVersion": "batch/v1", "kind": "Job", **m["spec"]["job"]} for m in of_kind(overlay, "JobSink")]
    assert core
    for manifest in core:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *WITH_COMPONENT])
def test_knative_kinds_fit_their_crds(overlay: str) -> None:
    for manifest in knative(overlay):
        validator(manifest["apiVersion"], manifest["kind"]).validate(manifest)


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *WITH_COMPONENT])
def test_no_field_needs_a_feature_flag_that_is_off(overlay: str) -> None:
    for manifest in knative(overlay):
        flags = set(flags_of(manifest, schema_of(manifest)))
        assert flags <= FLAGS_ON, manifest["metadata"]["name"]


def test_a_field_that_knative_does_not_know_is_noticed() -> None:
    manifest = copy.deepcopy(one("base", "Service", "worker", "serving.knative.dev"))
    manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 30
    with pytest.raises(jsonschema.ValidationError, match="terminationGracePeriodSeconds"):
        validator(manifest["apiVersion"], manifest["kind"]).validate(manifest)


def test_a_field_behind_a_flag_is_noticed() -> None:
    manifest = copy.deepcopy(one("base", "Service", "worker", "serving.knative.dev"))
    manifest["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    assert set(flags_of(manifest, schema_of(manifest))) - FLAGS_ON == {"kubernetes.podspec-nodeselector"}


def knative(overlay: str) -> list[Manifest]:
    return [m for m in rendered(overlay) if "knative.dev/" in m["apiVersion"]]


def schema_of(manifest: Manifest) -> dict[str, Any]:
    return crds()[manifest["apiVersion"], manifest["kind"]]


@cache
def crds() -> dict[tuple[str, str], dict[str, Any]]:
    """The schemas by apiVersion and kind."""
    folder = os.environ.get("KNATIVE_CRDS")
    if not folder:
        lacking("not run: KNATIVE_CRDS names no folder with the CRDs of Knative")
    return {
        (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"]): version["schema"][
            "openAPIV3Schema"
        ]
        for path in Path(folder).glob("*.yaml")
        for crd in yaml.safe_load_all(path.read_text())
        if crd and crd["kind"] == "CustomResourceDefinition"
        for version in crd["spec"]["versions"]
    }


@cache
def validator(api_version: str, kind: str) -> jsonschema.Draft202012Validator:
    """Of the schema, with every field refused that it does not name, as Knative's webhooks do."""
    schema = crds()[api_version, kind]
    top = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    closed_schema = closed(schema | {"properties": schema["properties"] | top})
    jsonschema.Draft202012Validator.check_schema(closed_schema)
    return jsonschema.Draft202012Validator(closed_schema)


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    schema = dict(schema)
    if "properties" in schema:
        schema["properties"] = {name: closed(field) for name, field in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    if "items" in schema:
        schema["items"] = closed(schema["items"])
    return schema


def flags_of(value: Any, schema: dict[str, Any]) -> Iterator[str]:
    """The feature flags that the fields of a value are behind, as the descriptions in the CRD say."""
    _, behind, flag = schema.get("description", "").partition("accessible behind a feature flag - ")
    if behind:
        yield flag.split()[0]
    if isinstance(value, dict):
        for name, field in value.items():
            yield from flags_of(field, schema.get("properties", {}).get(name, {}))
    elif isinstance(value, list):
        for item in value:
            yield from flags_of(item, schema.get("items", {}))
