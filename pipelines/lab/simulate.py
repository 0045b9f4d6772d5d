"""Closed loops over several seeds, one process each where asked for, and what they came to."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa

from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.lab.arms import Arm, Frozen, FrozenModels, RememberingEmbedder, Retrained
from rolecall.pipelines.lab.config import LabConfig
from rolecall.pipelines.lab.home import Home
from rolecall.pipelines.lab.loop import Say, SeedLoop
from rolecall.pipelines.lab.outcome import Outcome
from rolecall.pipelines.lab.truth import wanted
from rolecall.pipelines.lab.yardsticks import Chance, Oracle, Popularity, Tfidf
from rolecall.pipelines.market.world import World
from rolecall.platform.console import errors
from rolecall.platform.ray_runtime import ray_session
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings

_OF_RELEASES = {"retrained", "frozen", "frozen_models"}


def simulate(
    config: LabConfig, settings: Settings, *, parallel: int = 1, say: Say = lambda line: None
) -> list[list[Outcome]]:
    """For each seed one outcome an arm, in the order of `config`.

    Everything lies below `lab_folder`: asked for again, also with more arms or seeds, what is finished there is not
    simulated again. `parallel`: processes, each with a Ray of its own, a seed at a time.
    """
    if parallel == 1 or len(config.seeds) == 1:
        return [run_seed(config, seed, settings, say) for seed in config.seeds]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parallel, mp_context=spawn) as processes:
        running = [processes.submit(run_seed, config, seed, settings, _tell) for seed in config.seeds]
        return [one.result() for one in running]


def run_seed(config: LabConfig, seed: int, settings: Settings, say: Say) -> list[Outcome]:
    """One world and all arms in it."""
    folder = lab_folder(config, settings) / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    world = World(config.world(seed))

    def told(line: str) -> None:
        say(f"seed {seed} {line}")

    events, memory = world.history()
    releases = bool(_OF_RELEASES & set(config.arms))
    with ray_session(settings.ray, folder) if releases else contextlib.nullcontext():
        base = first_home(world, events, config.settings(settings, folder / "base"), releases=releases, say=told)
        return SeedLoop(world, memory, base, arms_of(config, world, settings), folder, say=told).run(config.days)


def first_home(world: World, events: pa.Table, settings: Settings, *, releases: bool, say: Say) -> Home:
    """The home all arms begin with: everything known at the world's end and, with `releases`, that night's release.

    The first release is served whatever the gate says of it: there is nothing else to serve.
    """
    home, done = Home(settings), settings.home / "filled"
    if not done.exists():
        home.learn(world.tables() | {"events": events})
        done.touch()
    if releases:
        result = run_daily(settings, world.config.ends_at)
        registry = Registry.from_settings(settings)
        if registry.reconcile() is None:
            say(f"the gate refused the first release, served all the same: {'; '.join(result.reasons)}")
            registry.promote(result.release_id, expected=None, why="the first release of a laboratory", gated=False)
    return home


def arms_of(config: LabConfig, world: World, settings: Settings) -> dict[str, Arm]:
    """The arms asked for. One embedder serves all of them; the truth goes into the oracle alone."""
    slots, embedder = config.market.slots, RememberingEmbedder(settings.embedder)
    makers: Mapping[str, Callable[[], Arm]] = {
        "retrained": lambda: Retrained(embedder=embedder, slots=slots),
        "frozen": lambda: Frozen(embedder=embedder, slots=slots),
        "frozen_models": lambda: FrozenModels(embedder=embedder, slots=slots),
        "tfidf": lambda: Tfidf(slots=slots),
        "popularity": lambda: Popularity(slots=slots),
        "random": lambda: Chance(slots=slots),
        "oracle": lambda: Oracle(wanted=wanted(world), slots=slots),
    }
    return {name: makers[name]() for name in config.arms}


def lab_folder(config: LabConfig, settings: Settings) -> Path:
    """Where a configuration's homes and finished days lie."""
    return settings.home / "lab" / config.digest(settings)


def _tell(line: str) -> None:
    errors.print(line, markup=False, soft_wrap=True)
