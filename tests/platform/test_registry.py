"""The registry: MLflow mirrors the promotions table, through every interruption and every hand that moves an alias."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rolecall.platform.errors import ConflictError, GateRefusedError, IntegrityError, NotFoundError, UnavailableError
from rolecall.platform.mlflow_setup import configure_mlflow, log_release_model
from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import Settings, load_settings

MODEL_CODE = '''
from pathlib import Path
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    """Answers with what the release's model file says."""

    def load_context(self, context):
        self.text = (Path(context.artifacts["release"]) / "model.txt").read_text()

    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return [self.text for _ in model_input]

mlflow.models.set_model(Echo())
'''
OPEN = """
import sys
from pathlib import Path
from rolecall.platform.registry import Registry
from rolecall.platform.settings import load_settings
print(Registry.from_settings(load_settings(environ={}, home=Path(sys.argv[1]))).experiment_id)
"""
ASK = """
import mlflow
print(mlflow.pyfunc.load_model("models:/rolecall@champion").predict(["x"]))
"""


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's tables, made once: creating them runs every migration it ever had."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    configure_mlflow(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def settings(tmp_path: Path, empty_mlflow: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copyfile(empty_mlflow, home / "mlflow.db")
    return load_settings(environ={}, home=home)


@dataclass(frozen=True, kw_only=True)
class World:
    """A registry, a folder to build in, and MLflow as an outsider sees it."""

    registry: Registry
    folder: Path
    settings: Settings

    def build(self, model: str, *, passed: bool | None = True) -> str:
        """Build, publish, register and judge a release whose model file holds `model`; returns its id."""
        builder = ReleaseBuilder(self.folder / model)
        builder.path("model.txt").write_text(model)
        builder.add("model", "model.txt")
        manifest = builder.seal(
            as_of=datetime(2026, 3, 1, tzinfo=UTC),
            code_version="1",
            tables={"jobs": len(model)},
            settings={"ranking": {"seed": len(model), "rounds": 3}},
            metrics={"ndcg": 0.1},
        )
        self.registry.releases.publish(builder.folder)
        run_id = self.registry.client.create_run(self.registry.experiment_id).info.run_id
        self.registry.register(manifest.id, run_id=run_id, log_model=lambda: f"runs:/{run_id}/release")
        if passed is not None:
            self.registry.judge(manifest.id, passed=passed, reasons=["ndcg@10 0.1 against 0.2"])
        return manifest.id

    def promote(self, *releases: str) -> None:
        for release in releases:
            self.registry.promote(release, expected=self.registry.champion(), why="better")

    def alias(self, name: str) -> str | None:
        """Release id an alias names, read with a client of its own."""
        found = [info.release_id for info in self.registry.list() if name in info.aliases]
        return found[0] if found else None

    def move_alias(self, name: str, release: str) -> None:
        """What an engineer does in MLflow's own UI or client."""
        self.registry.client.set_registered_model_alias("rolecall", name, self.registry.get(release).version)

    def damage(self, release: str) -> None:
        (self.registry.releases.fetch(release) / "model.txt").write_text("hostile")


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(registry=Registry.from_settings(settings, who="ann"), folder=tmp_path / "staging", settings=settings)


def test_without_a_promotion_there_is_no_champion(world: World) -> None:
    assert world.registry.reconcile() is None
    world.build("a")
    assert world.registry.reconcile() is None
    assert world.alias("champion") is None


def test_registering_again_changes_nothing(world: World) -> None:
    release = world.build("a")
    before = world.registry.list()

    def unwanted() -> str:
        raise AssertionError

    assert world.registry.register(release, run_id="other", log_model=unwanted) == before[0].version
    assert world.registry.list() == before


def test_registering_at_once_makes_one_version(world: World) -> None:
    release = world.build("a")
    builder = ReleaseBuilder(world.folder / "b")
    builder.path("model.txt").write_text("b")
    builder.add("model", "model.txt")
    other = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={})
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.get(release).run_id or ""

    def register(_: int) -> str:
        return world.registry.register(other.id, run_id=run_id, log_model=lambda: "runs:/x/y")

    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(register, range(4)))
    assert len(versions) == 1
    assert [info.release_id for info in world.registry.list()] == [other.id, release]


def test_an_unpublished_release_is_not_registered(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.registry.register("0" * 16, run_id="r", log_model=lambda: "runs:/r/x")


def test_a_registration_killed_while_logging_is_done_again(world: World) -> None:
    builder = ReleaseBuilder(world.folder / "a")
    builder.path("model.txt").write_text("a")
    builder.add("model", "model.txt")
    release = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={}).id
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.client.create_run(world.registry.experiment_id).info.run_id

    def killed() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.registry.register(release, run_id=run_id, log_model=killed)
    assert world.registry.list() == []
    world.registry.register(release, run_id=run_id, log_model=lambda: "runs:/x/y")
    assert world.alias("built") == release


def test_the_aliases_tell_the_story(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc", passed=False)
    assert (world.alias("built"), world.alias("challenger")) == (c, b)
    world.promote(a)
    assert (world.alias("champion"), world.alias("previous")) == (a, None)
    world.promote(b)
    assert (world.alias("champion"), world.alias("previous"), world.alias("challenger")) == (b, a, None)
    assert [row.mirrored for row in world.registry.promotions.history()] == [True, True]


def test_a_refused_release_is_kept_with_its_reasons_and_not_promoted(world: World) -> None:
    release = world.build("a", passed=False)
    info = world.registry.get(release)
    assert (info.gate, info.reasons, info.run_id is not None) == ("refused", ("ndcg@10 0.1 against 0.2",), True)
    with pytest.raises(GateRefusedError, match=r"0\.1 against 0\.2"):
        world.promote(release)
    world.registry.promote(release, expected=None, why="we know better", gated=False)
    row = world.registry.promotions.current()
    assert row is not None
    assert not row.gated
    assert world.alias("champion") == release


def test_an_unjudged_release_is_not_promoted(world: World) -> None:
    release = world.build("a", passed=None)
    with pytest.raises(GateRefusedError, match="missing"):
        world.promote(release)


def test_many_long_reasons_still_fit(world: World) -> None:
    release = world.build("a", passed=None)
    world.registry.judge(release, passed=False, reasons=[f"{n} " + "ü" * 1000 for n in range(50)])
    reasons = world.registry.get(release).reasons
    assert len(reasons) > 3
    assert all(len(reason) == 300 for reason in reasons)


def test_a_promotion_against_another_champion_is_refused(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a, b)
    with pytest.raises(ConflictError):
        world.registry.promote(c, expected=a, why="judged yesterday")
    assert world.alias("champion") == b


def test_a_damaged_release_is_not_promoted(world: World) -> None:
    release = world.build("a")
    world.damage(release)
    with pytest.raises(IntegrityError):
        world.promote(release)
    assert world.registry.champion() is None


def test_unknown_releases_are_named_in_the_error(world: World) -> None:
    known = world.build("a")
    for unknown in ("0" * 16, "x' or name='rolecall", ""):
        with pytest.raises(NotFoundError, match=known):
            world.registry.get(unknown)


def test_an_interrupted_mirroring_is_finished(world: World) -> None:
    """Killed after the transaction, before the first alias was written."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    assert world.alias("champion") == a
    assert world.registry.reconcile() == b
    assert (world.alias("champion"), world.alias("previous")) == (b, a)
    row = world.registry.promotions.current()
    assert row is not None
    assert (row.mirrored, row.action) == (True, "promote")


def test_a_half_written_mirroring_is_finished_not_taken_for_an_outside_move(world: World) -> None:
    """Killed after the champion alias, before `previous` and the mark."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    world.move_alias("champion", b)
    assert world.registry.reconcile() == b
    assert world.alias("previous") == a
    assert [row.action for row in world.registry.promotions.history()] == ["promote", "promote"]


def test_an_interrupted_mirroring_goes_before_an_outside_move(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    world.move_alias("champion", c)
    assert world.registry.reconcile() == b
    assert world.alias("champion") == b


def test_an_outside_move_is_followed_and_recorded_as_ungated(world: World) -> None:
    a, b = world.build("a"), world.build("bb", passed=False)
    world.promote(a)
    world.move_alias("champion", b)
    assert world.registry.reconcile() == b
    row = world.registry.promotions.current()
    assert row is not None
    assert (row.action, row.who, row.from_release, row.to_release, row.gated) == ("follow", "mlflow", a, b, False)
    assert world.alias("previous") == a
    assert world.registry.reconcile() == b
    assert len(world.registry.promotions.history()) == 2


def test_a_first_champion_set_from_outside_is_followed(world: World) -> None:
    release = world.build("a")
    world.move_alias("champion", release)
    assert world.registry.reconcile() == release
    assert [row.action for row in world.registry.promotions.history()] == ["follow"]


def test_a_promotion_judged_before_an_outside_move_loses(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a)
    world.move_alias("champion", b)
    with pytest.raises(ConflictError):
        world.registry.promote(c, expected=a, why="better than a")
    assert world.registry.champion() == b


def test_a_missing_alias_is_repaired(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a, b)
    world.registry.client.delete_registered_model_alias("rolecall", "champion")
    assert world.registry.reconcile() == b
    assert world.alias("champion") == b
    assert len(world.registry.promotions.history()) == 2


def test_an_alias_on_a_damaged_release_is_repaired(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.damage(b)
    world.move_alias("champion", b)
    assert world.registry.reconcile() == a
    assert world.alias("champion") == a
    assert len(world.registry.promotions.history()) == 1


def test_an_alias_on_a_release_swapped_whole_is_repaired(world: World) -> None:
    """Files and manifest agree with each other, but not with what was registered."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    manifest = world.registry.releases.fetch(b) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"ndcg":0.1', b'"ndcg":0.9'))
    world.move_alias("champion", b)
    assert world.registry.reconcile() == a


@pytest.mark.parametrize("tag", [None, "../../../etc", "0" * 16])
def test_an_alias_on_a_version_that_is_no_release_is_repaired(world: World, tag: str | None) -> None:
    a = world.build("a")
    world.promote(a)
    client = world.registry.client
    version = client.create_model_version("rolecall", source="runs:/x/y", tags={"release_id": tag} if tag else {})
    client.set_registered_model_alias("rolecall", "champion", version.version)
    assert world.registry.reconcile() == a
    assert world.alias("champion") == a


def test_a_version_deleted_in_mlflow_does_not_stop_serving(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    world.registry.client.delete_model_version("rolecall", world.registry.get(a).version)
    assert world.registry.reconcile() == a
    assert world.registry.champion() == a


def test_rolling_back_walks_back_and_holds(world: World) -> None:
    a, b, c, d = (world.build(name) for name in ("a", "bb", "ccc", "dddd"))
    world.promote(a, b, c)
    assert world.registry.rollback("slow").to_release == b
    assert (world.alias("champion"), world.alias("previous")) == (b, a)
    assert world.registry.rollback("slow as well").to_release == a
    assert (world.alias("champion"), world.alias("previous")) == (a, None)
    with pytest.raises(NotFoundError):
        world.registry.rollback("further")
    with pytest.raises(ConflictError, match="held"):
        world.registry.promote(d, expected=a, why="daily", automatic=True)
    assert world.registry.resume("repaired")
    world.registry.promote(d, expected=a, why="daily", automatic=True)
    assert world.alias("champion") == d


def test_a_rollback_passes_over_a_damaged_release(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a, b, c)
    world.damage(b)
    assert world.registry.rollback("c is slow").to_release == a
    assert world.alias("champion") == a


def test_a_rollback_undoes_an_outside_move(world: World) -> None:
    a, b = world.build("a"), world.build("bb", passed=False)
    world.promote(a)
    world.move_alias("champion", b)
    assert world.registry.rollback("nobody asked").to_release == a


def test_an_interrupted_rollback_is_finished(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a, b)
    world.registry.promotions.roll_back(a, expected=b, who="ann", why="slow")
    assert world.registry.reconcile() == a
    assert (world.alias("champion"), world.alias("previous")) == (a, None)


class Dying:
    """MLflow's client, killed at its n-th call."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client = client
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return getattr(self.client, name)


def test_a_promotion_killed_at_any_mlflow_call_is_whole_or_absent_after_reconcile(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    client = world.registry.client
    outcomes = []
    for calls in range(40):
        world.registry.client = Dying(client, calls)
        try:
            world.promote(b)
            finished = True
        except KeyboardInterrupt:
            finished = False
        world.registry.client = client
        champion = world.registry.champion()
        assert world.registry.reconcile() == champion == world.alias("champion")
        assert world.alias("previous") == (a if champion == b else None)
        rows = world.registry.promotions.history()
        assert all(row.mirrored and row.action in ("promote", "rollback") for row in rows)
        outcomes.append((champion == b, finished))
        if finished:
            break
        if champion == b:
            world.registry.rollback("again")
    assert outcomes[0] == (False, False)
    assert (True, False) in outcomes
    assert outcomes[-1] == (True, True)


def test_while_mlflow_cannot_answer_the_table_still_names_the_champion(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    with sqlite3.connect(world.settings.home / "mlflow.db") as database:
        database.execute("ALTER TABLE registered_models RENAME TO away")
    with pytest.raises(UnavailableError):
        world.registry.reconcile()
    assert world.registry.champion() == a
    with sqlite3.connect(world.settings.home / "mlflow.db") as database:
        database.execute("ALTER TABLE away RENAME TO registered_models")
    world.promote(b)
    assert world.registry.reconcile() == b


@pytest.mark.slow
def test_processes_that_start_on_a_new_home_at_once_all_succeed(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    experiments = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(experiments) == 1


def test_concurrent_promoters_leave_table_and_aliases_in_agreement(world: World) -> None:
    first = world.build("first")
    rivals = [world.build("x" * n) for n in range(1, 5)]
    world.promote(first)

    def race(release: str) -> bool:
        try:
            world.registry.promote(release, expected=first, why="race")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, rivals))
    winner = rivals[won.index(True)]
    assert sum(won) == 1
    assert world.alias("champion") == winner == world.registry.champion()
    assert [row.action for row in world.registry.promotions.history()] == ["promote", "promote"]


def test_pollers_beside_promotions_never_invent_an_outside_move(world: World) -> None:
    releases = [world.build("x" * n) for n in range(1, 4)]
    with ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(_poll, world.registry, 6) for _ in range(2)]
        world.promote(*releases, releases[0])
        seen = {release for poll in polls for release in poll.result()}
    assert seen <= {None, *releases}
    assert [row.action for row in world.registry.promotions.history()] == ["promote"] * 4
    assert world.alias("champion") == releases[0]


def _poll(registry: Registry, times: int) -> list[str | None]:
    return [registry.reconcile() for _ in range(times)]


def test_a_diff_names_what_changed_and_nothing_else(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    assert world.registry.diff(a, a) == ()
    changes = {change.where: (change.before, change.after) for change in world.registry.diff(a, b)}
    assert changes.pop("parts.model")
    assert changes == {"tables.jobs": (1, 2), "settings.ranking.seed": (1, 2)}


def test_publishing_a_repaired_release_renews_its_seal(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    world.damage(a)
    with pytest.raises(IntegrityError):
        world.registry.releases.fetch(a)
    assert world.build("a") == a
    assert world.registry.releases.fetch(a)


def test_a_second_registry_on_the_same_home_sees_the_same(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    other = Registry.from_settings(world.settings)
    assert other.list() == world.registry.list()
    assert (other.reconcile(), other.experiment_id) == (a, world.registry.experiment_id)


def test_mlflow_is_told_to_load_no_pickle_and_report_nothing(
    empty_mlflow: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    configure_mlflow(f"sqlite:///{empty_mlflow}")
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_clean_process_loads_the_champion_through_mlflow_alone(world: World, tmp_path: Path) -> None:
    code = tmp_path / "echo_model.py"
    code.write_text(MODEL_CODE)
    first = world.build("a")
    builder = ReleaseBuilder(tmp_path / "release")
    builder.path("model.txt").write_text("hello from the champion")
    builder.add("model", "model.txt")
    manifest = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={})
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.get(first).run_id or ""
    folder = world.registry.releases.fetch(manifest.id)
    world.registry.register(
        manifest.id,
        run_id=run_id,
        log_model=lambda: log_release_model(run_id=run_id, release_folder=folder, code_file=code),
    )
    world.registry.promote(manifest.id, expected=None, why="test", gated=False)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": world.settings.tracking_uri, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert "hello from the champion" in answer.stdout
    assert not (tmp_path / "mlruns").exists()
