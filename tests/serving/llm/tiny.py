"""Small Llamas with random weights, as folders and as GGUF files, and what drives a runner without an engine."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from rolecall.kernels.weight_formats import QuantizedWeight, quantize_weight
from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.request import Request, SamplingParameters
from rolecall.serving.llm.sequence import Sequence as Known

GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llama(seed: int = 0, **options: Any) -> Any:
    """Two layers, 64 wide, 4 heads over 2, vocabulary 96, unless `options` say otherwise."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        **options,
    }
    made: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    model = made.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "norm.weight", "layernorm.weight")):
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


def known(tokens: Sequence[int] = (0,)) -> Known:
    """A sequence of these tokens, which a chunk names."""
    request = Request(
        request_id="r", number=0, prompt=tuple(tokens), parameters=SamplingParameters(), max_tokens=1, arrived=0.0
    )
    return Known.of(request, seed=0)


def chunk(tokens: Sequence[int], start: int, table: Sequence[int], *, wants: Sequence[int] | None = None) -> Chunk:
    """The `tokens` from position `start` on; logits of all of them by default."""
    wanted = range(len(tokens)) if wants is None else wants
    return Chunk(
        sequence=known(tokens),
        start=start,
        tokens=tuple(tokens),
        block_table=tuple(table),
        wants_logits=tuple(wanted),
    )


def logits(runner: ModelRunner, tokens: Sequence[int]) -> Tensor:
    """Of every position of one text, in one chunk."""
    return runner.run(Batch(chunks=(chunk(tokens, 0, range(runner.blocks)),)))


