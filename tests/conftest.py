"""What several areas' tests need: real services, and a Ray cluster to submit jobs to.

`tests/kernels` also runs where only torch, triton, pytest and hypothesis are installed: nothing else is imported there.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch
from hypothesis import settings

# Read when a kernel is defined, so before anything imports one: without a GPU, Triton's kernels are interpreted.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

settings.register_profile("rolecall", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("rolecall")

if importlib.util.find_spec("ray") is not None:
    # Fixtures for every area.
    from .empty_mlflow import with_mlflow as with_mlflow
    from .ray_cluster import ray_cluster as ray_cluster
    from .services import ledger_database as ledger_database
    from .services import postgresql as postgresql
    from .services import redis_server as redis_server
    from .services import redis_url as redis_url
    from .services import s3_bucket as s3_bucket
    from .services import s3_options as s3_options
    from .small_world import world as world


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """The time limit of pyproject.toml is known (and has no effect) where pytest-timeout is not installed."""
    if not pluginmanager.hasplugin("timeout"):
        parser.addini("timeout", "seconds a test may take; pytest-timeout applies it")
