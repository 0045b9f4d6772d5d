"""The committed deployment files, and the schemas they are held against."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
INFRA = ROOT / "infra"
SCHEMAS = Path(__file__).with_name("schemas")
Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    """The documents of one YAML file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def manifests() -> list[Document]:
    """Every Kubernetes object of infra/kuberay."""
    files = sorted(path for path in (INFRA / "kuberay").glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in files for document in documents(path)]


def manifest(kind: str, name: str = "") -> Document:
    """The object of a kind, and of a name where there are several."""
    return next(m for m in manifests() if m["kind"] == kind and name in ("", m["metadata"].get("name")))


def small_schema(kind: str) -> Document:
    """The committed schema of a kind: a field it does not name is refused."""
    parts: Document = {}
    for name in ("kuberay", "kubernetes"):
        parts |= yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text())["$defs"]
    return closed({"$ref": f"#/$defs/{kind}", "$defs": parts})


def published_schema(folder: Path, kind: str) -> Document:
    """KubeRay's own schema of a kind, from a folder with its custom resource definitions, closed likewise."""
    definition = yaml.safe_load((folder / f"ray.io_{kind.lower()}s.yaml").read_text())
    version = next(version for version in definition["spec"]["versions"] if version["name"] == "v1")
    return closed(version["schema"]["openAPIV3Schema"])


def closed(schema: Any) -> Any:
    """The schema with every object that lists its fields open to no other: a wrong name then fails."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inside = {key: closed(value) for key, value in schema.items()}
    listed = isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema
    return {"type": "object", "additionalProperties": False, **inside} if listed else inside


def problems(schema: Document, document: Document) -> list[str]:
    """What a schema has against a document, as `path: message`."""
    found = Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def pods(document: Any) -> Iterator[Document]:
    """Every pod specification inside a document."""
    if isinstance(document, list):
        for item in document:
            yield from pods(item)
    elif isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pods(value)


def containers() -> list[Document]:
    """Every container of every manifest."""
    return [container for document in manifests() for pod in pods(document) for container in pod["containers"]]
