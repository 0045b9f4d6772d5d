"""Constrained decoding: text that a JSON Schema or a grammar allows, by llguidance over the model's own tokens.

grammars = Grammars(tokens, vocabulary=49_152)
parameters = SamplingParameters(constraint=grammars.json({"type": "object"}))
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
KEPT = 64  # states a constraint remembers: choices of one request, and the tokens drafted for each
MOST_GRAMMARS = 128
LONGEST_SCHEMA = 65_536  # characters of JSON; compiling takes seconds where there are thousands of alternatives
LAYOUT: Any = {
    # One way to write each value: a small model that may choose its blanks can write blanks for ever.
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}


class Grammars:
    """Compiles schemas for one model's tokens; a schema seen before is not compiled again. Any thread may call."""

    def __init__(self, tokenizer: LLTokenizer, *, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = tokenizer
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def json(self, schema: Mapping[str, Any] = ANY_OBJECT) -> GrammarConstraint:
        """Text that is JSON under `schema` (draft 2020-12, as far as llguidance goes).

        Raises ValueError for a schema that is wrong or that asks for what cannot be enforced, with the reason.
        """
        if len(json.dumps(schema)) > LONGEST_SCHEMA:
            raise ValueError(f"got a schema of more than {LONGEST_SCHEMA:,} characters; allowed: a shorter one")
        return self._constraint(LLMatcher.grammar_from_json_schema(dict(schema), overrides=LAYOUT))

    def lark(self, grammar: str) -> GrammarConstraint:
        """Text of a grammar in llguidance's dialect of Lark. Raises ValueError for a wrong one."""
        return self._constraint(LLMatcher.grammar_from_lark(grammar))

    def again(self, grammar: str) -> GrammarConstraint:
        """The constraint whose `grammar` this is, made elsewhere for the same tokens."""
        return self._constraint(grammar)

    def _constraint(self, grammar: str) -> GrammarConstraint:
        with self._lock:
            known = self._compiled.pop(grammar, None)
        root = known or LLMatcher(self._tokenizer, grammar)
        if root.is_error():
            raise ValueError(root.get_error().splitlines()[0])
        with self._lock:
            self._compiled[grammar] = root
            while len(self._compiled) > MOST_GRAMMARS:
                self._compiled.popitem(last=False)
            return GrammarConstraint(root.deep_copy(), self._vocabulary, grammar)


class GrammarConstraint:
    """Which tokens may follow. States are kept by the tokens that led there, so choices and drafts do not mix.

    `grammar` describes it: what is sent to another process, whose `Grammars.again` builds the matcher there.
    """

    def __init__(self, root: LLMatcher, vocabulary: int, grammar: str) -> None:
        self.grammar = grammar
        self._root = root
        self._vocabulary = vocabulary
        self._states: OrderedDict[tuple[int, ...], LLMatcher] = OrderedDict()

    def allowed(self, generated: Sequence[int]) -> NDArray[np.bool_]:
        """[vocabulary] after these tokens; none where they do not follow, or where the grammar's parser reaches one of
        its limits: that ends this text, and must end no other."""
        matcher = self._state(tuple(generated))
        words = np.zeros(-(-self._vocabulary // 32), np.int32)
        if not matcher.is_error():
            matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
        if matcher.is_error():
            return np.zeros(self._vocabulary, np.bool_)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little", count=self._vocabulary)
        return bits.view(np.bool_)

    def _state(self, tokens: tuple[int, ...]) -> LLMatcher:
        found = self._states.get(tokens)
        if found is None:
            before = self._states.get(tokens[:-1]) if tokens else None
            found = (before or self._root).deep_copy()
            rest = tokens[-1:] if before else tokens
            found.consume_tokens(list(rest))  # one that does not follow leaves the matcher in error
            self._states[tokens] = found
            while len(self._states) > KEPT:
                self._states.popitem(last=False)
        return found
