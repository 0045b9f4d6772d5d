"""Releases made of the parts of another, for tests that need two and no second training."""

from __future__ import annotations

from pathlib import Path

from rolecall.platform.registry import Registry
from rolecall.platform.release import MANIFEST_FILE, ReleaseBuilder, read_manifest


def publish(registry: Registry, folder: Path) -> str:
    """Publish and register a sealed release; returns its id. Nobody judged it."""
    release_id = registry.releases.publish(folder).id
    run_id = registry.client.create_run(registry.experiment_id).info.run_id
    registry.register(release_id, run_id=run_id, log_model=lambda: f"{registry.releases.uri}/releases/{release_id}")
    return release_id


def built_again(source: Path, folder: Path) -> Path:
    """The same parts built with other settings: another release."""
    manifest = read_manifest((source / MANIFEST_FILE).read_bytes())
    builder = ReleaseBuilder(folder)
    for part in manifest.parts:
        builder.add(part.name, part.file, source=source / part.file, content=part.content)
    builder.seal(
        as_of=manifest.as_of,
        code_version=manifest.code_version,
        tables=manifest.tables,
        settings=manifest.settings | {"built": "again"},
    )
    return folder
