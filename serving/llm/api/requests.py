"""What OpenAI's paths take. A parameter that is not declared here is refused by its name.

Fields, types and ranges are those of OpenAI's API reference (chat completions, completions, models); `top_k`,
`min_p`, `repetition_penalty`, `ignore_eos`, `priority` and `cache_salt` are extensions, by the names that vLLM gives
them.
A parameter that clients send by habit and that changes nothing here (`user`, `store: false`) is taken at its neutral
value only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_CHOICES = 16
MOST_STOPS = 16  # OpenAI takes 4
MOST_ALTERNATIVES = 20
MOST_PROMPTS = 128
MOST_MESSAGES = 1_000
MOST_FIELDS = 64

Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(max_length=4 * 1024 * 1024)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
TokenId = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Bias = Annotated[Finite, Field(ge=-100, le=100)]
TokenKey = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}$")]


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StreamOptions(_Wire):
    """`include_usage`: one more chunk before the end, without choices, that says what was used."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class _Sampled(_Wire):
    """What chat and text completion share."""

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    temperature: Annotated[Finite, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Finite, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = Field(default=None, description="0 and -1: no limit")
    min_p: Annotated[Finite, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Finite, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Finite, Field(gt=0, le=10)] | None = None
    logit_bias: dict[TokenKey, Bias] | None = Field(default=None, max_length=1_024)
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MOST_STOPS)] | None = None
    ignore_eos: bool | None = Field(default=None, description="go on to the token limit")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Text | None = None
    priority: Annotated[int, Field(ge=-1_000, le=1_000)] | None = Field(default=None, description="smaller goes first")
    cache_salt: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = Field(
        default=None, description="prefixes are shared among requests with the same salt only"
    )

    @property
    def choices(self) -> int:
        """How many completions of each prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, also where one was given alone."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, given: Any) -> Any:
        """Every unknown field is an error of its own: a hundred thousand of them would take seconds to tell."""
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"got {len(given)} fields; allowed: at most {MOST_FIELDS}")
        return given

    @model_validator(mode="after")
    def _streams_what_it_describes(self) -> _Sampled:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options belong to stream: true")
        return self


class TextPart(_Wire):
    """A piece of a message."""

    type: Literal["text"]
    text: Text


class Message(_Wire):
    """A turn of a conversation. `developer` is read as `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=1_000)]
    name: None = None

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class NamedSchema(_Wire):
    """A JSON Schema with the name that OpenAI asks for. The answer is valid in any case: `strict` changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    definition: dict[str, Any] = Field(alias="schema", default_factory=dict)
    strict: bool | None = None


class PlainFormat(_Wire):
    """Any text."""

    type: Literal["text"]


class JsonFormat(_Wire):
    """Any JSON object."""

    type: Literal["json_object"]


class SchemaFormat(_Wire):
    """JSON that the schema allows."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainFormat | JsonFormat | SchemaFormat, Field(discriminator="type")]


class ChatRequest(_Sampled):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"model": "smollm2-135m", "messages": [{"role": "user", "content": "What does a welder do?"}]},
            ]
        },
    )
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat | None = None
    # Taken at the value that changes nothing.
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    tools: Annotated[list[None], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[str, Any], Field(max_length=16)] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def most_tokens(self) -> int | None:
        """The token limit; None: what the context leaves."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @model_validator(mode="after")
    def _asks_for_logprobs(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class CompletionRequest(_Sampled):
    """`POST /v1/completions`: text or token ids go on as they are, without a chat template."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"model": "smollm2-135m", "prompt": "A welder is", "max_tokens": 16}]},
    )
    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
        | Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]],
            Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True),
        ]
    )
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = 16
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    suffix: Literal[""] | None = None

    @property
    def prompts(self) -> list[str | list[int]]:
        """One entry a prompt."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if all(isinstance(token, int) for token in self.prompt):
            return [[token for token in self.prompt if isinstance(token, int)]]
        return [prompt for prompt in self.prompt if not isinstance(prompt, int)]

    @model_validator(mode="after")
    def _keeps_all_it_makes(self) -> CompletionRequest:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError("best_of may only equal n: every completion made is given")
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens 0 needs echo: true")
        return self


def most_ids(body: Any) -> int:
    """How many token ids the longest prompt of a body has that nobody validated yet; 0 where texts are given."""
    prompt = body.get("prompt") if isinstance(body, dict) else None
    if not isinstance(prompt, list) or not prompt:
        return 0
    prompts = prompt[:MOST_PROMPTS] if isinstance(prompt[0], list) else [prompt]
    return max((len(ids) for ids in prompts if isinstance(ids, list) and ids and isinstance(ids[0], int)), default=0)


class TokenizeRequest(_Wire):
    """`POST /v1/tokenize`: of a text, or of a conversation with the chat template applied."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"examples": [{"prompt": "What does a welder do?"}]}
    )

    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    prompt: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True)] | None = None
    add_special_tokens: bool = False
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _names_one(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give prompt or messages, one of them")
        return self
