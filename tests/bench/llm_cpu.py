"""SmolLM2-135M on a CPU: decoding, prefill and batches of 16, beside `transformers` and llama.cpp on the same threads.

Arms take turns at each row; a ratio is the median of the turns' ratios, seconds of the other over ours.
`transformers` runs the file's numbers in float32 and in bfloat16, and each row counts the faster. llama.cpp reads the
same GGUF file in a process of its own, whose Python is named by --llamacpp (an environment with llama-cpp-python); it
is compared with `fast`. Keys that end in `_exact` are `exact`'s, the others `fast`'s.

    decode        tokens one at a time after a prompt of 64
    batch16       16 such sequences together
    prefill       a prompt of 512
    prefix        through the engine: seconds to the first token of 1,020 tokens over those with 1,000 of them cached
    speculative   through the engine: seconds to quote an advert that the prompt holds, without drafts over with them

`decode_pct_bandwidth`: bytes of weights a second over those of a plain read of memory. `resident_bytes`: what a
process grows by when it loads the model and decodes.

    python tests/bench/llm_cpu.py --llamacpp /path/to/venv/bin/python
    python tests/bench/llm_cpu.py --llamacpp ... --rows decode batch16 --turns 3
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import ROOT, finish
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

from rolecall.kernels.cpp import build
from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.checkpoint import GgufCheckpoint
from rolecall.serving.llm.draft import PromptLookup
from rolecall.serving.llm.engine import LLMEngine
from rolecall.serving.llm.gguf import GgufFile
from rolecall.serving.llm.linear import floats
from rolecall.serving.llm.loading import Compute, LoadedModel, load_model
from rolecall.serving.llm.model_files import DEFAULT_MODEL, find
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.opening import words_of
from rolecall.serving.llm.request import Request, SamplingParameters
from rolecall.serving.llm.sequence import Sequence as Known

GOALS = {
    "decode_vs_transformers_x": (">=", 3.0),
    "decode_vs_llamacpp_x": (">=", 1.2),
    "batch16_vs_transformers_x": (">=", 2.5),
    "prefill_vs_best_x": (">=", 1.3),
    "prefix_hit_ttft_x": (">=", 20.0),
}
MODES: tuple[tuple[Compute, str], ...] = (("fast", ""), ("exact", "_exact"))
ROWS = ("decode", "batch16", "prefill", "prefix", "speculative")
SHARED = ("decode", "batch16", "prefill")  # rows that every arm has
Rates = dict[str, float]  # tokens a second by row, and what else a row tells
Arm = Mapping[str, Callable[[], Rates]]  # by row
ADVERT = (
    "Night-shift warehouse planner at Harbour Freight Rotterdam. You plan forty dock doors, answer for nine drivers "
    "and keep the yard's book. We ask for three years with a transport system, Dutch at B2 and a forklift licence. We "
    "pay 3,450 euros a month, a travel card and thirty-two days of leave. Write to Marloes van Dijk before 14 March."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamacpp", type=Path, help="Python of an environment with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS)
    parser.add_argument("--resident", choices=[mode for mode, _ in MODES], help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.resident:
        print(grown_by(options.resident))
        return
    if options.llamacpp is None or not options.llamacpp.exists():
        print(
            "no Python with llama-cpp-python: name one with --llamacpp (pip install llama-cpp-python in its own venv)"
        )
        sys.exit(2)
    resident = {mode: resident_bytes(mode, options.threads) for mode, _ in MODES}
    models: dict[Compute, LoadedModel] = {}
    for mode, _ in MODES:
        models[mode] = load_model(compute=mode)
    arms: dict[str, Arm] = {mode: ours(model, options.steps) for mode, model in models.items()}
    if set(options.rows) & set(SHARED):
        arms["llamacpp"] = LlamaCpp(options.llamacpp, find(DEFAULT_MODEL), options.threads).arm(options.steps)
        for dtype in (torch.float32, torch.bfloat16):
            arms[f"transformers {dtype}"] = theirs(dtype, options.steps)
    turns = taken(arms, options.rows, options.turns)
    metrics = keys(turns, options.rows, models, options.threads)
    metrics |= {f"resident_bytes{end}": resident[mode] for mode, end in MODES}
    finish("llm_cpu", metrics, goals=GOALS)


def taken(arms: Mapping[str, Arm], rows: Sequence[str], turns: int) -> dict[str, list[Rates]]:
    """What each arm told in each turn; one more at the start warms caches and buffers."""
    told: dict[str, list[Rates]] = {name: [{} for _ in range(turns + 1)] for name in arms}
    with torch.inference_mode():
        for turn in range(turns + 1):
            for row in rows:
                for name, arm in arms.items():
                    if row in arm:
                        told[name][turn] |= arm[row]()
    return {name: rates[1:] for name, rates in told.items()}


def keys(
    turns: dict[str, list[Rates]], rows: Sequence[str], models: Mapping[Compute, LoadedModel], threads: int
) -> dict[str, float]:
    def median(name: str, row: str) -> float:
        return statistics.median(rates[row] for rates in turns[name])

    def ratio(row: str, mine: str, *others: str) -> float:
        """Against the fastest of the others."""
        best = max(others, key=lambda name: median(name, row))
        return statistics.median(a[row] / b[row] for a, b in zip(turns[mine], turns[best], strict=True))

    hf = [name for name in turns if name.startswith("transformers")]
    shared = [row for row in rows if row in SHARED]
    out: dict[str, float] = {}
    for compute, end in MODES:
        for row in shared:
            other = ("vs_best", *hf, "llamacpp") if row == "prefill" else ("vs_transformers", *hf)
            out[f"{row}_{other[0]}_x{end}"] = ratio(row, compute, *other[1:])
        if "decode" in rows:
            reached = models[compute].weights.weight_bytes * median(compute, "decode")
            out[f"decode_pct_bandwidth{end}"] = 100 * reached / read_bandwidth(threads)
        if "prefix" in rows:
            out[f"prefix_hit_ttft_x{end}"] = median(compute, "prefix")
            out[f"prefix_hit_ttft_ms{end}"] = median(compute, "prefix_ms")
        if "speculative" in rows:
            out[f"speculative_x{end}"] = median(compute, "speculative")
            out[f"speculative_acceptance{end}"] = median(compute, "acceptance")
    for row in ("decode", "batch16"):
        if row in rows:
            out[f"{row}_vs_llamacpp_x"] = ratio(row, "fast", "llamacpp")
    for name in turns:
        for row in shared:
            out[f"{row}_tokens_per_s {name}".replace("transformers torch.", "transformers_")] = median(name, row)
    return {key.replace(" ", "_"): value for key, value in out.items()}


def ours(model: LoadedModel, steps: int) -> Arm:
    runner = ModelRunner(model, blocks=16 * 8 + 80)

    def timed(count: int, prompt: int, made: int) -> tuple[float, float]:
        each = runner.blocks // count
        tables = [range(i * each, (i + 1) * each) for i in range(count)]
        given = prompts(count, prompt)
        started = time.perf_counter()
        last = [step(runner, [(p, 0, table)])[0] for p, table in zip(given, tables, strict=True)]
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for number in range(made):
            last = step(runner, [([t], prompt + number, b) for t, b in zip(last, tables, strict=True)])
        return prefill, time.perf_counter() - started

    return {
        "decode": lambda: {"decode": steps / timed(1, 64, steps)[1]},
        "batch16": lambda: {"batch16": 16 * steps / timed(16, 64, steps)[1]},
        "prefill": lambda: {"prefill": 512 / timed(1, 512, 0)[0]},
        "prefix": prefix_row(model, runner),
        "speculative": speculative_row(model, runner),
    }


def prefix_row(model: LoadedModel, runner: ModelRunner) -> Callable[[], Rates]:
    one = SamplingParameters(temperature=0, max_tokens=1)

    def seconds(engine: LLMEngine, prompt: Sequence[int], salt: str) -> float:
        """To the first token."""
        started = time.perf_counter()
        request_id = engine.add(prompt, one, salt=salt)
        assert any(output.tokens for output in engine.stream(request_id))
        return time.perf_counter() - started

    def rates() -> Rates:
        engine = LLMEngine(runner, words_of(model))  # anew: other rows write over the blocks it has entered
        (prompt,) = prompts(1, 1020)
        cold = seconds(engine, prompt, "cold")
        seconds(engine, prompt[:1000], "warm")
        before = engine.stats().cached_tokens
        hit = seconds(engine, prompt, "warm")
        assert engine.stats().cached_tokens - before >= 984  # whole blocks of the 1,000
        return {"prefix": cold / hit, "prefix_ms": 1e3 * hit}

    return rates


def speculative_row(model: LoadedModel, runner: ModelRunner) -> Callable[[], Rates]:
    tokenizer = model.tokenizer
    assert tokenizer is not None
    asked = f"{ADVERT}\n\nThe advert once more, word for word:\n\n{ADVERT[:60]}"
    prompt: list[int] = list(tokenizer(asked)["input_ids"])
    one = SamplingParameters(temperature=0, max_tokens=1)
    wishes = SamplingParameters(temperature=0, max_tokens=64, ignore_eos=True)

    def rates() -> Rates:
        seconds: list[float] = []
        texts: list[str] = []
        for draft in (None, PromptLookup()):
            engine = LLMEngine(runner, words_of(model), draft=draft)
            engine.generate([prompt], one)  # so the prompt is cached
            started = time.perf_counter()
            texts.append(engine.generate([prompt], wishes)[0].completions[0].text)
            seconds.append(time.perf_counter() - started)
        assert texts[0] == texts[1]
        return {"speculative": seconds[0] / seconds[1], "acceptance": engine.stats().acceptance}

    return rates


def step(runner: ModelRunner, work: Sequence[tuple[Sequence[int], int, Sequence[int]]]) -> list[int]:
    """The most probable next token after each (tokens, start, block table)."""
    chunks = [
        Chunk(
            sequence=KNOWN, start=start, tokens=tuple(tokens), block_table=tuple(table), wants_logits=(len(tokens) - 1,)
        )
        for tokens, start, table in work
    ]
    return [int(token) for token in runner.run(Batch(chunks=tuple(chunks))).numpy().argmax(axis=-1)]


def theirs(dtype: torch.dtype, steps: int) -> Arm:
    checkpoint = GgufCheckpoint(GgufFile(find(DEFAULT_MODEL)))
    c = checkpoint.config
    sizes = LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.hidden,
        intermediate_size=c.intermediate,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context,
        rms_norm_eps=c.eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(sizes)
    model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            part = name.removesuffix(".weight")
            matrix = weight.ndim == 2
            weight.copy_(
                floats(checkpoint.matrix(part, (weight.shape[0], weight.shape[1])))
                if matrix
                else checkpoint.vector(name, len(weight))
            )
    model = model.to(dtype)

    def timed(count: int, prompt: int, made: int) -> tuple[float, float]:
        given = torch.tensor(prompts(count, prompt))
        started = time.perf_counter()
        out: Any = model(given, use_cache=True, logits_to_keep=1)
        last: Tensor = out.logits[:, -1:].argmax(dim=-1)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(made):
            out = model(last, past_key_values=out.past_key_values, use_cache=True)
            last = out.logits[:, -1:].argmax(dim=-1)
        return prefill, time.perf_counter() - started

    return {
        "decode": lambda: {"decode": steps / timed(1, 64, steps)[1]},
        "batch16": lambda: {"batch16": 16 * steps / timed(16, 64, steps)[1]},
        "prefill": lambda: {"prefill": 512 / timed(1, 512, 0)[0]},
    }


class LlamaCpp:
    """llama.cpp in a process of its own, which ends with this one."""

    def __init__(self, python: Path, file: Path, threads: int) -> None:
        arm = Path(__file__).with_name("llamacpp_arm.py")
        command = [str(python), str(arm), str(file), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._line()

    def arm(self, steps: int) -> Arm:
        return {
            "decode": lambda: {"decode": steps / self._ask(prompts(1, 64), steps)["decode"]},
            "batch16": lambda: {"batch16": 16 * steps / self._ask(prompts(16, 64), steps)["decode"]},
            "prefill": lambda: {"prefill": 512 / self._ask(prompts(1, 512), 0)["prefill"]},
        }

    def _ask(self, asked: list[list[int]], steps: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompts": asked, "steps": steps}) + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("llama.cpp's process ended: does that Python import llama_cpp?")
        return dict(json.loads(line))


def prompts(count: int, length: int) -> list[list[int]]:
    """Tokens drawn at random, the same in every arm."""
    generator = torch.Generator().manual_seed(count)
    return [[int(t) for t in torch.randint(1000, 40_000, (length,), generator=generator)] for _ in range(count)]


def read_bandwidth(threads: int) -> float:
    """Bytes a second of a plain read of 256 MiB."""
    library = build.library()
    if library is None:
        sys.exit("no compiled operators here: install g++, or set CXX")
    memory_read = torch.zeros(1 << 28, dtype=torch.uint8)
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        library.lasting.read_bytes(memory_read.data_ptr(), memory_read.numel(), threads)
        seconds.append(time.perf_counter() - started)
    return memory_read.numel() / statistics.median(seconds)


def resident_bytes(mode: Compute, threads: int) -> float:
    """Of a process of its own."""
    command = [sys.executable, __file__, "--resident", mode, "--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def grown_by(mode: Compute) -> int:
    """Bytes by which this process grows when it loads the model and decodes."""

    def memory() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = memory()
    arm = ours(load_model(compute=mode), 2)
    with torch.inference_mode():
        arm["decode"]()
    return memory() - before


KNOWN = Known.of(
    Request(request_id="bench", number=0, prompt=(0,), parameters=SamplingParameters(), max_tokens=1, arrived=0.0),
    seed=0,
)

if __name__ == "__main__":
    main()
