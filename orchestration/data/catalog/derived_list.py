"""The built-in corpora (and a graph) that are derived from others, for tasks that no package has a set for. Takes nothing; gives DERIVED to `listing`."""

from __future__ import annotations

from orchestration.data.catalog import derived, links
from orchestration.data.catalog.corpora import DATASETS, PYKEEN, WORDNET
from orchestration.data.catalog.entry import Archive, Entry

CMU = Archive(
    "npm",
    "cmu-pronouncing-dictionary@3.0.0",
    950_120,
    "ca16ac157e95277ffe1ca105a5ca2c833a15626024f15711c2a425da367b68ce",
)

DERIVED = [
    Entry(
        name="wordnet-questions",
        kind="corpus",
        description="Questions on definitions, derived from WordNet: four neighbours a context, two questions each (what a word is, which"
        " word it is), one in eight without an answer; columns question, context, answer, start, group (of a context)",
        licence="WordNet",
        archives=(WORDNET,),
        convert=derived.wordnet_questions,
        result="wordnet-questions.parquet",
        rows=21_412,
    ),
    Entry(
        name="wordnet-kinds",
        kind="corpus",
        description="Pairs of texts, derived from WordNet: the definition of a noun and what it may be a kind of, each kind as often right as"
        " wrong; columns text, pair, label (yes, no), group (of a noun)",
        licence="WordNet",
        archives=(WORDNET,),
        convert=derived.wordnet_kinds,
        result="wordnet-kinds.parquet",
        rows=85_410,
    ),
    Entry(
        name="prose-pairs",
        kind="corpus",
        description="Two sentences that follow each other a row, derived from Moby-Dick and addresses of presidents; columns text, pair,"
        " document",
        licence="CC0-1.0, PDDL-1.0",
        archives=(DATASETS,),
        convert=derived.prose_pairs,
        result="prose-pairs.parquet",
        rows=34_849,
    ),
    Entry(
        name="pronunciations",
        kind="corpus",
        description="The CMU Pronouncing Dictionary: English words, letter by letter, and their sounds (ARPAbet, without stress); columns"
        " word, letters, sounds",
        licence="ISC (the dictionary: BSD-2-Clause)",
        archives=(CMU,),
        convert=derived.pronunciations,
        result="pronunciations.parquet",
        rows=117_490,
        version=2,
    ),
    Entry(
        name="pronunciation-tokenizer",
        kind="tokenizer",
        description="Letters and ARPAbet sounds of `pronunciations`, one entry each: tokenizer.json and its configuration",
        licence="ISC (the dictionary: BSD-2-Clause)",
        archives=(CMU,),
        convert=derived.pronunciation_tokenizer,
        version=2,
    ),
    Entry(
        name="wordnet-facts",
        kind="graph",
        description="WordNet's relations between words, each pair of opposite ones once, derived from catalog:wordnet-graph; one in 20 triples is"
        " held out for validation, one for the test; columns head, relation, tail, split",
        licence="WordNet",
        archives=(WORDNET,),
        convert=links.wordnet_facts,
        result="wordnet-facts.parquet",
    ),
    Entry(
        name="wordnet-links",
        kind="corpus",
        description="Is a triple of catalog:wordnet-facts true? A false one beside each, derived; train.parquet, validation.parquet and"
        " test.parquet, columns text, label (true, false), head, relation, tail; facts.parquet, facts-validation.parquet, facts-test.parquet: the true ones",
        licence="WordNet",
        archives=(WORDNET,),
        convert=links.wordnet_links,
        version=2,
    ),
    Entry(
        name="wordnet-entities",
        kind="corpus",
        description="What kind of thing is a noun? 25 kinds, WordNet's own, derived; a third of the nouns that are of one kind alone"
        " and that no triple joins to its word; columns text, word, kind",
        licence="WordNet",
        archives=(WORDNET,),
        convert=links.wordnet_entities,
        result="wordnet-entities.parquet",
    ),
    Entry(
        name="umls-links",
        kind="corpus",
        description="Is a triple of catalog:umls true? A false one beside two of three, derived; train.parquet, validation.parquet and test.parquet in"
        " the graph's own splits, columns text, label (true, false), head, relation, tail; facts.parquet, facts-validation.parquet, facts-test.parquet: the true ones",
        licence="MIT",
        archives=(PYKEEN,),
        convert=links.umls_links,
        rows=10_828,
        version=2,
    ),
]
