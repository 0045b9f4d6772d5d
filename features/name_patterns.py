"""What introduces a name, what follows one, and what makes one an employer's or a place's, in several languages."""

from __future__ import annotations

import re

from rolecall.features.names import GIVEN_NAMES, LETTER, NOT_BEFORE
from rolecall.features.ordinary import folded

WORD = re.compile(rf"{NOT_BEFORE}[^\W\d_]{LETTER}*(?:['\u2019]{LETTER}{{2,}}|-{LETTER}+)*")
GIVEN = frozenset(folded(name) for name in GIVEN_NAMES)
_SMALL = "al ap ben bin bint da das de del della der di dos du el ibn la le ter van von zu y"
PARTICLES = frozenset(re.findall(r"\w+", _SMALL))
BETWEEN = re.compile(r"[^\S\n]+|\.[^\S\n]*")
ADDRESS = re.compile(
    r"(?<![\w.+'-])[\w.+'-]+@[\w-]+(?:\.[\w-]+)+|"
    r"(?:https?://|www\.)\S+|\b(?:linkedin|github|gitlab|xing|behance|facebook)\.com/\S+",
    re.IGNORECASE,
)
SITE = re.compile(r"@.*|https?://|www\.|[\w-]+\.(?:com|org|net|de)/", re.IGNORECASE)
INTRODUCED = re.compile(
    r"\b(?:my (?:full )?name(?: is|['\u2019]s|:)|(?:please )?call me|"
    r"(?:full |first |last |given |family |sur)?name\s*:|"
    r"ich hei(?:\u00df|ss)e|mein name ist|(?:vor|nach|familien)name\s*:|"
    r"je m['\u2019]appelle|mon nom est|(?:nom|pr\u00e9nom)\s*:|me llamo|mi nombre es|(?:nombre|apellidos?)\s*:|"
    r"mi chiamo|il mio nome \u00e8|(?:nome|cognome)\s*:|meu nome \u00e9|chamo-me|"
    r"(?:mijn naam is|ik heet)|jag heter|mitt namn \u00e4r|nazywam si\u0119|mam na imi\u0119|"
    r"ad\u0131m|\u043c\u0435\u043d\u044f \u0437\u043e\u0432\u0443\u0442|\u0438\u043c\u044f\s*:)\s*|"
    r"(?:\u6211\u53eb|\u6211\u7684\u540d\u5b57\u662f|\u59d3\u540d\s*[:\uff1a]|\u540d\u524d\s*[:\uff1a]|"
    r"\u6c0f\u540d\s*[:\uff1a]|\uc774\ub984\s*[:\uff1a]|\uc81c \uc774\ub984\uc740|\u0627\u0633\u0645\u064a|"
    r"\u0627\u0644\u0627\u0633\u0645\s*:|\u092e\u0947\u0930\u093e \u0928\u093e\u092e|\u0928\u093e\u092e\s*:)\s*",
    re.IGNORECASE,
)
CLOSED = re.compile(
    r"\b(?:sincerely|(?:kind |best |warm )?regards|best wishes|respectfully|cheers|thank you|thanks|yours truly|"
    r"gr\u00fc(?:\u00df|ss)en?|hochachtungsvoll|cordialement|salutations|saludos|atentamente|cordiali saluti|"
    r"atenciosamente|med v\u00e4nlig h\u00e4lsning)[,.!]?\s*\n\s*",
    re.IGNORECASE,
)
ADDRESSED = re.compile(
    r"(?<!\w)(?:M(?:r|rs|s|iss|x|me|lle)|Dr|Prof|Sra|Herrn?|Frau)(?!\w)\.?[^\S\n]+"
)  # as they are written: MS Office and DR tests are something else
PERHAPS = re.compile(
    r"\b(?:i am|i['\u2019]m|this is|ich bin|je suis|soy|sono|eu sou|ik ben|jag \u00e4r)[^\S\n]+|"
    r"\b(?:resume|r\u00e9sum\u00e9|cv|curriculum vitae|lebenslauf)\s*(?:of|for|von|de|:|-|\n)?\s*",
    re.IGNORECASE,
)
SENTENCE = re.compile(r"(?:\A|(?<=[.!?;:|\n]))\s*")
SAID = re.compile(
    r"(?:['\u2019]s)?[^\S\n]+(?:is|was|has|had|will|can|knows?|works?|worked|brings|holds|speaks|joined|earned|studied|led|"
    r"leads|managed|manages|cooks?|teaches|taught|runs|ran|ist|war|hat|kann|arbeitet|spricht|est|a|es|tiene|trabaja)"
    rf"(?!{LETTER})"
)
ENDED = re.compile(r"[^\S\n]*(?:[,:|\n(\u2013\u2014]|-[^\S\n]|\Z)")
_FAMILIES = """
banks bell berry black bond booth brooks brown bush cross cruz day dean fields ford fox frost grant gray green grey hall
hill holt hope house jordan king lake lamb lane law long love may moon moss noble page park parks peace pope price rice
rich rivers rose rush sharp short snow spring star stone strong swift sun sweet vale waters west white wild wise wolf
wood woods wright young rock reed marsh field chase savage small little best noon temple church castle
"""
_GIVEN = """
amber angel april aurora autumn bishop blessing blossom bliss brook brooklyn chance charity chase chastity clementine
constance coral crystal dakota daisy dawn desire destiny diamond dream earnest ebony eden ember faith favor felicity
fern forrest garnet genesis ginger gift glory goodluck grace happy harmony harper haven hazel heaven holly honest
honor hope hunter iris ivory ivy jade jasmine journey joy june justice king knight lily lucky lotus magnolia marina
marvelous melody mercy miracle misty nature nevaeh olive opal passion patience peace pearl phoenix piper pleasure
poppy praise precious prince princess promise prudence raven rayne reign river robin rose ruby sage savannah serenity
shepherd sky skyler stormy summer sunday sunny sunshine tempest temperance trinity trust tuesday unity venus verity
victor victory violet wednesday willow winter wisdom wren zion
"""
GIVEN_WORDS = frozenset(re.findall(r"\w+", _GIVEN))
"""Words that are given names as well: before a rare word, or one of FAMILY_WORDS, they are taken for one."""

FAMILY_WORDS = frozenset(re.findall(r"\w+", _FAMILIES))
"""Words that are family names as well, and no trades: behind a rare word they are taken for one."""

SAINTS = frozenset(["san", "santa", "saint", "sankt", "st"])
OF_A_PLACE = re.compile(r"(?:^|[^\w])(?:San|Santa|Saint|Sankt|St\.?)[^\S\n]*$")
AT_WORK = re.compile(r"(?:(?:^|[^\w])(?:at|bei|chez)[^\S\n]+|@[^\S\n]*)$", re.IGNORECASE)
BEFORE = 12
"""Of what stands before a name."""

COMPANY = re.compile(
    rf"(?:[^\S\n]+(?:[^\W\d_a-z]{LETTER}*|&|und|and)){{0,3}}?[^\S\n]+"
    r"(?:GmbH|mbH|AG|SE|KG|KGaA|OHG|Inc|Ltd|LLC|LLP|PLC|plc|Corp|Corporation|SARL|SAS|SpA|BV|NV|ApS|Oy|"
    rf"Group|Gruppe|Holding|Stiftung|Foundation|University|Universit\u00e4t)(?!{LETTER})"
)
"""What makes a name on the same line an employer's or a school's: Robert Bosch GmbH, Anna University."""

FAMILY = re.compile(r"\s*(?:[,.:;|(\n]|$)")
