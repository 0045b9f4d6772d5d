"""llama.cpp's side of llm_cpu.py, run by the Python that has `llama_cpp`: a JSON question a line, an answer a line."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

import llama_cpp  # type: ignore[import-not-found]


def main() -> None:
    path, threads = sys.argv[1], int(sys.argv[2])
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    options = llama_cpp.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch, options.n_seq_max = 16 * 512, 2048, 512, 16
    options.n_threads = options.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, options)
    words = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        print(json.dumps(answered(context, words, asked["prompts"], asked["steps"])), flush=True)


def answered(context: Any, words: int, prompts: list[list[int]], steps: int) -> dict[str, Any]:
    """Greedy tokens of each prompt, the seconds of the prompts and of the `steps` decode steps."""
    started = time.perf_counter()
    last = []
    for sequence, prompt in enumerate(prompts):
        decode(context, [(t, p, sequence, p == len(prompt) - 1) for p, t in enumerate(prompt)])
        last.append(best(context, words, len(prompt) - 1))
    prefill = time.perf_counter() - started
    made: list[list[int]] = [[] for _ in prompts]
    started = time.perf_counter()
    for step in range(steps):
        for tokens, token in zip(made, last, strict=True):
            tokens.append(token)
        decode(context, [(t, len(prompts[s]) + step, s, True) for s, t in enumerate(last)])
        last = [best(context, words, s) for s in range(len(prompts))]
    return {"prefill": prefill, "decode": time.perf_counter() - started, "tokens": made}


def decode(context: Any, cells: list[tuple[int, int, int, bool]]) -> None:
    batch = llama_cpp.llama_batch_init(len(cells), 0, 1)
    batch.n_tokens = len(cells)
    for i, (token, position, sequence, wanted) in enumerate(cells):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
    failed = llama_cpp.llama_decode(context, batch)
    llama_cpp.llama_batch_free(batch)
    if failed:
        sys.exit(f"llama_decode returned {failed}")


def best(context: Any, words: int, index: int) -> int:
    import numpy as np

    logits = llama_cpp.llama_get_logits_ith(context, index)
    return int(np.ctypeslib.as_array(ctypes.cast(logits, ctypes.POINTER(ctypes.c_float)), (words,)).argmax())


if __name__ == "__main__":
    main()