def greedy(runner: ModelRunner, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """The `count` most probable tokens after each prompt, one at a time, all prompts in one batch."""
    each = runner.blocks // len(prompts)
    tables = [range(i * each, (i + 1) * each) for i in range(len(prompts))]
    made: list[list[int]] = [[] for _ in prompts]
    starts, todo = [0] * len(prompts), [list(prompt) for prompt in prompts]
    for _ in range(count):
        chunks = [chunk(t, s, b, wants=[len(t) - 1]) for t, s, b in zip(todo, starts, tables, strict=True)]
        best = runner.run(Batch(chunks=tuple(chunks))).argmax(dim=-1).tolist()
        starts = [s + len(t) for s, t in zip(starts, todo, strict=True)]
        todo = [[token] for token in best]
        for tokens, token in zip(made, best, strict=True):
            tokens.append(token)
    return made


# --- GGUF ---


def gguf_blocks(weight: QuantizedWeight) -> bytes:
    """Q8_0, Q4_0 or Q4_1 blocks of a weight in the kernels' format."""
    N, K = weight.codes.shape
    codes = weight.codes.view(N, K // 32, 32)
    heads = [weight.scales] if weight.minima is None else [weight.scales, weight.minima]
    parts = [h.contiguous().view(N, K // 32, 1).view(torch.uint8) for h in heads]
    if weight.format == "int8_group":
        parts.append(codes.contiguous().view(torch.uint8))
    else:
        nibbles = (codes + (8 if weight.format == "int4_group" else 0)).to(torch.uint8)
        parts.append(nibbles[:, :, :16] | (nibbles[:, :, 16:] << 4))
    return torch.cat(parts, dim=2).numpy().tobytes()


def q4_k_blocks(w_NK: Tensor) -> bytes:
    """Q4_K blocks of a matrix whose rows are of 256s: six bits of scale and of minimum for each 32 columns."""
    w = w_NK.reshape(-1, 8, 32)
    low = w.amin(dim=2).clamp(max=0)
    step = (w.amax(dim=2) - low) / 15
    d, m = (part.amax(dim=1, keepdim=True).div(63).half() for part in (step, -low))
    scales, minima = (step / d.float()).round().clamp(1, 63).byte(), (-low / m.float()).round().clamp(0, 63).byte()
    codes = (w + (m.float() * minima)[:, :, None]) / (d.float() * scales)[:, :, None]
    q = codes.round().clamp(0, 15).byte().view(-1, 4, 2, 32)
    a, b = (x[:, :4] | (x[:, 4:] >> 4) << 6 for x in (scales, minima))
    c = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    parts = [d.view(torch.uint8), m.view(torch.uint8), a, b, c, (q[:, :, 0] | q[:, :, 1] << 4).flatten(1)]
    return torch.cat(parts, dim=1).numpy().tobytes()


def q6_k_blocks(w_NK: Tensor) -> bytes:
    """Q6_K blocks likewise: eight bits of scale for each 16 columns."""
    w = w_NK.reshape(-1, 16, 16)
    step = w.abs().amax(dim=2) / 31
    d = step.amax(dim=1, keepdim=True).div(127).half()
    scales = (step / d.float()).round().clamp(1, 127)
    q = (w / (d.float() * scales)[:, :, None]).round().clamp(-32, 31).add(32).byte().view(-1, 2, 4, 32)
    low = torch.cat([q[:, :, :2] & 15 | (q[:, :, 2:] & 15) << 4], dim=2).flatten(1)
    high = (q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6).flatten(1)
    return torch.cat([low, high, scales.to(torch.int8).view(torch.uint8), d.view(torch.uint8)], dim=1).numpy().tobytes()


def gguf_bytes(metadata: Mapping[str, Any], tensors: Mapping[str, tuple[tuple[int, ...], int, bytes]]) -> bytes:
    """A file: metadata of int, float, bool, str and lists of them; tensors as (shape, type, data)."""
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        out += _text(key) + _value(value)
    place, data = 0, b""
    for name, (shape, kind, raw) in tensors.items():
        out += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        out += struct.pack("<IQ", kind, place)
        data += raw + b"\0" * (-len(raw) % 32)
        place = len(data)
    return out + b"\0" * (-len(out) % 32) + data


def write_gguf(model: Any, path: Path, kind: str = "F32") -> Path:
    """`model` as llama.cpp stores it: queries' and keys' rows in interleaved order, norms float32."""
    c = model.config
    tensors: dict[str, tuple[tuple[int, ...], int, bytes]] = {}
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, tensor in model.state_dict().items():
        w = tensor.float()
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        if name == "lm_head.weight":
            new = "output.weight"
        elif name in names:
            new = names[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            part, _, end = rest.rpartition(".")
            new = f"blk.{layer}.{GGUF_PARTS[part]}.{end}"
        heads = {"attn_q": c.num_attention_heads, "attn_k": c.num_key_value_heads}.get(new.split(".")[-2])
        if heads is not None:
            w = w.view(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).transpose(1, 2).reshape(w.shape)
        code, pack = PACKED[kind if w.ndim == 2 else "F32"]
        if kind == "Q4_K" and new.endswith(("attn_v.weight", "ffn_down.weight", "output.weight")):  # as Q4_K_M has it
            code, pack = PACKED["Q6_K"]
        raw = pack(w.contiguous())
        tensors[new] = (tuple(w.shape), code, raw)
    path.write_bytes(gguf_bytes(gguf_metadata(model), tensors))
    return path


PACKED: dict[str, tuple[int, Callable[[Tensor], bytes]]] = {
    "F32": (0, lambda w: w.numpy().tobytes()),
    "Q4_0": (2, lambda w: gguf_blocks(quantize_weight(w, "int4_group"))),
    "Q4_1": (3, lambda w: gguf_blocks(quantize_weight(w, "int4_affine"))),
    "Q8_0": (8, lambda w: gguf_blocks(quantize_weight(w, "int8_group"))),
    "Q4_K": (12, q4_k_blocks),
    "Q6_K": (14, q6_k_blocks),
}


def gguf_metadata(model: Any) -> dict[str, Any]:
    """Sizes, and a tokenizer of one byte a token."""
    c = model.config
    pieces = [chr(33 + i) if i < 94 else f"<|{i}|>" for i in range(c.vocab_size)]
    return {
        "general.architecture": "llama",
        "llama.block_count": c.num_hidden_layers,
        "llama.context_length": c.max_position_embeddings,
        "llama.embedding_length": c.hidden_size,
        "llama.feed_forward_length": c.intermediate_size,
        "llama.attention.head_count": c.num_attention_heads,
        "llama.attention.head_count_kv": c.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
        "llama.rope.freq_base": float(c.rope_parameters["rope_theta"]),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": [1] * 94 + [3] * (c.vocab_size - 94),
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 95,
    }


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind, cells = (8, [_text(v) for v in value]) if not value or isinstance(value[0], str) else (5, [])
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(cells or [struct.pack("<i", v) for v in value])
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    return struct.pack("<I", 8) + _text(value)
