"""What a pipeline asks its endpoint at the end, by task."""

from __future__ import annotations

from jobs.ask import SHOWN_WORDS, begun, hidden, line


def test_one_word_is_hidden_behind_the_tokenizer_s_mask() -> None:
    assert hidden("It was a (wonderful) film!", "<mask>") == ("It was a (<mask>) film!", "wonderful")
    assert hidden("a b", "<mask>") is None
    assert hidden("there is a <mask> already", "<mask>") is None
    text, word = hidden("word " * 200, "[MASK]") or ("", "")
    assert (text.count("[MASK]"), len(text.split()), word) == (1, SHOWN_WORDS, "word")


def test_a_prompt_is_the_beginning_and_what_followed_is_kept() -> None:
    assert begun("one two three four five") == ("one two", "three four")
    assert begun("alone") is None


def test_each_task_has_a_line_for_people() -> None:
    asked = {"text": "A fine film", "wanted": 0.5}
    assert "(people: 0.500)" in line("regression", {**asked, "value": 0.25})
    masks = {"masks": [[{"token": "fine", "probability": 0.4}]]}
    assert line("masked_lm", {**asked, **masks, "wanted": "fine"}).startswith("fine 0.40 (hidden: fine)")
    assert line("causal_lm", {**asked, "sequences": [{"text": " of ours"}]}) == "'A fine film' -> ' of ours'"
    words = {"words": [{"word": "A", "tag": "DET"}, {"word": "film", "tag": "NOUN"}]}
    assert line("tagging", {**asked, **words}) == "A/DET film/NOUN"
    scored = {"label": "good", "scores": {"good": 0.9}, "wanted": "good"}
    assert line("classification", {**asked, **scored}) == "     good 0.90 (people: good)  'A fine film'"
