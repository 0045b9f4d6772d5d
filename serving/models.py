"""What the HTTP interface takes and gives. Unknown fields are refused, ranges stand beside the fields."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from rolecall.features.schema import MAX_LIST, MAX_SHORT_TEXT, MAX_TEXT

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_SHORT_TEXT, pattern=r"^[^\x00]+$")]
LongText = Annotated[str, StringConstraints(max_length=MAX_TEXT, pattern=r"^[^\x00]*$")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Seniority = Literal["intern", "junior", "mid", "senior", "lead", "executive"]
EmploymentType = Literal["full_time", "part_time", "contract", "temporary", "internship", "volunteer"]
EventKind = Literal[
    "impression", "view", "click", "save", "apply", "dismiss", "invite", "shortlist", "reject", "reply", "hire"
]
MAX_HISTORY = 200
MAX_EVENTS = 1_000
WIDEST_LIMIT = 1_000


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Near(_Wire):
    """A circle on the earth."""

    lat: Latitude
    lon: Longitude
    radius_km: Annotated[float, Field(gt=0, le=20_000, allow_inf_nan=False)]


class Filters(_Wire):
    """Conditions every job of the answer meets. Values within one list are alternatives; the fields add up."""

    countries: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    regions: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    cities: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    categories: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    employment_types: tuple[EmploymentType, ...] = Field(default=(), max_length=MAX_LIST)
    seniorities: tuple[Seniority, ...] = Field(default=(), max_length=MAX_LIST)
    remote: bool | None = None
    salary_at_least: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    near: Near | None = None


class Profile(_Wire):
    """A person described in the request itself: nothing of it is stored."""

    desired_titles: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    resume_text: LongText = ""
    skills: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    seniority: Seniority | None = None
    city: ShortText | None = None
    region: ShortText | None = None
    country: ShortText | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None
    history: tuple[Identifier, ...] = Field(
        default=(), max_length=MAX_HISTORY, description="jobs this person engaged with, oldest first"
    )

    @model_validator(mode="after")
    def _has_whole_coordinates(self) -> Profile:
        if (self.lat is None) != (self.lon is None):
            raise ValueError("lat and lon belong together: give both or neither")
        return self


class RecommendationRequest(_Wire):
    """Whom to recommend jobs to. With both, the profile's values replace the stored ones for this request."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"candidate_id": "c-1024", "limit": 10},
                {
                    "profile": {"desired_titles": ["data analyst"], "skills": ["sql", "python"], "country": "DE"},
                    "filters": {"countries": ["DE"], "remote": True},
                    "limit": 5,
                },
            ]
        },
    )
    candidate_id: Identifier | None = None
    profile: Profile | None = None
    filters: Filters = Filters()
    limit: int = Field(default=10, ge=1, le=WIDEST_LIMIT)

    @model_validator(mode="after")
    def _names_someone(self) -> RecommendationRequest:
        if self.candidate_id is None and self.profile is None:
            raise ValueError("neither candidate_id nor profile was given: give one of them")
        return self


def personal_texts(request: RecommendationRequest) -> tuple[str, ...]:
    """What of a request tells about a person: not for any log."""
    told = request.profile
    texts = (told.resume_text, *told.desired_titles, *told.skills) if told else ()
    return (*((request.candidate_id,) if request.candidate_id else ()), *(text for text in texts if text))


class RecommendedJob(_Wire):
    """One job of the answer. `score`, from 0 to 1: where applications were logged the
    calibrated probability of one, else the logistic function of the ranker's score, good for order alone."""

    job_id: str
    title: str
    employer: str | None
    place: str | None
    score: float
    position: int = Field(description="1 is the top")
    propensity: float = Field(description="probability that the policy showed this job at this position")
    reasons: tuple[str, ...]


class Stage(_Wire):
    """What one stage of the funnel took in, let out, and needed."""

    stage: str
    count_in: int
    count_out: int
    milliseconds: float


class RecommendationReply(_Wire):
    """The answer. Post `request_id`, `position` and `propensity` back with the events it leads to."""

    request_id: str
    release_id: str
    known: bool = Field(description="False: the candidate id has no stored features, the answer rests on content alone")
    items: tuple[RecommendedJob, ...]
    trace: tuple[Stage, ...]


class PeopleFilters(_Wire):
    """Conditions every person of the answer meets. Values within one list are alternatives; the fields add up."""

    countries: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    regions: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    cities: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    seniorities: tuple[Seniority, ...] = Field(default=(), max_length=MAX_LIST)
    skills: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST, description="people who list any of them")
    near: Near | None = None
    active_since: AwareDatetime | None = Field(default=None, description="heard of at or after this instant")


class JobBody(_Wire):
    """A job described in the request itself: nothing of it is stored."""

    title: ShortText
    description: LongText = ""
    employer_id: Identifier | None = Field(
        default=None, description="who asks; without it, people who hide from anyone are not shown"
    )
    skills: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    category_path: tuple[ShortText, ...] = Field(default=(), max_length=MAX_LIST)
    seniority: Seniority | None = None
    city: ShortText | None = None
    region: ShortText | None = None
    country: ShortText | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None
    remote: bool | None = None
    salary_min: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    salary_max: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _has_whole_coordinates(self) -> JobBody:
        if (self.lat is None) != (self.lon is None):
            raise ValueError("lat and lon belong together: give both or neither")
        return self


