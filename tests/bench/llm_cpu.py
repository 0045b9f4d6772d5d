"""SmolLM2-135M on a CPU: decoding, prefill and batches of 16, beside `transformers` and llama.cpp on the same threads.

Arms take turns; a ratio is the median of the turns' ratios, seconds of the other over ours. `transformers` runs the
file's numbers in float32 and in bfloat16, and each row counts the faster. llama.cpp reads the same GGUF file in a
process of its own, whose Python is named by --llamacpp (an environment with llama-cpp-python); it is compared with
`fast`. Keys that end in `_exact` are `exact`'s, the others `fast`'s.

    decode    tokens one at a time after a prompt of 64          batch16   16 such sequences together
    prefill   a prompt of 512                                    prefix_hit_ttft_x   1,020 tokens over 20 of them, with
                                                                 1,000 cached
    decode_pct_bandwidth   bytes of weights a second over those of a plain read of memory

    python tests/bench/llm_cpu.py --llamacpp /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
from rolecall.serving.llm.gguf import GgufFile
from rolecall.serving.llm.linear import floats
from rolecall.serving.llm.loading import DEFAULT_MODEL, Compute, LoadedModel, find, load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.request import Request, SamplingParameters
from rolecall.serving.llm.sequence import Sequence as Known

GOALS = {
    "decode_vs_transformers_x": (">=", 3.0),
    "decode_vs_llamacpp_x": (">=", 1.2),
    "batch16_vs_transformers_x": (">=", 2.5),
    "prefill_vs_best_x": (">=", 1.3),
    "prefix_hit_ttft_x": (">=", 20.0),
}
Rates = dict[str, float]  # tokens a second by row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llamacpp", type=Path, help="Python of an environment with llama-cpp-python")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=32)
    options = parser.parse_args()
    if options.llamacpp is None or not options.llamacpp.exists():
        print(
            "no Python with llama-cpp-python: name one with --llamacpp (pip install llama-cpp-python in its own venv)"
        )
        sys.exit(2)
    torch.set_num_threads(options.threads)
    arms: dict[str, Callable[[], Rates]] = {}
    resident: dict[str, float] = {}
    both: tuple[Compute, ...] = ("fast", "exact")
    for compute in both:
        before = memory()
        model = load_model(compute=compute)
        arms[compute] = ours(model, options.steps)
        resident[compute] = float(memory() - before)
    other = LlamaCpp(options.llamacpp, find(DEFAULT_MODEL), options.threads)
    arms["llamacpp"] = lambda: other.rates(options.steps)
    for dtype in (torch.float32, torch.bfloat16):
        arms[f"transformers {dtype}"] = theirs(dtype, options.steps)
    turns: dict[str, list[Rates]] = {name: [] for name in arms}
    with torch.inference_mode():
        for turn in range(options.turns + 1):
            for name, arm in arms.items():
                rates = arm()
                if turn:  # the first warms caches and buffers
                    turns[name].append(rates)
    finish("llm_cpu", keys(turns, resident, options.threads), goals=GOALS)


def keys(turns: dict[str, list[Rates]], resident: dict[str, float], threads: int) -> dict[str, float]:
    def median(name: str, row: str) -> float:
        return statistics.median(rates[row] for rates in turns[name])

    def ratio(row: str, mine: str, *others: str) -> float:
        """Against the fastest of the others."""
        best = max(others, key=lambda name: median(name, row))
        return statistics.median(a[row] / b[row] for a, b in zip(turns[mine], turns[best], strict=True))

    hf = [name for name in turns if name.startswith("transformers")]
    bandwidth = read_bandwidth(threads)
    out: dict[str, float] = {}
    for compute, end in (("fast", ""), ("exact", "_exact")):
        out[f"decode_vs_transformers_x{end}"] = ratio("decode", compute, *hf)
        out[f"batch16_vs_transformers_x{end}"] = ratio("batch16", compute, *hf)
        out[f"prefill_vs_best_x{end}"] = ratio("prefill", compute, *hf, "llamacpp")
        out[f"prefix_hit_ttft_x{end}"] = median(compute, "prefix")
        out[f"decode_pct_bandwidth{end}"] = 100 * median(compute, "bytes_per_s") / bandwidth
        out[f"resident_bytes{end}"] = resident[compute]
    out["decode_vs_llamacpp_x"] = ratio("decode", "fast", "llamacpp")
    out["batch16_vs_llamacpp_x"] = ratio("batch16", "fast", "llamacpp")
    for name in turns:
        for row in ("decode", "prefill", "batch16"):
            out[f"{row}_tokens_per_s {name}".replace("transformers torch.", "transformers_")] = median(name, row)
    return {key.replace(" ", "_"): value for key, value in out.items()}


def ours(model: LoadedModel, steps: int) -> Callable[[], Rates]:
    runner = ModelRunner(model, blocks=16 * 8 + 80)

    def timed(count: int, prompt: int, made: int) -> tuple[float, float]:
        each = runner.blocks // count
        tables = [range(i * each, (i + 1) * each) for i in range(count)]
        started = time.perf_counter()
        last = [step(runner, [(p, 0, table)])[0] for p, table in zip(prompts(count, prompt), tables, strict=True)]
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for number in range(made):
            last = step(runner, [([t], prompt + number, b) for t, b in zip(last, tables, strict=True)])
        return prefill, time.perf_counter() - started

    def rates() -> Rates:
        decode, batch = timed(1, 64, steps)[1], timed(16, 64, steps)[1]
        cold = timed(1, 1020, 0)[0]
        started = time.perf_counter()
        step(runner, [(prompts(1, 1020)[0][1000:], 1000, range(64))])
        return {
            "decode": steps / decode,
            "bytes_per_s": steps * model.weights.weight_bytes / decode,
            "batch16": 16 * steps / batch,
            "prefill": 512 / timed(1, 512, 0)[0],
            "prefix": cold / (time.perf_counter() - started),
        }

    return rates


def step(runner: ModelRunner, work: Sequence[tuple[Sequence[int], int, Sequence[int]]]) -> list[int]:
    """The most probable next token after each (tokens, start, block table)."""
    chunks = [
        Chunk(
            sequence=KNOWN, start=start, tokens=tuple(tokens), block_table=tuple(table), wants_logits=(len(tokens) - 1,)
        )
        for tokens, start, table in work
    ]
    return [int(token) for token in runner.run(Batch(chunks=tuple(chunks))).argmax(dim=-1)]


def theirs(dtype: torch.dtype, steps: int) -> Callable[[], Rates]:
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
                floats(checkpoint.matrix(part, *weight.shape)) if matrix else checkpoint.vector(name, len(weight))
            )
    model = model.to(dtype)

    def timed(count: int, prompt: int, made: int) -> tuple[float, float]:
        started = time.perf_counter()
        out: Any = model(torch.tensor(prompts(count, prompt)), use_cache=True, logits_to_keep=1)
        last: Tensor = out.logits[:, -1:].argmax(dim=-1)
        prefill = time.perf_counter() - started
        started = time.perf_counter()
        for _ in range(made):
            out = model(last, past_key_values=out.past_key_values, use_cache=True)
            last = out.logits[:, -1:].argmax(dim=-1)
        return prefill, time.perf_counter() - started

    def rates() -> Rates:
        decode, batch = timed(1, 64, steps)[1], timed(16, 64, steps)[1]
        return {"decode": steps / decode, "batch16": 16 * steps / batch, "prefill": 512 / timed(1, 512, 0)[0]}

    return rates


class LlamaCpp:
    """llama.cpp in a process of its own, which ends with this one."""

    def __init__(self, python: Path, file: Path, threads: int) -> None:
        arm = Path(__file__).with_name("llamacpp_arm.py")
        command = [str(python), str(arm), str(file), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._line()

    def rates(self, steps: int) -> Rates:
        """Tokens a second."""
        decode = self._ask(prompts(1, 64), steps)["decode"]
        batch = self._ask(prompts(16, 64), steps)["decode"]
        prefill = self._ask(prompts(1, 512), 0)["prefill"]
        return {"decode": steps / decode, "batch16": 16 * steps / batch, "prefill": 512 / prefill}

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


def memory() -> int:
    """Resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


KNOWN = Known.of(
    Request(request_id="bench", number=0, prompt=(0,), parameters=SamplingParameters(), max_tokens=1, arrived=0.0),
    seed=0,
)

if __name__ == "__main__":
    main()
