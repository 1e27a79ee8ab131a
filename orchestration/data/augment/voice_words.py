"""Words that decide whether a clause turns its voice. Plain sets, read by `clause`."""

from __future__ import annotations


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


PREPOSITIONS = _set(
    """in on at with without for from to into onto near behind beside under over through during after before against
    since until throughout within around across inside outside beyond above below between among toward towards along
    about"""
)
PERSONS = _set("someone somebody everyone everybody anyone anybody")
MODALS = _set("will would can could should may might must shall")

# Adverbs that say the same beside the participle: no focus (only, even, also), no will of the subject (gladly).
BEFORE_VERB = _set(
    """often always never usually quickly slowly soon recently finally eventually frequently rarely seldom sometimes
    completely entirely totally fully partly widely strongly deeply badly greatly clearly immediately suddenly
    gradually already now still carefully accidentally thoroughly seriously severely heavily successfully regularly
    formally officially repeatedly directly once probably certainly largely highly generally commonly constantly
    continually correctly effectively rapidly quietly swiftly temporarily permanently publicly privately previously
    subsequently initially originally later ultimately vividly warmly wrongly briefly brutally beautifully"""
)
ADVERBS = _set(
    """yesterday today tomorrow tonight now here there again once twice later afterwards everywhere immediately
    quickly slowly carefully completely entirely totally thoroughly recently soon already eventually daily weekly
    regularly frequently often sometimes constantly repeatedly successfully effectively correctly badly deeply greatly
    enormously immensely seriously severely quietly suddenly gradually publicly officially directly overnight abroad
    upstairs downstairs nowadays forever beautifully brilliantly perfectly lightly gently"""
)
BEFORE_CLAUSE = _set(
    """yesterday today tomorrow tonight now then again later soon recently finally eventually however therefore
    moreover furthermore nevertheless nonetheless thus hence besides still meanwhile instead indeed also unfortunately
    fortunately luckily sadly happily surprisingly apparently obviously clearly certainly surely perhaps maybe
    probably possibly usually normally generally often sometimes occasionally previously originally initially
    ultimately actually really suddenly immediately gradually similarly likewise consequently accordingly otherwise
    additionally unquestionably undoubtedly no yes well so first second third naturally quickly basically honestly
    frankly personally overall"""
)
TIMES = _set(
    """time times second seconds minute minutes hour hours day days night nights week weeks weekend weekends month
    months year years decade decades century centuries morning mornings afternoon evening evenings noon midnight
    spring summer autumn fall winter season war period era moment past future age while"""
)
DAYS = _set(
    """monday tuesday wednesday thursday friday saturday sunday january february march april may june july august
    september october november december christmas easter thanksgiving today tomorrow yesterday"""
)
NEGATIVE = _set("no none neither few little nor hardly nobody nothing")
QUANTIFIED = _set("every each all most many both any several some half enough much more fewer less either only")

# Number that spelling does not show, or amounts whose head is another word.
UNSURE_HEADS = _set(
    """lot lots number majority minority couple group pair variety range series half part percent plenty bunch handful
    dozen kind sort type sheep fish deer species means staff crew data media rest none fifth third quarter share
    amount set list collection host score scores"""
)
PLURAL_MODIFIERS = _set(
    "sales sports arms goods savings systems operations communications economics physics news states"
)
PLURALS = _set("men women children people police mice feet teeth geese cattle oxen wives knives lives")

MEASURES = _set("percent cent cents dollars pounds feet inches miles degrees hundreds thousands millions dozens points")

# After "by" these say where, when, how or how much, not who.
NOT_AGENTS = _set(
    """means way ways method methods law hand mail car train bus plane boat ship air sea land road river side sides
    lake door window bed fire margin percent cent cents dollars pounds points feet inches miles degrees amount number
    half third quarter end beginning middle name names virtue reason nature chance accident mistake definition default
    force standard standards telephone phone letter post check card lot rule comparison contrast example deadline date
    fact act process vote votes procedure combination use factor weight volume hundreds thousands millions dozens"""
)

# Verbs that stand in fixed phrases with a bare noun: make sense, pay attention, give way.
FORMAL = _set(
    """make give pay keep hold lose play catch set show find raise draw bring drop take put break strike throw carry
    serve cast beat have do get lead move turn change share cover need know see"""
)
OF_VERBS = _set(
    "accuse rob convict convince inform remind warn suspect notify relieve clean clear cure persuade free ask rid"
)
SENSES = _set("make see hear watch help notice observe feel let have")
TO_SOMEBODY = _set(
    """give send sell offer donate award grant bring deliver present introduce translate convert transform divide
    throw compare add submit transmit transfer lend pay mail distribute surrender promise assign reveal dictate teach
    show"""
)
TWO_OBJECTS = TO_SOMEBODY | _set("buy make find cook draw build sing save spare order cause read write deny forgive")

# Conjunctions that open a clause with a subject of its own, and verbs before "that".
SUBORDINATE = _set("because when before after although though while if since until unless whenever once")
REPORTING = _set(
    """said says say think thinks thought believe believes believed know knows knew hope hopes hoped reported reports
    argued argues claimed claims announced announces found finds insisted insists noted notes added adds explained
    explains stated states declared feel feels felt learned understood understands concluded concludes assume assumes
    sure glad afraid sorry convinced"""
)
GERUND_SUBJECTS = _set(
    """part parts thing things way idea goal problem job task aim purpose point trick key challenge difficulty plan
    hope dream solution answer reason result fun mistake hobby secret option alternative step strategy focus emphasis
    highlight"""
)
FIXED_OBJECTS = _set(
    "ass butt mind way eye eyes breath sense part place bucket limit trick job case mark fun grade light point it"
)
INTERJECTIONS = _set(
    "wow oh hey lol omg yes yeah no ugh haha hahaha please thanks well rt hi ok okay btw damn dear ah ooh yay"
)

# Nouns that hold a phrase after them (an attack on the town), so that it moves with them.
ATTACHED = {
    "on": _set("attack attacks impact effect effects influence emphasis focus ban tax limit limits perspective"),
    "for": _set(
        """need reason reasons desire demand respect love case plan plans proposal search responsibility support money
        basis appetite taste concern recipe argument explanation excuse talent market funds requirements criteria call
        hope room"""
    ),
    "to": _set("access solution alternative approach threat tribute damage introduction key response sequel"),
    "in": _set(
        "interest increase change rise decline reduction cuts faith belief confidence role progress growth"
    ),
    "with": _set("problem problems relationship relations deal agreement treaty contract meeting links ties"),
    "from": _set("letter letters message excerpt help support"),
    "between": _set("relationship relations conflict war link differences contrast balance gap line border"),
    "about": _set("book books film films movie story stories questions information truth facts complaints"),
    "against": _set("case war charges fight campaign crimes protest suit action"),
}  # fmt: skip
