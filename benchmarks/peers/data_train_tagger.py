"""`python data_train_tagger.py BROWN.parquet FOLDER`: nltk's own averaged perceptron tagger, trained by nltk itself on every eighth
document of the Brown corpus, its tags renamed to those of the Penn treebank, which nlpaug asks for. Runs in the peers' environment."""

from __future__ import annotations

import re
import sys

import pyarrow.parquet as pq
from nltk.tag.perceptron import PerceptronTagger

EVERY = 8  # documents: 145,000 words, a minute of training; a tag costs the same time with more
ROUNDS = 5  # nltk's own
PENN = {
    **dict.fromkeys(("AT", "DTI", "DTS", "DTX"), "DT"),
    **dict.fromkeys(("BE", "HV", "DO"), "VB"),
    **dict.fromkeys(("BED", "BEDZ", "HVD", "DOD"), "VBD"),
    **dict.fromkeys(("BEG", "HVG"), "VBG"),
    **dict.fromkeys(("BEN", "HVN"), "VBN"),
    **dict.fromkeys(("BEM", "BER"), "VBP"),
    **dict.fromkeys(("BEZ", "HVZ", "DOZ"), "VBZ"),
    **dict.fromkeys(("PPS", "PPSS", "PPO", "PPL", "PPLS"), "PRP"),
    **dict.fromkeys(("WPS", "WPO"), "WP"),
    **dict.fromkeys(("ABN", "ABX", "ABL"), "PDT"),
    **dict.fromkeys(("QL", "RN", "*"), "RB"),
    **dict.fromkeys(("NR", "PN"), "NN"),
    **dict.fromkeys(("OD", "AP"), "JJ"),
    "NP": "NNP",
    "NPS": "NNPS",
    "JJT": "JJS",
    "RBT": "RBS",
    "CS": "IN",
    "WQL": "WRB",
}


def penn(tag: str) -> str:
    """np-tl -> NNP; of a joined tag (ppss+bem) the first."""
    first = re.split("[-+]", tag.upper())[0] or tag
    bare = first.rstrip("*$") or first[0]
    return PENN.get(bare, bare)


def main(brown: str, folder: str) -> None:
    table = pq.read_table(brown, columns=["text", "tags", "document"])
    texts, tags, names = (table.column(name).to_pylist() for name in table.column_names)
    chosen = set(sorted(set(names))[::EVERY])
    sentences = [
        [(word, penn(tag)) for word, tag in zip(text.split(), row.split(), strict=True)]
        for text, row, name in zip(texts, tags, names, strict=True)
        if name in chosen
    ]
    tagger = PerceptronTagger(load=False)
    tagger.train(sentences, nr_iter=ROUNDS)
    tagger.save_to_json("eng", folder)


if __name__ == "__main__":
    main(*sys.argv[1:3])
