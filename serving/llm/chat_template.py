"""Conversations as a model reads them: by its own template, each content within its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from transformers import PreTrainedTokenizerBase

_SPLIT = "\u200b"  # of no width, so that a mark is still read as what somebody wrote


class ChatTemplate:
    """The template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.values()
        self._marks = [token.content for token in added if token.special and token.content]

    def tokens(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Tokens of messages with `role` and `content`, up to where the assistant speaks.

        Raises ValueError for a model without a template, and for a conversation that its template refuses.
        """
        if not self._tokenizer.chat_template:
            raise ValueError("the model has no chat template; use plain prompts")
        plain = [{key: self._plain(value) for key, value in message.items()} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(plain, add_generation_prompt=True, tokenize=False)
        except Exception as error:  # templates raise what they like: they are programs of the model's author
            raise ValueError(f"the model's chat template does not take this conversation: {error}") from error
        return cast(list[int], self._tokenizer.encode(str(text), add_special_tokens=False))

    def _plain(self, text: str) -> str:
        """A text in which no mark of the template stands: it cannot end its turn or begin another's."""
        for mark in self._marks:
            if mark in text:
                text = text.replace(mark, f"{mark[0]}{_SPLIT}{mark[1:]}" if len(mark) > 1 else _SPLIT)
        return text