class PeopleRequest(_Wire):
    """People for a job. `job` describes one that the release does not hold yet; of one that it holds, the release's
    own content counts."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"limit": 10},
                {"filters": {"countries": ["DE"], "skills": ["sql"]}, "exclude_applicants": False, "limit": 5},
                {
                    "job": {
                        "title": "data analyst",
                        "skills": ["sql", "python"],
                        "employer_id": "e-9",
                        "country": "DE",
                    },
                    "limit": 5,
                },
            ]
        },
    )
    job: JobBody | None = None
    filters: PeopleFilters = PeopleFilters()
    exclude_applicants: bool = Field(
        default=True, description="True: only people who did not apply to this job; False: those who did come first"
    )
    limit: int = Field(default=10, ge=1, le=WIDEST_LIMIT)


class RecommendedPerson(_Wire):
    """One person of the answer, who agreed to be recommended. `score`, from 0 to 1: where outcomes were logged the
    calibrated probability of one that both sides want, once they see the job; else good for order alone."""

    candidate_id: str
    score: float
    position: int = Field(description="1 is the top")
    propensity: float = Field(description="probability that the policy showed this person at this position")
    reasons: tuple[str, ...]


class PeopleReply(_Wire):
    """The answer to an employer."""

    request_id: str
    release_id: str
    known: bool = Field(description="False: the release does not hold the job, the answer rests on the content given")
    trained: bool = Field(description="False: no outcome was known to learn from, people come in order of content")
    items: tuple[RecommendedPerson, ...]
    trace: tuple[Stage, ...]


class SearchRequest(_Wire):
    """Free text over the jobs, by meaning and by words."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"text": "night shift nurse", "filters": {"cities": ["Berlin"]}, "limit": 10}]},
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=MAX_SHORT_TEXT, pattern=r"^[^\x00]*\S[^\x00]*$")]
    filters: Filters = Filters()
    limit: int = Field(default=10, ge=1, le=WIDEST_LIMIT)


class FoundJob(_Wire):
    """One hit of a search, with the piece of text that matches."""

    job_id: str
    title: str
    employer: str | None
    place: str | None
    score: float
    position: int
    snippet: str


class SearchReply(_Wire):
    """The hits, best first."""

    request_id: str
    release_id: str
    items: tuple[FoundJob, ...]
    milliseconds: float


class Event(_Wire):
    """One thing that happened between a candidate and a job. `event_id` makes sending it twice harmless."""

    event_id: Identifier
    actor: Literal["candidate", "employer"] = "candidate"
    candidate_id: Identifier
    job_id: Identifier
    kind: EventKind
    occurred_at: AwareDatetime
    request_id: Identifier | None = None
    position: int | None = Field(default=None, ge=1, le=1_000_000)
    propensity: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    dwell_seconds: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class EventBatch(_Wire):
    """Up to a thousand events. They are taken all together or, with the reasons, not at all."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "event_id": "0b5c2f1e",
                            "candidate_id": "c-1024",
                            "job_id": "j-77",
                            "kind": "apply",
                            "occurred_at": "2026-11-02T09:30:00Z",
                            "request_id": "6f1d",
                            "position": 2,
                        }
                    ]
                }
            ]
        },
    )
    events: tuple[Event, ...] = Field(min_length=1, max_length=MAX_EVENTS)


class EventReceipt(_Wire):
    """Sent once every event is on disk. Accepted + duplicate + dropped = events sent."""

    accepted: int
    duplicate: int
    dropped: int = Field(default=0, description="events of people who asked to be forgotten: not kept")


class Readiness(_Wire):
    """Whether this process answers, and with which release."""

    ready: bool
    release_id: str | None = None
    release_as_of: AwareDatetime | None = Field(default=None, description="the instant that the release was built for")
    previous_release_id: str | None = None
    checks: dict[str, str] = Field(default_factory=dict, description="each part and its state: ok, or what is missing")


class Liveness(_Wire):
    """The process runs."""

    status: Literal["ok"] = "ok"


class FieldError(_Wire):
    """One thing that is wrong in a request."""

    pointer: str = Field(description="JSON Pointer into the body, or the name of a parameter")
    detail: str


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None
    errors: tuple[FieldError, ...] = ()


class AnswerRequest(_Wire):
    """A question about jobs, answered from adverts of the release that meet the filters, and from what its adverts
    show of occupations and skills."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"question": "Which jobs ask for a forklift licence?", "stream": False}]},
    )
    question: Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00]*\S[^\x00]*$")]
    filters: Filters = Filters()
    passages: int = Field(default=4, ge=1, le=10, description="at most so many are looked at")
    max_tokens: int = Field(default=160, ge=16, le=1_024)
    stream: bool = Field(default=False, description="server-sent events: passages, delta, done")


class AnswerPassage(_Wire):
    """What an answer may rest on. `id`: a job's, or `occupation:` or `skill:` and a name; `similarity`: cosine with the
    question."""

    id: str
    title: str
    text: str
    similarity: float


class AnswerStatement(_Wire):
    """A sentence of the answer and the passage it rests on. `passage_id` is null where no passage given supports it;
    `support`: share of the sentence's telling words that the passage has."""

    text: str
    passage_id: str | None
    support: float


class AnswerReply(_Wire):
    """The answer. `found` is false, and `answer` empty, where nothing fits the question."""

    request_id: str
    release_id: str
    found: bool
    answer: str
    statements: tuple[AnswerStatement, ...]
    passages: tuple[AnswerPassage, ...]
    model: str
    trace: tuple[Stage, ...]
