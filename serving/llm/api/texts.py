"""Text to tokens and back, as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rolecall.serving.llm.chat_template import ChatTemplate


class Texts:
    """One model's tokens, `size` of them, of at most `longest` bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int, end_ids: Sequence[int]) -> None:
        """Raises ValueError for a tokenizer that the `tokenizers` library does not run: its bytes are not known."""
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"got a tokenizer of type {type(tokenizer).__name__}; allowed: one with a tokenizer.json")
        self._tokenizer, self._words = tokenizer, tokenizer.backend_tokenizer
        self._words.no_truncation()
        self._words.no_padding()
        self.size = vocabulary
        self.chat = ChatTemplate(tokenizer).tokens
        self.grammar_tokens = LLTokenizer(
            tokenizer.backend_tokenizer.to_str(),
            n_vocab=vocabulary,
            eos_token=list(end_ids),
            slices=LLTokenizer.json_slices(),
        )
        self.raw = lru_cache(maxsize=65_536)(self._raw)
        self.longest = max(len(self._raw(token)) for token in range(vocabulary))

    def prompt(self, text: str, *, special: bool = True) -> list[int]:
        """Tokens of a text, with the marks that the model expects at its beginning."""
        return self._words.encode(text, add_special_tokens=special).ids

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as one text, special ones by name."""
        return bytes(self.grammar_tokens.decode_bytes(list(tokens))).decode("utf-8", "replace")

    def _raw(self, token: int) -> bytes:
        """The bytes of one token; a special one's name."""
        return bytes(self.grammar_tokens.decode_bytes([token]))

    def shown(self, token: int) -> str:
        """One token as text; bytes that are no whole character are written as U+FFFD."""
        return self.raw(token).decode("utf-8", "replace")
