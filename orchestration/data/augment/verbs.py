"""Forms of English verbs, and the verbs that turn their voice safely. Takes a base form or any form; gives past,
participle and the others. Called by `voice`. Plain tables: reads nothing.

The list of transitive verbs began as the verbs with five or more passives in the Brown corpus; what is left are the
500 odd whose subject acts or causes. Left out by hand: verbs of having, measuring, wanting and saying; verbs that
often stand in fixed phrases (take part), with two objects that hide (ask him a favour), or with an object of place or
time (leave, spend)."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.data.augment.inflect import inflect

_IRREGULAR_TABLE = """arise arose arisen, awake awoke awoken, bear bore borne, beat beat beaten, become became become,
befall befell befallen, begin began begun, beset beset beset, bend bent bent, bet bet bet, bid bid bid, bind bound
bound, bite bit bitten, bleed bled bled, blow blew blown, break broke broken, breed bred bred, bring brought brought,
broadcast broadcast broadcast, build built built, burst burst burst, buy bought bought, cast cast cast, catch caught
caught, choose chose chosen, cling clung clung, come came come, cost cost cost, creep crept crept, cut cut cut, deal
dealt dealt, dig dug dug, do did done, draw drew drawn, drink drank drunk, drive drove driven, eat ate eaten, fall
fell fallen, feed fed fed, feel felt felt, fight fought fought, find found found, flee fled fled, fling flung flung,
fly flew flown, forbid forbade forbidden, forecast forecast forecast, foresee foresaw foreseen, forget forgot
forgotten, forgive forgave forgiven, forgo forwent forgone, forsake forsook forsaken, freeze froze frozen, get got
got, give gave given, go went gone, grind ground ground, grow grew grown, hang hung hung, have had had, hear heard
heard, hide hid hidden, hit hit hit, hold held held, hurt hurt hurt, keep kept kept, kneel knelt knelt, know knew
known, lay laid laid, lead led led, leave left left, lend lent lent, let let let, lie lay lain, lose lost lost, make
made made, mean meant meant, meet met met, mislead misled misled, mistake mistook mistaken, misunderstand
misunderstood misunderstood, outdo outdid outdone, outgrow outgrew outgrown, overcome overcame overcome, overdo
overdid overdone, overhear overheard overheard, override overrode overridden, overrun overran overrun, oversee oversaw
overseen, overtake overtook overtaken, overthrow overthrew overthrown, pay paid paid, put put put, quit quit quit,
read read read, rebuild rebuilt rebuilt, redo redid redone, remake remade remade, rend rent rent, repay repaid repaid,
rethink rethought rethought, rewrite rewrote rewritten, rid rid rid, ride rode ridden, ring rang rung, rise rose
risen, run ran run, say said said, see saw seen, seek sought sought, sell sold sold, send sent sent, set set set,
shake shook shaken, shed shed shed, shine shone shone, shoot shot shot, show showed shown, shrink shrank shrunk, shut
shut shut, sing sang sung, sink sank sunk, sit sat sat, slay slew slain, sleep slept slept, slide slid slid, sling
slung slung, slit slit slit, speak spoke spoken, spend spent spent, spin spun spun, spit spat spat, split split split,
spread spread spread, spring sprang sprung, stand stood stood, steal stole stolen, stick stuck stuck, sting stung
stung, stink stank stunk, strike struck struck, string strung strung, strive strove striven, swear swore sworn, sweep
swept swept, swim swam swum, swing swung swung, take took taken, teach taught taught, tear tore torn, tell told told,
think thought thought, throw threw thrown, thrust thrust thrust, tread trod trodden, undergo underwent undergone,
understand understood understood, undertake undertook undertaken, undo undid undone, uphold upheld upheld, upset upset
upset, wake woke woken, wear wore worn, weave wove woven, weep wept wept, win won won, wind wound wound, withdraw
withdrew withdrawn, withhold withheld withheld, withstand withstood withstood, wring wrung wrung, write wrote written
"""
_DOUBLED = """abet acquit admit allot commit compel concur confer control defer deter equip excel expel forbid forget
fulfil infer kidnap occur omit patrol permit prefer propel rebut recur refer regret repel submit transfer transmit
upset beset worship"""

# Both ways: the object becomes a natural subject.
_TRANSITIVE = """abandon abolish absorb accelerate accept accompany accomplish accuse achieve acknowledge acquire
activate adapt address administer admire admit adopt adore advance advertise advise affect aid alarm alter amaze amend
amuse analyse analyze announce annoy answer anticipate applaud appoint appreciate approach approve arouse arrange
arrest assassinate assault assemble assert assess assist attack attain attract audit authorize avenge avoid award back
ban beat believe bind bite blame bless block bomb boost bore borrow bother breach break bring broadcast broaden build
burn bury buy calculate calm cancel captivate capture carry carve cast catch cause celebrate censor chair challenge
change charge charm chase check cherish choose cite claim clarify classify clean clear close coach coin collect color
comfort command commission commit compare compensate compile complete complicate compose conceal concede conceive
condemn conduct confirm confront confuse conquer consider construct consult consume contact contaminate contemplate
contest contradict control convert convict convince cook copy correct counter cover crack craft crash create cripple
criticise criticize crown crush curb cure cut damage dazzle debate deceive declare decorate defeat defend define delay
delete delight deliver demand demolish demonstrate denounce deny deplore deposit describe design destroy detect
determine devalue devastate develop devise devour diagnose dictate diminish direct disappoint discover discuss disgust
dismiss display dispute dissolve distract distribute disturb divide dominate donate download draft drag draw drink
drive drop ease eat echo edit educate elect elevate elicit eliminate embarrass embody embrace emphasize employ enact
enchant encourage endanger endorse energize enforce engage enhance enjoy enrich entertain erase erect escort establish
estimate evaluate evoke exaggerate examine exceed execute exhibit expand expect explain explode exploit explore expose
express extend extinguish fascinate favor favour feed fight file fill film finance find finish fire fix fool forbid
force forget forgive formulate found free freeze frighten frustrate fulfil fulfill fund furnish generate give glorify
govern grab grant grasp greet guarantee guard guide halt halve handle hang harm hate haunt heal hear heat help hide
highlight hire hit honor honour host hug hunt hurt identify ignore illuminate illustrate imitate implement impose
impress improve incorporate increase infect influence inform infuriate inherit initiate injure inspect inspire install
instruct insult interpret interrupt interview introduce invade invent investigate invite invoke irritate isolate issue
jeopardize judge justify kick kidnap kill kiss knock know label launch lead liberate lift like limit list load locate
lock lose love lower mail maintain make manage manipulate manufacture mark master match measure mention merge
mesmerize misunderstand mobilize mock modify monitor motivate mount move murder nail name narrate navigate neglect
negotiate nominate notice notify nurture obey observe obtain occupy offend offer omit open operate oppose orchestrate
order organise organize outrage overcome overhear oversee overtake overthrow overwhelm own package paint pardon pass
patch pay perceive perform permit persuade photograph pick pioneer plan plant play please plunder poison pollute
ponder portray postpone praise preach preclude predict preoccupy prepare prescribe present preserve prevent print
process proclaim produce profile prohibit promise promote propose prosecute protect prove provide provoke publish pull
punch punish purchase pursue push puzzle question quote raise ransack rate ratify read reaffirm rebuild rebuke recall
receive reclaim recognise recognize recommend record recover recruit recycle redefine reduce refuse regard regulate
reignite reinforce reinvent reject rekindle release relieve relish remake remember remind remove renew renounce reopen
repair repeat replace report reprimand reproduce rescind rescue research resist resolve respect restore restrain
restrict resurrect retain retrieve return reveal review revise revive reward rewrite ridicule rob ruin rule sabotage
sack salvage satisfy save scan scare scatter schedule scold scrap secure see seize select sell send sentence separate
serve settle shake shape share shatter shed shield shock shoot shorten show sign silence sing sink slam slay smash
soften solve spark spoil sponsor spread squander stage stain steal stimulate stir stop store strengthen strike study
stun subdue submit summarize supervise supply support suppress surpass surprise surrender suspect suspend sustain
swallow sweep tackle taint tame target taste teach tear tease tempt terminate terrify test thank threaten throw topple
torture toss touch trace track train transfer transform translate transmit transport trap trash treat trick trouble
trust underline undermine understand undertake undo unite unleash unveil update uphold upset urge use usher utilize
validate verify veto violate visit wake warn wash waste watch weaken wear welcome widen win withdraw witness worship
wound wreck write yield"""

# Only from passive to active: the passive is natural, the active's object would not always become a natural subject.
_PASSIVE_ONLY = """afflict aggravate allow beset besiege deter engulf enthrall exasperate follow hamper hinder hold
illuminate impair infest inhabit intrigue join keep leave lure move multiply nauseate plague populate possess power
precede prompt punctuate put ravage represent set sicken surround sway take tell trigger unsettle want"""

TRANSITIVE = frozenset(_TRANSITIVE.split())
PASSIVE_ONLY = frozenset(_PASSIVE_ONLY.split()) - TRANSITIVE

_IRREGULAR = {
    base: (past, participle)
    for base, past, participle in (row.split() for row in _IRREGULAR_TABLE.replace("\n", " ").strip().split(","))
}


@dataclass(frozen=True)
class Verb:
    base: str
    third: str  # writes
    past: str
    participle: str
    gerund: str  # writing


def conjugate(base: str) -> Verb:
    """All forms of a verb of the tables, regular or not."""
    past, participle = _IRREGULAR.get(base) or (_regular(base, "ed"),) * 2
    third = base + "es" if base.endswith("do") else inflect(base, "s") or base + "s"
    return Verb(base, third, past, participle, _regular(base, "ing"))


def _regular(base: str, ending: str) -> str:
    if base in _DOUBLED.split():
        return base + base[-1] + ending
    return inflect(base, ending) or base + ending


VERBS = {base: conjugate(base) for base in sorted(TRANSITIVE | PASSIVE_ONLY)}
BY_THIRD = {verb.third: verb for verb in VERBS.values()}
BY_PAST = {verb.past: verb for verb in VERBS.values()}
BY_PARTICIPLE = {verb.participle: verb for verb in VERBS.values()}
BY_GERUND = {verb.gerund: verb for verb in VERBS.values()}
