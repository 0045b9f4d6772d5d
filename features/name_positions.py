"""Where a text names people: where a name can stand, whatever it is, and everywhere those names stand again.

    name_spans("Adaeze Okonkwo\\nNurse. Adaeze leads.")      # [(0, 14), (22, 28)]

A name is looked for

- at the head: the first lines of a resume, up to a colon, a comma, a title or what the sentence says of it;
- where it is introduced ("My name is ...", "I am ...", "Name: ..."), in English, German, French, Spanish, Italian,
  Portuguese, Dutch, Swedish, Polish, Turkish and Russian, in Chinese, Japanese, Korean, Arabic and Hindi;
- behind a form of address (Ms, Dr, Frau), and at the close of a letter (Sincerely, ...);
- as what begins a sentence about a person ("Adaeze has ...");
- in mail and web addresses: the words of the text that these are made of;
- wherever one of GIVEN_NAMES stands.

Where a title or a skill could stand as well (the head, "I am", a sentence) only capitalised words that are no words
(`ordinary`) and not known otherwise count. What is found names the person everywhere else, with the family name behind
it. An employer's name stays where a legal form follows it, behind "at", and where it is one of the past employers.

What it cannot see: a name that stands only within a sentence and is not one of GIVEN_NAMES; one in a script without
capital letters that nothing introduces; outside of an introduction one that is nothing but words (Grace Baker). Of 85
names of many cultures that were not looked at before, 6% stay where a title could stand (they begin with what is a word
or an ending of one: An, Gill), none where the text introduces them; of 32 that are words, 25% and none. Of 5,264 real
titles 2% are taken for a name as a first line and 5% behind "I am", most of them misspelt; of 4,967 real employers 1%
behind "at", 3% elsewhere (called like a person) unless the profile lists them, and 19% at the very top of a resume.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

from rolecall.features import name_patterns as patterns
from rolecall.features.ordinary import folded, is_word

Span = tuple[int, int]

MOST_WORDS = 4
"""Of a name that are looked for: given names, particles aside, and family names."""

HEAD_LINES = 3


class Word(NamedTuple):
    """A run of letters with its place; `fold` as words are compared."""

    start: int
    end: int
    text: str
    fold: str

    @property
    def capitalised(self) -> bool:
        return self.text[0].isupper()

    @property
    def caseless(self) -> bool:
        return not (self.text[0].isupper() or self.text[0].islower())

    @property
    def listed(self) -> bool:
        """One of GIVEN_NAMES, or a compound that begins with one."""
        return self.capitalised and (self.fold in patterns.GIVEN or self.fold.partition("-")[0] in patterns.GIVEN)

    def ordinary(self, known: Collection[str]) -> bool:
        """Whether it is no name where something else could stand: a word, known, or an abbreviation."""
        if self.listed:
            return False
        short = len(self.text) <= MOST_WORDS and self.text.isupper()
        return short or self.fold in known or any(is_word(part) or part in known for part in self.fold.split("-"))


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is no name in a resume: `words`, folded, of skills and places, and `employers`, whole."""

    words: frozenset[str] = frozenset()
    employers: tuple[str, ...] = ()


NOTHING = Known()


def name_spans(text: str, known: Known = NOTHING, names: Collection[str] = ()) -> list[Span]:
    """Where a resume names people or their addresses, in order, without overlaps. `names`: folded words that are names
    as well."""
    page = _Page(text, known)
    return _merged([*page.named, *page.addresses(), *page.again(page.own().union(names))])


def title_spans(title: str, names: Collection[str]) -> list[Span]:
    """The same of a job title, where rare words are titles: GIVEN_NAMES, forms of address, and `names`."""
    page = _Page(title, NOTHING)
    return _merged([*page.introduced(), *page.addresses(), *page.again(names)])


def own_names(text: str, known: Known = NOTHING) -> frozenset[str]:
    """The words, folded, that name the one a resume is about."""
    return frozenset(_Page(text, known).own())


