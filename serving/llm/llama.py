"""The forward pass of a Llama over a paged cache, on the operators of `rolecall.kernels`.

    h = E[tokens]
    h += O attention(rope(Q n(h)), rope(K n(h)), V n(h));  h += D (silu(G m(h)) * U m(h))      for each layer
    logits = W n(h)

with n, m RMS normalisation with their layer's weights, and grouped queries (Touvron et al., arXiv:2302.13971; Ainslie
et al., arXiv:2305.13245). Queries, keys and values are one product, gate and up another; every sum of residuals is
taken together with the normalisation that follows it. With several ranks each holds its share of the heads and of the
intermediate columns (`tensor_parallel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.paged_attention import COMPILED_WIDTHS
from rolecall.kernels.paged_cache import PagedCache
from rolecall.serving.llm.linear import Embedding, Linear
from rolecall.serving.llm.llama_config import LlamaConfig
from rolecall.serving.llm.operators import QKV, Operators, Step
from rolecall.serving.llm.tensor_parallel import Ranks


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One decoder layer. Norms: float vectors [hidden]."""

    attention_norm: Tensor
    qkv: Linear
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


class Buffers:
    """What a pass over T tokens writes: made once for each T that comes again."""

    def __init__(self, model: Llama, tokens: int) -> None:
        c, head = model.config, model.config.head_width

        def empty(width: int) -> Tensor:
            return torch.empty(tokens, width, dtype=model.dtype, device=model.cos.device)

        self.normed, self.hidden, self.projected = empty(c.hidden), empty(c.hidden), empty(c.hidden)
        qkv = self.qkv = empty((model.heads + 2 * model.kv_heads) * head)
        q, kv = model.heads * head, model.kv_heads * head
        key, value = (x.view(tokens, model.kv_heads, head) for x in (qkv[:, q : q + kv], qkv[:, q + kv :]))
        self.heads = QKV(q=qkv[:, :q].view(tokens, model.heads, head), k=key, v=value)
        self.attended = empty(model.heads * head)
        self.attended_heads = self.attended.view(tokens, model.heads, head)
        self.gate_up = empty(2 * model.intermediate)
        self.gate, self.up = self.gate_up[:, : model.intermediate], self.gate_up[:, model.intermediate :]
        self.gated = empty(model.intermediate)


class Llama:
    """A model's weights and its forward pass. `heads`, `kv_heads`, `intermediate`: of this rank."""

    def __init__(
        self,
        config: LlamaConfig,
        *,
        embedding: Embedding,
        layers: Sequence[Layer],
        norm: Tensor,
        head: Linear,
        angles: tuple[Tensor, Tensor],
        dtype: torch.dtype,
        ranks: Ranks | None = None,
        backend: str | None = None,
    ) -> None:
        self.config, self.dtype, self.backend = config, dtype, backend
        self.embedding, self.layers, self.norm, self.head = embedding, tuple(layers), norm, head
        self.cos, self.sin = angles
        self.ranks = ranks or Ranks()
        self.heads, self.kv_heads, self.intermediate = (
            count // self.ranks.size for count in (config.heads, config.kv_heads, config.intermediate)
        )

    @property
    def recordable(self) -> bool:
        """Whether every operator has a compiled form here: float32 on a CPU, none of them forced elsewhere."""
        plain = self.device.type == "cpu" and self.dtype == torch.float32 and self.backend in (None, "auto", "cpp")
        return plain and self.config.head_width in COMPILED_WIDTHS and build.available()

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.cos.device

    def forward(
        self,
        step: Step,
        caches: Sequence[PagedCache],
        buffers: Buffers,
        operators: Operators,
        *,
        layers: int | None = None,
    ) -> Tensor:
        """The normalised hidden states [T, hidden] after the first `layers` layers (all by default).

        What `operators` notes down is computed when it is replayed.
        """
        b, eps, used = buffers, self.config.eps, self.layers[:layers]
        operators.embed(self.embedding, step.tokens, b.hidden)
        operators.norm(b.hidden, used[0].attention_norm, eps, b.normed)
        for number, (layer, cache) in enumerate(zip(used, caches, strict=False)):
            operators.linear(layer.qkv, b.normed, b.qkv)
            operators.turn(b.heads, (self.cos, self.sin), step, cache)
            operators.attend(b.heads.q, step, cache, b.attended_heads)
            operators.linear(layer.output, b.attended, b.projected)
            operators.add_over(self.ranks, b.projected)
            operators.add_norm(b.projected, b.hidden, layer.mlp_norm, eps, b.normed)
            operators.linear(layer.gate_up, b.normed, b.gate_up)
            operators.gate(b.gate, b.up, b.gated)
            operators.linear(layer.down, b.gated, b.projected)
            operators.add_over(self.ranks, b.projected)
            following = used[number + 1].attention_norm if number + 1 < len(used) else self.norm
            operators.add_norm(b.projected, b.hidden, following, eps, b.normed)
        return b.normed

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """float32 [R, vocabulary], this rank's share of it, of normalised hidden states."""
        y = torch.empty(len(hidden_RH), self.head.rows, dtype=self.dtype, device=self.device)
        return self.head(hidden_RH.contiguous(), y, backend=self.backend).float()

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that a decode step reads."""
        products = [w for layer in self.layers for w in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        return sum(w.bytes for w in [*products, self.head])
