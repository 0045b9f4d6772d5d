"""Releases as versions of one MLflow registered model, and which of them is served.

Aliases: `built` (newest), `challenger` (passed the gate), `champion` (served), `previous`. They mirror the
promotions table; `reconcile` finishes a mirroring that was interrupted, follows a `champion` alias that somebody
moved in MLflow, and repairs one that is missing or names no intact release.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import structlog

from rolecall.platform.errors import (
    ConflictError,
    GateRefusedError,
    InputError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from rolecall.platform.ledger import exclusive, open_ledger
from rolecall.platform.mlflow_setup import configure_mlflow, ensure_experiment, erase_evaluation, erase_logged_models
from rolecall.platform.promotions import Promotion, Promotions
from rolecall.platform.release import Manifest, is_release_id
from rolecall.platform.release_store import ReleaseStore
from rolecall.platform.settings import Settings
from rolecall.platform.taints import Taint, Taints

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

BUILT, CHALLENGER, CHAMPION, PREVIOUS = "built", "challenger", "champion", "previous"
PASSED, REFUSED = "passed", "refused"
_RELEASE, _SEAL, _GATE, _REASONS = "release_id", "manifest_sha256", "gate", "gate_reasons"
_TAINTED, _PURGED = "tainted", "purged"
_TAG_LENGTH = 4000


@dataclass(frozen=True, kw_only=True)
class ReleaseInfo:
    """What the registry knows of one release. `gate`: passed, refused, or None before it was judged."""

    release_id: str
    version: str
    run_id: str | None
    registered_at: datetime
    gate: str | None
    reasons: tuple[str, ...]
    aliases: tuple[str, ...]
    taint: Taint | None = None

    @property
    def state(self) -> str:
        """What keeps it from being served again: tainted or purged, else nothing."""
        if self.taint is None:
            return ""
        word = "purged" if self.taint.purged_at else f"tainted, gone by {self.taint.due_at:%Y-%m-%d}"
        return f"{word}: {self.taint.reason}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One value that differs between two releases; None where a release lacks it."""

    where: str
    before: Any
    after: Any