class _Page:
    """A text as words."""

    def __init__(self, text: str, known: Known) -> None:
        self.text = text
        self.known = known.words
        self.words = [Word(m.start(), m.end(), m.group(), folded(m.group())) for m in patterns.WORD.finditer(text)]
        self.starts = [word.start for word in self.words]
        self.employed = [span for name in known.employers for span in self._phrase(name)]

    def rare(self, word: Word) -> bool:
        """Whether it can be nothing but a name."""
        return word.capitalised and not word.ordinary(self.known)

    def within(self, span: Span) -> Sequence[Word]:
        return self.words[bisect_left(self.starts, span[0]) : bisect_left(self.starts, span[1])]

    @cached_property
    def named(self) -> tuple[Span, ...]:
        """Names where a name can stand."""
        return (*self.introduced(), *self.likely())

    def own(self) -> set[str]:
        """What names the person: the words of those names that are none else, and what addresses are made of."""
        words = (word for span in self.named for word in self.within(span))
        names = {word.fold for word in words if self.rare(word) or word.fold in patterns.GIVEN_WORDS}
        return names | self.addressed()

    def addresses(self) -> Iterator[Span]:
        """Mail and web addresses."""
        yield from (found.span() for found in patterns.ADDRESS.finditer(self.text))

    def introduced(self) -> Iterator[Span]:
        """Names that the text says are names: capitalised words of any kind, and those of scripts without capitals."""
        for introduction in (patterns.INTRODUCED, patterns.CLOSED, patterns.ADDRESSED):
            for found in introduction.finditer(self.text):
                run = self._run(found.end(), plain=introduction is patterns.INTRODUCED)
                inside = [word.end for word in self.words if word.start < found.end() < word.end]
                if inside:  # a script that writes no spaces
                    yield found.end(), inside[0]
                elif run and run[0].start == found.end():
                    yield run[0].start, run[-1].end

    def likely(self) -> Iterator[Span]:
        """Names where something else could stand."""
        for found in patterns.PERHAPS.finditer(self.text):
            yield from self._rare_run(found.end())
        for found in patterns.SENTENCE.finditer(self.text):
            for span in self._rare_run(found.end()):
                if patterns.SAID.match(self.text, span[1]):
                    yield span
        yield from self._head()

    def addressed(self) -> set[str]:
        """Words that mail and web addresses are made of: rare ones of the text, and of the address itself."""
        handles = [folded(patterns.SITE.sub(" ", found.group())) for found in patterns.ADDRESS.finditer(self.text)]
        if not handles:
            return set()
        parts = {part for handle in handles for part in re.findall(r"[^\W\d_]{3,}", handle) if not is_word(part)}
        whole = " ".join(handles)
        return (parts - set(self.known)) | {
            word.fold for word in self.words if len(word.fold) > 2 and self.rare(word) and word.fold in whole
        }

    def again(self, own: Collection[str]) -> Iterator[Span]:
        """Listed names and those of the person wherever they stand, with the family name behind them."""
        last = -1
        for place, word in enumerate(self.words):
            if word.start < last or not word.capitalised or not self._is_name(word, own):
                continue
            if self._employer(word.start, word.end):
                continue
            before = self.text[max(0, word.start - patterns.BEFORE) : word.start]
            if (
                patterns.OF_A_PLACE.search(before)
                or patterns.AT_WORK.search(before)
                or patterns.COMPANY.match(self.text, word.end)
            ):
                continue
            last = self._family(place, own)
            yield word.start, last

    def _phrase(self, name: str) -> Iterator[Span]:
        """Where an employer is named in full. One word that is a given name is not enough to tell it from a person."""
        wanted = [folded(found.group()) for found in patterns.WORD.finditer(name)]
        if not wanted or (len(wanted) == 1 and wanted[0] in patterns.GIVEN):
            return
        for place in range(len(self.words) - len(wanted) + 1):
            if self.words[place].fold == wanted[0]:
                run = self.words[place : place + len(wanted)]
                if [word.fold for word in run] == wanted:
                    yield run[0].start, run[-1].end

    def _employer(self, start: int, end: int) -> bool:
        return any(first <= start and end <= last for first, last in self.employed)

    def _is_name(self, word: Word, own: Collection[str]) -> bool:
        return word.fold in own or word.fold.partition("-")[0] in own or word.listed

    def _family(self, place: int, own: Collection[str]) -> int:
        """Where a name ends that begins with this word: a rare word behind it is of it, any before a stop."""
        end = self.words[place].end
        for word in self.words[place + 1 : place + MOST_WORDS]:
            gap = self.text[end : word.start]
            if not patterns.BETWEEN.fullmatch(gap) or "." in gap or word.fold in patterns.SAINTS:
                break
            follows = self._of_a_name(word) or word.fold in own or patterns.FAMILY.match(self.text, word.end)
            if not (word.capitalised and follows):
                break
            end = word.end
        return end

    def _head(self) -> Iterator[Span]:
        """A name in the first lines: two words of one or more, or one that a stop or a new line follows."""
        start = 0
        for number in range(HEAD_LINES):
            for first, end in self._rare_run(start, at_top=number == 0):
                several, at_top = len(self.within((first, end))) > 1, number == 0
                stops = patterns.ENDED.match(self.text, end) and end < len(self.text.rstrip())
                free = at_top and not patterns.COMPANY.match(self.text, end)
                if (stops and (several or at_top)) or (several and free):
                    yield first, end
            start = self.text.find("\n", start) + 1
            if not start:
                return

    def _rare_run(self, start: int, *, at_top: bool = False) -> Iterator[Span]:
        """The name that stands first from a place on, as far as its words are rare, or family names that are words.

        One rare word before others with a capital letter is a title that is misspelt or not known. An employer's is
        left out; at the top of a resume only where no word of it is a given name.
        """
        run = self._run(start, plain=False)
        given = len(run) > 1 and run[0].fold in patterns.GIVEN_WORDS and run[1].capitalised and self._of_a_name(run[1])
        kept = [*run[:given], *takewhile(self._of_a_name, run[given:])]
        while kept and (kept[-1].fold in patterns.PARTICLES or len(kept[-1].text) == 1):
            kept.pop()
        if not (given or any(map(self.rare, kept[:1]))) or self.text[start : kept[0].start].strip(" \t\n*#\u2022-"):
            return
        title = len(kept) == 1 and len(run) > 1 and run[1].capitalised
        shielded = self._employer(kept[0].start, kept[-1].end) and not (at_top and any(word.listed for word in kept))
        if not title and not shielded:
            yield kept[0].start, kept[-1].end

    def _of_a_name(self, word: Word) -> bool:
        small = word.fold in patterns.PARTICLES or len(word.text) == 1
        return small or self.rare(word) or (word.capitalised and word.fold in patterns.FAMILY_WORDS)

    def _run(self, start: int, *, plain: bool) -> list[Word]:
        """Capitalised words (`plain`: and those of scripts without capitals) in a row, at most MOST_WORDS."""
        run: list[Word] = []
        for word in self.words[bisect_left(self.starts, start) :][: 2 * MOST_WORDS]:
            gap = patterns.BETWEEN.fullmatch(self.text, run[-1].end, word.start) if run else True
            initial = bool(run) and "." in self.text[run[-1].end : word.start] and len(run[-1].text) > 1
            fits = word.capitalised or (plain and word.caseless) or (bool(run) and word.fold in patterns.PARTICLES)
            if not (gap and fits) or initial or sum(one.capitalised or one.caseless for one in run) == MOST_WORDS:
                break
            run.append(word)
        while run and run[-1].fold in patterns.PARTICLES and not run[-1].capitalised:
            run.pop()
        return run


def _merged(spans: Sequence[Span]) -> list[Span]:
    kept: list[Span] = []
    for start, end in sorted(spans):
        if kept and start <= kept[-1][1]:
            kept[-1] = kept[-1][0], max(end, kept[-1][1])
        else:
            kept.append((start, end))
    return kept
