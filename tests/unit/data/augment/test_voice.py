"""Active to passive and back: hand-checked pairs, sentences that must stay, and what the op promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from orchestration.data import catalog, rng
from orchestration.data.augment import voice
from orchestration.data.augment.verbs import VERBS, conjugate
from orchestration.data.config import VoiceConfig

# active, passive: each is turned into the other
PAIRS = """
The committee wrote the report. | The report was written by the committee.
The committee has written the report. | The report has been written by the committee.
The committee had written the report. | The report had been written by the committee.
The committee will write the report. | The report will be written by the committee.
The committee would have written the report. | The report would have been written by the committee.
The teacher is reading the letters. | The letters are being read by the teacher.
The teachers were reading the letter. | The letter was being read by the teachers.
The teacher reads the letters. | The letters are read by the teacher.
The teachers praise the letter. | The letter is praised by the teachers.
The critics praised the film. | The film was praised by the critics.
The critics have praised the films. | The films have been praised by the critics.
Critics praise this film. | This film is praised by critics.
American critics hated the film. | The film was hated by American critics.
He broke the window. | The window was broken by him.
She sees him. | He is seen by her.
They arrested us. | We were arrested by them.
We admire them. | They are admired by us.
I love this movie. | This movie is loved by me.
You surprised me. | I was surprised by you.
He has invited me. | I have been invited by him.
They are watching me. | I am being watched by them.
She does not know the answer. | The answer is not known by her.
She did not know the answers. | The answers were not known by her.
She didn't solve the problem. | The problem wasn't solved by her.
They don't sell these cars. | These cars aren't sold by them.
She won't forgive him. | He won't be forgiven by her.
He can't open the door. | The door can't be opened by him.
The men have not repaired the bridge. | The bridge has not been repaired by the men.
The boys hadn't cleaned the room. | The room hadn't been cleaned by the boys.
The police are not watching the house. | The house is not being watched by the police.
The workers must repair the bridge. | The bridge must be repaired by the workers.
The thief could have stolen the money. | The money could have been stolen by the thief.
Rivers may have shaped this valley. | This valley may have been shaped by rivers.
The judge should not have released the prisoner. | The prisoner should not have been released by the judge.
The old man often reads the newspaper. | The newspaper is often read by the old man.
The army completely destroyed the village. | The village was completely destroyed by the army.
He never forgot the promise. | The promise was never forgotten by him.
The company has recently bought the factory. | The factory has recently been bought by the company.
The police arrested the man last night. | The man was arrested by the police last night.
He finished the work yesterday. | The work was finished by him yesterday.
The architect built the house in 1990. | The house was built by the architect in 1990.
A storm sank the ship two years ago. | The ship was sunk by a storm two years ago.
In 1990, he wrote the book. | In 1990, the book was written by him.
However, the voters rejected the plan. | However, the plan was rejected by the voters.
But the jury believed the witness. | But the witness was believed by the jury.
Mary helped him in London. | He was helped by Mary in London.
The company sold the house to her. | The house was sold by the company to her.
The author of the book visited the school. | The school was visited by the author of the book.
The students and the teachers cleaned the room. | The room was cleaned by the students and the teachers.
John and Mary bought the house. | The house was bought by John and Mary.
The dog bit the boy and the girl. | The boy and the girl were bitten by the dog.
Tom's brother drives the truck. | The truck is driven by Tom's brother.
A very funny and clever script saves the movie. | The movie is saved by a very funny and clever script.
The big, heavy box crushed the flowers. | The flowers were crushed by the big, heavy box.
Someone stole my car. | My car was stolen by someone.
Everyone knows the song. | The song is known by everyone.
The women chose the colors. | The colors were chosen by the women.
The cat chased the mice. | The mice were chased by the cat.
Mr. Smith taught the class. | The class was taught by Mr. Smith.
The New York Times published the story. | The story was published by the New York Times.
He believes that the committee rejected the plan. | He believes that the plan was rejected by the committee.
When the rain stopped, the children opened the door. | When the rain stopped, the door was opened by the children.
The critics praised the film because it was honest. | The film was praised by the critics because it was honest.
The team lost the game, but the fans were happy. | The game was lost by the team, but the fans were happy.
the script saves the film . | the film is saved by the script .
The lawyers submitted the material to the court. | The material was submitted by the lawyers to the court.
The noise frightened the horses! | The horses were frightened by the noise!
"""

# One way only: the way back would give another wording.
ONE_WAY = """
I'll finish the work tomorrow. | The work will be finished by me tomorrow.
The man in the car chased the thief. | The thief was chased by the man in the car.
They've sold the car. | The car has been sold by them.
I was impressed by the acting. | The acting impressed me.
He was killed by his wife. | His wife killed him.
The room was quickly cleaned by the maid. | The maid quickly cleaned the room.
He was seen in the park by two boys. | Two boys saw him in the park.
The man was accused of murder by the police. | The police accused the man of murder.
The house in London was bought by the actor. | The actor bought the house in London.
He was joined by his friends. | His friends joined him.
The speech was followed by a long silence. | A long silence followed the speech.
I am not convinced by the plot. | The plot does not convince me.
"""

STAY = """
Did he write the letter?
Who wrote the letter?
Read the book.
Please close the door.
The film is good.
He became a doctor.
She has a car.
The film lacks a plot.
The ticket cost ten dollars.
She resembles her mother.
The coat fits him.
The box weighs ten pounds.
He wants a new car.
The book contains ten stories.
He hurt himself.
They saw each other.
They helped one another.
He lost his wallet.
She raised her hand.
The dog wagged its tail.
He gave Mary a book.
She told him a story.
It gave her courage.
It gave Mary courage.
They elected him president.
The news made him happy.
The wind made the boat turn.
He picked up the book.
He looked at the house.
She put on the coat.
They called off the meeting.
He wrote and sold the book.
He wrote the book and sold it.
The man who wrote the book left.
He read the book that she wrote.
He saw the man with the telescope.
He bought the house on the hill.
He asked her to write the letter.
I heard him open the door.
She enjoyed reading the book.
The letter was written.
The house was sold last year.
The house stands by the river.
The letter was written by hand.
The letter was sent by mail.
The work was finished by noon.
The book was written by 1990.
The price was reduced by ten percent.
He was seen by the river.
The problem was solved by reading the manual.
She made sense.
He paid attention.
They walked two miles.
He read all day.
They worked every night.
He took part in the game.
No critic praised the film.
Nobody saw the thief.
He did not read many books.
Every critic praised a film.
He only reads novels.
Only he can save the film.
There were many critics.
It is the best film of the year.
He said, "The critics praised the film."
They saw it before I did.
Spherical surfaces support the plate when pressures rise and prevent damage.
They accused the man of theft.
A couple named Harris bought food and left.
He supported Cleveland three times and Bryan twice.
I can see us.
The hard part is reading the book.
All evening Ann sang.
Alone, he opened the door.
He makes an ideal host.
The passers-by imitated and mocked him.
He has to write the letter.
He used to write letters.
Had he written the letter, she would know.
He's written the letter.
The letter got written by him.
HE WROTE THE LETTER.
wow
He slammed the book on the table.
It rains.
We made progress and achieved success.
We performed a Gilbert and Sullivan opera.
The flights exceed two thousand miles.
"""


def rows(table: str) -> list[str]:
    return [line for line in table.strip().split("\n") if line]


def pairs(table: str) -> list[tuple[str, str]]:
    return [(left.strip(), right.strip()) for left, right in (line.split(" | ") for line in rows(table))]


@pytest.fixture(scope="module")
def tagger() -> Path:
    return catalog.local("catalog:english-tagger")


@pytest.fixture(scope="module")
def turn(tagger: Path) -> Callable[[str], str]:
    op = voice.build(VoiceConfig(), tagger)
    return lambda text: op(text, 7)


def op(tagger: Path, *, rate: float = 1.0, to: Literal["passive", "active", "either"] = "either") -> voice.Op:
    return voice.build(VoiceConfig(rate=rate, to=to), tagger)


def test_active_sentences_become_passive(turn: Callable[[str], str]) -> None:
    assert [turn(active) for active, _ in pairs(PAIRS)] == [passive for _, passive in pairs(PAIRS)]


def test_passive_sentences_become_active(turn: Callable[[str], str]) -> None:
    assert [turn(passive) for _, passive in pairs(PAIRS)] == [active for active, _ in pairs(PAIRS)]


def test_some_turn_one_way(turn: Callable[[str], str]) -> None:
    assert [turn(before) for before, _ in pairs(ONE_WAY)] == [after for _, after in pairs(ONE_WAY)]


def test_what_is_not_sure_stays_byte_for_byte(turn: Callable[[str], str]) -> None:
    assert [turn(sentence) for sentence in rows(STAY)] == rows(STAY)


def test_the_tables_are_long_enough_to_mean_something() -> None:
    assert len(pairs(PAIRS)) >= 60
    assert len(rows(STAY)) >= 60


def test_only_the_wanted_direction_is_taken(tagger: Path) -> None:
    text = "The critics praised the film. The plan was rejected by the voters."
    assert op(tagger, to="passive")(text, 1) == (
        "The film was praised by the critics. The plan was rejected by the voters."
    )
    assert op(tagger, to="active")(text, 1) == "The critics praised the film. The voters rejected the plan."


def test_the_rest_of_a_text_keeps_its_bytes(turn: Callable[[str], str]) -> None:
    before = "  What a day…\n\n\tHe broke the window.  Dr. Smith (who saw it) left!\r\nWhy?  "
    assert turn(before) == before.replace("He broke the window.", "The window was broken by him.")
    assert turn("") == ""
    assert turn("他打破了窗户。 \x00 émigré") == "他打破了窗户。 \x00 émigré"


def test_abbreviations_do_not_end_a_sentence() -> None:
    text = "Mr. J. Smith met Dr. Brown at 5 p.m. sharp. He left. U.S. troops left"
    assert [text[start:end] for start, end in voice.sentences(text)] == [
        "Mr. J. Smith met Dr. Brown at 5 p.m. sharp.",
        "He left.",
        "U.S. troops left",
    ]


def test_the_rate_is_kept_and_the_key_decides_alone(tagger: Path) -> None:
    half, text = op(tagger, rate=0.5), "The critics praised the film. He broke the window."
    keys = [rng.key("row", number) for number in range(200)]
    found = [half(text, key) for key in keys]
    changed = sum(("was praised" in text) + ("was broken" in text) for text in found)
    assert 160 <= changed <= 240
    assert [half(text, key) for key in reversed(keys)] == found[::-1]


def test_regular_and_irregular_forms_are_right() -> None:
    forms = {base: (verb.third, verb.past, verb.participle, verb.gerund) for base, verb in VERBS.items()}
    assert forms["write"] == ("writes", "wrote", "written", "writing")
    assert forms["carry"] == ("carries", "carried", "carried", "carrying")
    assert forms["admit"] == ("admits", "admitted", "admitted", "admitting")
    assert forms["undo"] == ("undoes", "undid", "undone", "undoing")
    assert forms["visit"] == ("visits", "visited", "visited", "visiting")
    assert conjugate("lie").past == "lay"