class Registry:
    """The releases of one model name. `who` is written beside every promotion."""

    def __init__(
        self,
        *,
        tracking_uri: str,
        artifacts_uri: str,
        promotions: Promotions,
        releases: ReleaseStore,
        experiment: str = "rolecall",
        who: str | None = None,
    ) -> None:
        self.promotions = promotions
        self.taints = Taints(promotions.engine, promotions.model)
        self.releases = releases
        self.model_name = promotions.model
        self.who = who or _whoami()
        with exclusive(promotions.engine, "mlflow"):  # two first starts must not both create MLflow's tables
            self.client: MlflowClient = configure_mlflow(tracking_uri, releases.options)
            self.experiment_id = ensure_experiment(self.client, experiment, artifacts_uri)
            if not self.client.search_registered_models(f"name='{self.model_name}'"):
                self.client.create_registered_model(self.model_name)

    @classmethod
    def from_settings(cls, settings: Settings, *, who: str | None = None) -> Registry:
        """The registry of a settings tree; creates its databases on first use."""
        return cls(
            tracking_uri=settings.tracking_uri,
            artifacts_uri=settings.artifacts_uri,
            promotions=Promotions(open_ledger(settings.ledger_url), settings.registry.model_name),
            releases=ReleaseStore(settings.artifacts_uri, settings.cache_dir, settings.storage.options),
            experiment=settings.registry.experiment,
            who=who,
        )

    def register(self, release_id: str, *, run_id: str, log_model: Callable[[], str]) -> str:
        """Enter a published release as a model version with alias `built`; returns the version.

        `log_model` logs the MLflow model and returns its URI; it is called only for a release that has no version
        yet. Registering a known release changes nothing. Raises NotFoundError for one that was not published.
        """
        seal = self.releases.manifest(release_id).sha256
        with exclusive(self.promotions.engine, "register"):
            known = self._version(release_id)
            if known is not None:
                if known.tags.get(_SEAL) != seal:  # published again after damage: same content, other index files
                    self.client.set_model_version_tag(self.model_name, str(known.version), _SEAL, seal)
                return str(known.version)
            made = self.client.create_model_version(
                self.model_name, source=log_model(), run_id=run_id, tags={_RELEASE: release_id, _SEAL: seal}
            )
            self.client.set_registered_model_alias(self.model_name, BUILT, str(made.version))
            return str(made.version)

    def judge(self, release_id: str, *, passed: bool, reasons: Sequence[str] = ()) -> None:
        """Record the gate's verdict; a release that passed becomes `challenger`, a refused one is kept with reasons."""
        version = self._known(release_id).version
        text = orjson.dumps(_fitting(reasons)).decode()
        self.client.set_model_version_tag(self.model_name, str(version), _REASONS, text)
        self.client.set_model_version_tag(self.model_name, str(version), _GATE, PASSED if passed else REFUSED)
        if passed:
            self.client.set_registered_model_alias(self.model_name, CHALLENGER, str(version))

    def promote(
        self, release_id: str, *, expected: str | None, why: str, gated: bool = True, automatic: bool = False
    ) -> Promotion:
        """Make a release the champion if `expected` still is (None: no champion yet), then mirror it in MLflow.

        Raises GateRefusedError where `gated` and the gate's verdict is not "passed", IntegrityError for a damaged
        release, ConflictError for a tainted one, when the champion changed or, with `automatic`, while a rollback
        holds promotion.
        """
        self.reconcile()
        info = self.get(release_id)
        if gated and info.gate != PASSED:
            raise GateRefusedError(
                f"the gate's verdict on {release_id} is {info.gate or 'missing'}: {'; '.join(info.reasons) or '-'}",
                "a release that passed",
                "promote it ungated, which is recorded, or build a better one",
            )
        self.taints.refuse(release_id)
        self._fetch(release_id)
        row = self.promotions.promote(
            release_id, expected=expected, who=self.who, why=why, gated=gated, automatic=automatic
        )
        self.reconcile()
        return row

    def rollback(self, why: str) -> Promotion:
        """Return to the newest intact release that was champion before this one, and hold automatic promotion.

        Raises NotFoundError where there is none.
        """
        champion = self.reconcile()
        tainted = {taint.release_id: taint for taint in self.taints.all()}
        for earlier in reversed(self.promotions.trail()[:-1]):
            if earlier in tainted:
                continue
            if earlier != champion and self._version(earlier) is not None and self._is_intact(earlier):
                row = self.promotions.roll_back(earlier, expected=champion, who=self.who, why=why)
                self.reconcile()
                return row
        told = [f"{name}: {tainted[name].reason}" for name in self.promotions.trail()[:-1] if name in tainted]
        raise NotFoundError(
            f"no intact release was champion before {champion or 'this'}" + (f" ({'; '.join(told)})" if told else ""),
            "an earlier champion that is not tainted",
            "promote one by its id, or build a day again",
        )

    def resume(self, why: str) -> bool:
        """End the hold that a rollback set. False where nothing was held."""
        return self.promotions.resume(who=self.who, why=why)

    def champion(self) -> str | None:
        """The release to serve, by the table alone; `reconcile` looks at MLflow too."""
        row = self.promotions.current()
        return row.to_release if row else None

    def reconcile(self) -> str | None:
        """Bring table and aliases together and return the champion's release id, None while there is none.

        Cheap where both agree; a server polls it. Raises UnavailableError while MLflow cannot answer: `champion`
        still does, and the next call finishes what this one could not.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self._reconcile()
        except MlflowException as error:
            raise UnavailableError(
                f"MLflow did not answer: {error}", todo="see whether it runs, then ask again"
            ) from error

    def _reconcile(self) -> str | None:
        row = self.promotions.current()
        if (row is None or row.mirrored) and self._aliased(CHAMPION) == (row.to_release if row else None):
            return row.to_release if row else None
        with exclusive(self.promotions.engine, "mirror"):
            return self._settle()

    def taint(self, release_id: str, reason: str, *, at: datetime, due_at: datetime) -> bool:
        """Mark a release that must go, in the ledger and as a tag in MLflow. False where it was marked before.

        It is served on where it is the champion, but never promoted or rolled back to again.
        """
        fresh = self.taints.mark(release_id, reason, at=at, due_at=due_at)
        self._tag(release_id, _TAINTED, reason)
        for alias, number in self._aliases().items():
            version = self._version(release_id)
            if alias in (CHALLENGER, PREVIOUS) and version is not None and number == str(version.version):
                self._set_alias(alias, None)
        return fresh

    def purge(self, release_id: str, *, at: datetime) -> None:
        """Remove every byte of a tainted release: its folder, this machine's cached copy, and the models and the report
        that MLflow keeps.

        Raises ConflictError for the champion, InputError for one that is not tainted.
        """
        taint = self.taints.find(release_id)
        if taint is None:
            raise InputError(f"release {release_id} is not tainted", "a tainted release")
        if self.champion() == release_id:
            raise ConflictError(
                f"release {release_id} is being served", "a release nobody serves", "promote another one first"
            )
        self.releases.purge(release_id, reason=taint.reason, at=at)
        erase_logged_models(
            self.client, self.experiment_id, release_id, self._version(release_id), self.releases.options
        )
        self._erase_evaluation(release_id)
        self._tag(release_id, _PURGED, at.isoformat())
        self.taints.purged(release_id, at=at)

    def fetch_to_serve(self, release_id: str) -> Path:
        """A verified local folder of a release; cached copies of tainted ones leave this machine on the way."""
        for taint in self.taints.all():
            if taint.release_id != release_id:
                self.releases.drop_cached(taint.release_id)
        return self.releases.fetch(release_id)

    def _erase_evaluation(self, release_id: str) -> None:
        """A run that built its day again, without the person, has logged the new evaluation over the old one."""
        version = self._version(release_id)
        if version is None or not version.run_id:
            return
        if all(info.taint is not None for info in self.list() if info.run_id == version.run_id):
            erase_evaluation(self.client, version.run_id, self.releases.options)

    def _tag(self, release_id: str, name: str, text: str) -> None:
        version = self._version(release_id)
        if version is not None:
            self.client.set_model_version_tag(self.model_name, str(version.version), name, text[:_TAG_LENGTH])

    def list(self) -> list[ReleaseInfo]:
        """Every registered release, newest first."""
        aliases, taints = self._aliases(), {taint.release_id: taint for taint in self.taints.all()}
        versions = self.client.search_model_versions(f"name='{self.model_name}'", order_by=["version_number DESC"])
        return [
            _info(version, aliases, taints.get(version.tags[_RELEASE]))
            for version in versions
            if _RELEASE in version.tags
        ]

    def get(self, release_id: str) -> ReleaseInfo:
        """Raises NotFoundError for a release that is not registered."""
        return _info(self._known(release_id), self._aliases(), self.taints.find(release_id))

    def diff(self, before: str, after: str) -> tuple[Change, ...]:
        """What differs between two releases: code, tables, settings, parts and metrics, in that order."""
        one, two = (_flat(self.releases.manifest(release_id)) for release_id in (before, after))
        where = [*one, *(key for key in two if key not in one)]
        return tuple(
            Change(where=key, before=one.get(key), after=two.get(key)) for key in where if one.get(key) != two.get(key)
        )

    def _settle(self) -> str | None:
        row = self.promotions.current()
        champion = row.to_release if row else None
        if row and not row.mirrored:
            self._mirror(row)
            return champion
        aliased = self._aliased(CHAMPION)
        if aliased == champion:
            return champion
        if aliased is None or not self._is_intact(aliased):
            if row:
                _log().warning("champion alias repaired from the promotions table", champion=champion, alias=aliased)
                self._mirror(row)
            return champion
        try:
            followed = self.promotions.follow(aliased, expected=champion)
        except ConflictError:
            return self._settle()  # a promotion was committed in between: it goes first
        _log().warning("champion alias was moved outside; followed", before=champion, after=aliased)
        self._mirror(followed)
        return aliased

    def _mirror(self, row: Promotion) -> None:
        """Write a promotion into the aliases, then mark it; repeating this after a kill gives the same aliases."""
        version = self._version(row.to_release) if row.to_release else None
        if version is None:
            _log().error("the champion has no model version in MLflow; register it again", release=row.to_release)
            return
        self._set_alias(CHAMPION, str(version.version))
        tainted = {taint.release_id for taint in self.taints.all()}
        earlier = [name for name in self.promotions.trail()[:-1] if name not in tainted]
        before = self._version(earlier[-1]) if earlier else None
        self._set_alias(PREVIOUS, str(before.version) if before else None)
        if self._aliases().get(CHALLENGER) == str(version.version):
            self._set_alias(CHALLENGER, None)
        self.promotions.mark_mirrored(row.sequence)

    def _set_alias(self, alias: str, version: str | None) -> None:
        if version is not None:
            self.client.set_registered_model_alias(self.model_name, alias, version)
        elif alias in self._aliases():
            self.client.delete_registered_model_alias(self.model_name, alias)

    def _aliases(self) -> dict[str, str]:
        aliases = self.client.get_registered_model(self.model_name).aliases
        return {alias: str(version) for alias, version in aliases.items()}

    def _aliased(self, alias: str) -> str | None:
        """Release id of the version an alias names; None where the alias is missing or names no release."""
        version = self._aliases().get(alias)
        if version is None:
            return None
        tag = self.client.get_model_version(self.model_name, version).tags.get(_RELEASE, "")
        return tag if is_release_id(tag) else None

    def _version(self, release_id: str) -> ModelVersion | None:
        query = f"name='{self.model_name}' and tags.{_RELEASE}='{release_id}'"
        found = self.client.search_model_versions(query, order_by=["version_number ASC"])
        return found[0] if found else None

    def _known(self, release_id: str) -> ModelVersion:
        version = self._version(release_id) if is_release_id(release_id) else None
        if version is None:
            known = ", ".join(info.release_id for info in self.list()[:10]) or "none so far"
            raise NotFoundError(f"release {release_id} is not registered", known, "see `rolecall releases list`")
        return version

    def _fetch(self, release_id: str) -> None:
        version = self._version(release_id)
        self.releases.fetch(release_id, seal=version.tags.get(_SEAL) if version else None)

    def _is_intact(self, release_id: str) -> bool:
        if self.taints.find(release_id) is not None:
            return False
        try:
            self._fetch(release_id)
        except (NotFoundError, IntegrityError):
            return False
        return True


def _whoami() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _info(version: ModelVersion, aliases: dict[str, str], taint: Taint | None) -> ReleaseInfo:
    registered_at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=version.creation_timestamp)
    return ReleaseInfo(
        release_id=version.tags[_RELEASE],
        version=str(version.version),
        run_id=version.run_id or None,
        registered_at=registered_at,
        gate=version.tags.get(_GATE),
        reasons=tuple(orjson.loads(version.tags.get(_REASONS, "[]"))),
        aliases=tuple(sorted(alias for alias, number in aliases.items() if number == str(version.version))),
        taint=taint,
    )


def _fitting(reasons: Sequence[str]) -> list[str]:
    """As many reasons, each cut to 300 characters, as a tag holds."""
    kept: list[str] = []
    for reason in reasons:
        if len(orjson.dumps([*kept, reason[:300]])) > _TAG_LENGTH:
            break
        kept.append(reason[:300])
    return kept


def _flat(manifest: Manifest) -> dict[str, Any]:
    flat: dict[str, Any] = {"code": manifest.code_version}
    flat |= {f"tables.{name}": number for name, number in sorted(manifest.tables.items())}
    flat |= _leaves("settings", manifest.settings)
    flat |= {f"parts.{part.name}": part.content or None for part in manifest.parts}
    flat |= {f"metrics.{name}": value for name, value in sorted(manifest.metrics.items())}
    return flat


def _leaves(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {key: leaf for name in sorted(value) for key, leaf in _leaves(f"{prefix}.{name}", value[name]).items()}


def _log() -> Any:
    return structlog.get_logger("rolecall.registry")
