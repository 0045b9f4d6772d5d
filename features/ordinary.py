"""Which words are no names: English ones from `words.txt`, titles and headings of resumes in a few languages.

A name is told from other capitalised words by what it is not. So a name that is a word as well (Grace, Baker, Hope) is
taken for the word, and a rare word that is not known here may be taken for a name where a name could stand.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("words.txt")

_SHORT = """
am an as at be by do go he if in is it ii iii iv me my no of ok on or so to up us vp we
act add age aid aim air all and any app are art ask bar bed big box boy bus but buy can car cat cut day den dep die did
dr due ear eat end etc ex eye far few fix fly for fun gap gas get gig go got gym had has her him his home hot how ice in
its job jr key kid lab law led let lot low map may mba men met mix mrs net new non not now off oil old one our out own
pay per pet phd pre pro put raw red run sea see set she sir six ski sr tax tea team ten the tie tip to top toy two use
van via was way web who why win with yes yet you zoo san santa saint sankt st los las
"""

_WORK = """
accounts mason sofia charlotte advocate anaesthetist apprentice asst acct assembler babysitter babysitting bagger
bakery banker bookseller busboy busperson caretaker ceo cfo coo cto coder cofounder custodial chaplain bodyguard
bookkeeping cafe barback barista bartender blackjack bookkeeper bricklayer busser caddie canvasser carer caregiver
carpenter cashier chauffeur childcare cleaner clerk cna concierge copywriter courier crew dealership dishwasher
dietitian drafter driver electrician esthetician fitter florist forklift framer freelance freelancer fulltime
fundraiser glazier groomer hairdresser hairstylist handyman hostess housekeeper hvac intern janitor joiner kitchen
landscaper lifeguard lineman locksmith loader logistician longshoreman lpn machinist merchandiser millwright mover
nanny nurse optometrist overnight paralegal parttime payroll pharmacist phlebotomist phlebotomy picker pipefitter
plasterer plumber porter proofreader recruiter receptionist roofer seamstress seasonal server sommelier stagehand
stocker stylist tailor telemarketer teller tiler trainee trucker tutor underwriter upholsterer usher valet waiter
waitress warehouse warehouseman webmaster welder weekend

android angular ansible autocad aws azure bash bootstrap cobol css django docker excel firebase flutter fortran git
github golang hadoop html hubspot java javascript jenkins jira jquery json julia kafka keras kotlin kubernetes laravel
linux matlab maven mongodb mysql nginx node numpy oracle outlook pandas perl photoshop php postgres postgresql
powerpoint pytorch python quickbooks react redis ruby rust salesforce sap scala scrum selenium sharepoint spark sql
swift tableau tensorflow terraform typescript unix vmware vue windows wordpress xml

berlin london paris madrid rome vienna zurich munich hamburg cologne frankfurt stuttgart texas california florida ohio
michigan illinois pennsylvania georgia virginia carolina jersey york chicago houston dallas austin boston seattle denver
atlanta miami phoenix detroit america american british english german french spanish italian dutch polish turkish arabic
chinese japanese korean russian portuguese germany france spain italy england europe european india indian

ich wir der die das und mit bei seit von zum zur ein eine einer mein meine kein auch als aus fur uber nach jahre jahren
jahr monate erfahrung berufserfahrung kenntnisse ausbildung lebenslauf abschluss studium schule beruf berufe arbeit
zurzeit derzeit aktuell selbst gelernte gelernter leitende leitender examinierte examinierter staatlich deutsche
deutscher teamfahig zuverlassig sprachen hobbys profil ziel anschrift adresse telefon geburtsdatum geboren ledig
verheiratet arzt arztin koch kochin backer metzger friseur friseurin maler tischler schreiner dachdecker maurer
lagerist schlosser hausmeister erzieher kellner kellnerin putzhilfe reinigung verkauf einkauf vertrieb buchhaltung
lager versand pflege technik informatik wirtschaft handwerk bewerbung bundeswehr minijob teilzeit vollzeit werkstudent

je nous les des une avec pour chez depuis ans experience competences formation infirmier infirmiere ingenieur
ingenieure vendeur vendeuse cuisinier cuisiniere serveur serveuse chef assistante comptable conducteur ouvrier
ouvriere boulanger coiffeur coiffeuse menuisier plombier soignant soignante enseignant enseignante responsable

soy con para desde anos experiencia enfermero enfermera ingeniero ingeniera vendedor vendedora cocinero cocinera
camarero camarera contable conductor obrero albanil panadero carpintero fontanero electricista limpieza auxiliar
gerente encargado encargada dependiente profesor profesora maestro maestra tecnico tecnica administrativo
"""

_ENDINGS = re.compile(
    r"[^\W\d_]{4,}(?:"
    r"tion|tions|ment|ments|ness|ship|ships|ology|ological|ologist|ologists|ographer|graphy|ability|ibility|icity|"
    r"ician|icians|ineer|ineers|worker|workers|keeper|keepers|maker|makers|writer|writers|driver|drivers|builder|"
    r"tender|attendant|operator|technician|therapist|hygienist|receptionist|ization|isation|ically)|"
    r"[^\W\d_]*(?:techniker|mechaniker|mechatroniker|elektroniker|elektriker|verkaufer|pfleger|schwester|leiter|kraft|helfer|fahrer|"
    r"arbeiter|meister|fuhrer|berater|ingenieur|assistent|assistenz|entwickler|lehrer|erzieher|kaufmann|kauffrau|"
    r"kaufleute|angestellter?|fachkraft|bearbeiter|monteur|installateur|vertreter|planer|informatiker|gartner|"
    r"verwaltung|wirtschaft|ungen|keiten?|heiten|schaften?|wesen|erfahrung|kenntnisse|ausbildung|bildung"
    r")(?:in|innen)?",
    re.IGNORECASE,
)


_DERIVED = re.compile(r"(?:s|ers?|ors?|ing|ings|ed|ly|less|ful|man|men|woman)\Z")
_STEM = 4


@cache
def words() -> frozenset[str]:
    """Every word that is known, as `folded` gives it. The file is read once."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    listed = (word for line in lines if not line.startswith("#") for word in line.split())
    return frozenset((*listed, *_SHORT.split(), *_WORK.split()))


def folded(word: str) -> str:
    """As words are compared: no case, no accents."""
    if word.isascii():
        return word.lower()
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c)).casefold()


def is_word(word: str) -> bool:
    """Whether a `folded` word is known, itself or by its ending: work, works, worker, working, worked."""
    known = words()
    if word in known or _ENDINGS.fullmatch(word):
        return True
    ending = _DERIVED.search(word)
    stem = word[: ending.start()] if ending else ""
    if len(stem) < _STEM:
        return False
    return stem in known or stem + "e" in known or (stem[-1] == stem[-2] and stem[:-1] in known)
