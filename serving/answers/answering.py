"""A question answered: passages first, then the text as it comes, then what each sentence rests on.

async for event in Answerer(llm).events(request, retrieved, request_id="r1"):
    ...                 # one Found, Said for each piece of text, one AnswerReply
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from rolecall.serving.answers.grounding import statements
from rolecall.serving.answers.passages import Passage
from rolecall.serving.answers.prompt import Prompt, pack
from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.service import Asked, LLMService
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.models import AnswerPassage, AnswerReply, AnswerRequest, AnswerStatement, Stage

PROMPT_TOKENS = 768
"""A prompt of a thousand tokens keeps a laptop's CPU busy for seconds."""


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """What search brought, from which release, in how many milliseconds."""

    release_id: str
    passages: tuple[Passage, ...]
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The passages that the model is given; none: it is not asked."""

    passages: tuple[Passage, ...]


@dataclass(frozen=True, kw_only=True)
class Said:
    """More of the answer."""

    text: str


Event = Found | Said | AnswerReply


class Answerer:
    """Answers with one language model."""

    def __init__(self, llm: LLMService) -> None:
        self._llm = llm

    async def events(self, request: AnswerRequest, retrieved: Retrieved, *, request_id: str) -> AsyncIterator[Event]:
        """What a client is told, in order. Leaving early stops the model. Raises OpenAIError as `LLMService.open`."""
        search = Stage(
            stage="passages",
            count_in=request.passages,
            count_out=len(retrieved.passages),
            milliseconds=retrieved.milliseconds,
        )
        if not retrieved.passages:
            yield Found(passages=())
            yield self._reply(request_id, retrieved, (), "", (search,))
            return
        started = time.perf_counter()
        prompt = self._prompt(request.question, retrieved.passages)
        asked = await self._asked(prompt, request.max_tokens)
        said: list[str] = []
        first, tokens = None, 0
        async with await self._llm.open(asked) as running:
            yield Found(passages=prompt.passages)
            async for _, output in running.news():
                tokens += len(output.tokens)
                if output.text:
                    first = _since_ms(started) if first is None else first
                    said.append(output.text)
                    yield Said(text=output.text)
        trace = (
            search,
            Stage(stage="first_text", count_in=len(asked.prompts[0]), count_out=1, milliseconds=first or 0.0),
            Stage(stage="answer", count_in=len(prompt.passages), count_out=tokens, milliseconds=_since_ms(started)),
        )
        yield self._reply(request_id, retrieved, prompt.passages, "".join(said), trace)

    def _prompt(self, question: str, passages: tuple[Passage, ...]) -> Prompt:
        most = min(PROMPT_TOKENS, self._llm.context // 2)
        try:
            return pack(question, passages, most_tokens=most, count=lambda text: len(self._llm.texts.prompt(text)))
        except ValueError as error:
            raise OpenAIError(422, str(error), param="question") from error

    async def _asked(self, prompt: Prompt, max_tokens: int) -> Asked:
        tokens = await self._llm.chat_tokens(prompt.messages)
        parameters = SamplingParameters(
            temperature=0.0,
            max_tokens=min(max_tokens, self._llm.context - len(tokens)),
            constraint=self._llm.grammars.lark(prompt.grammar),
        )
        return Asked(prompts=[tokens], parameters=parameters)

    def _reply(
        self,
        request_id: str,
        retrieved: Retrieved,
        passages: tuple[Passage, ...],
        answer: str,
        trace: tuple[Stage, ...],
    ) -> AnswerReply:
        judged = statements(answer, passages) if passages else ()
        return AnswerReply(
            request_id=request_id,
            release_id=retrieved.release_id,
            found=bool(passages),
            answer=answer,
            statements=tuple(
                AnswerStatement(text=one.text, passage_id=one.passage_id, support=one.support) for one in judged
            ),
            passages=tuple(shown(passage) for passage in passages),
            model=self._llm.name,
            trace=trace,
        )


def shown(passage: Passage) -> AnswerPassage:
    """A passage as it is sent."""
    return AnswerPassage(id=passage.id, title=passage.title, text=passage.text, similarity=passage.similarity)


def _since_ms(started: float) -> float:
    return (time.perf_counter() - started) * 1e3
