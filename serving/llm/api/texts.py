"""Text to tokens and back, as OpenAI's API shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import cast

from llguidance import LLTokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


class Texts:
    """One model's tokens, `size` of them, of at most `longest` bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, vocabulary: int, end_ids: Sequence[int]) -> None:
        """Raises ValueError for a tokenizer that the `tokenizers` library does not run: its bytes are not known."""
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"got a tokenizer of type {type(tokenizer).__name__}; allowed: one with a tokenizer.json")
        self._tokenizer = tokenizer
        self.size = vocabulary
        self._marks = [added.content for added in tokenizer.added_tokens_decoder.values() if added.special]
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
        return cast(list[int], self._tokenizer.encode(text, add_special_tokens=special))

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of a conversation in the model's template, up to where the assistant speaks.

        Raises ValueError for a model without a template, and for a conversation that its template refuses.
        """
        try:
            plain = [{**message, "content": self._plain(message["content"])} for message in messages]
            text = self._tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # templates raise what they like: they are programs of the model's author
            raise ValueError(f"the model's chat template does not take this conversation: {error}") from error
        return self.prompt(str(text), special=False)

    def _plain(self, text: str) -> str:
        """A content in which no mark of the template stands: it cannot end its turn or begin another's."""
        for mark in self._marks:
            if mark in text:
                text = text.replace(mark, f"{mark[0]}\u200b{mark[1:]}")
        return text

    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as one text, special ones by name."""
        return bytes(self.grammar_tokens.decode_bytes(list(tokens))).decode("utf-8", "replace")

    def _raw(self, token: int) -> bytes:
        """The bytes of one token; a special one's name."""
        return bytes(self.grammar_tokens.decode_bytes([token]))

    def shown(self, token: int) -> str:
        """One token as text; bytes that are no whole character are written as U+FFFD."""
        return self.raw(token).decode("utf-8", "replace")
