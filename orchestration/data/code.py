"""Language and licence of source files. Takes a file's name, its first line or a text; gives a language, an SPDX name, and why a
file must go. Called by the reader of code trees and by `sources` for its filters. Knows nothing of rows; reads no file.

A licence is found by its SPDX tag (spdx.org/licenses), else by phrases that its text or the usual header has and no other
licence does. Where several licences are found the first in the text counts: that is a file's own, what follows is quoted
or bundled. What cannot be told apart ("BSD license", no clauses) is unknown rather than guessed."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from orchestration.data.config import CodeConfig

HEADER = 4_000  # characters of a source file in which its licence is looked for; below it licences are data or quotes
_LONGEST = 20_000  # characters of a licence file: what is bundled with it comes behind

_BY_ENDING = {
    "ada": "adb ads",
    "assembly": "asm s",
    "bash": "sh bash zsh ksh",
    "batch": "bat cmd",
    "c": "c h",
    "c#": "cs",
    "c++": "cc cpp cxx c++ hh hpp hxx ipp",
    "clojure": "clj cljs cljc",
    "cmake": "cmake",
    "cobol": "cob cbl",
    "css": "css",
    "cuda": "cu cuh",
    "cython": "pyx pxd",
    "d": "d",
    "dart": "dart",
    "elixir": "ex exs",
    "elm": "elm",
    "erlang": "erl hrl",
    "f#": "fs fsi fsx",
    "fortran": "f for f77 f90 f95 f03 f08",
    "go": "go",
    "graphql": "graphql gql",
    "groovy": "groovy gradle",
    "haskell": "hs lhs",
    "html": "html htm xhtml",
    "java": "java",
    "javascript": "js mjs cjs jsx",
    "json": "json",
    "julia": "jl",
    "kotlin": "kt kts",
    "less": "less",
    "lisp": "lisp lsp el cl",
    "lua": "lua",
    "makefile": "mk mak",
    "markdown": "md markdown",
    "matlab": "m",
    "nim": "nim",
    "objective-c++": "mm",
    "ocaml": "ml mli",
    "pascal": "pas pp",
    "perl": "pl pm",
    "php": "php",
    "powershell": "ps1 psm1 psd1",
    "prolog": "pro",
    "protobuf": "proto",
    "python": "py pyi pyw",
    "r": "r",
    "racket": "rkt",
    "restructuredtext": "rst",
    "ruby": "rb rake gemspec",
    "rust": "rs",
    "scala": "scala sc",
    "scheme": "scm ss",
    "scss": "scss sass",
    "solidity": "sol",
    "sql": "sql",
    "swift": "swift",
    "systemverilog": "sv svh",
    "tcl": "tcl",
    "terraform": "tf",
    "tex": "tex sty cls",
    "toml": "toml",
    "typescript": "ts tsx mts cts",
    "verilog": "v vh",
    "vhdl": "vhd vhdl",
    "vim": "vim",
    "vue": "vue",
    "xml": "xml xsd xsl xslt",
    "yaml": "yaml yml",
    "zig": "zig",
}
ENDINGS = {f".{ending}": language for language, endings in _BY_ENDING.items() for ending in endings.split()}
NAMES = {
    "makefile": "makefile",
    "gnumakefile": "makefile",
    "cmakelists.txt": "cmake",
    "dockerfile": "dockerfile",
    "containerfile": "dockerfile",
    "rakefile": "ruby",
    "gemfile": "ruby",
    "sconstruct": "python",
    "sconscript": "python",
    "build.bazel": "starlark",
    "jenkinsfile": "groovy",
    ".bashrc": "bash",
    ".vimrc": "vim",
}
_INTERPRETERS = {"sh": "bash", "dash": "bash", "zsh": "bash", "ksh": "bash", "node": "javascript", "deno": "typescript"}
_INTERPRETERS |= {
    "rscript": "r",
    "tclsh": "tcl",
    "wish": "tcl",
    "escript": "erlang",
    "pwsh": "powershell",
    "make": "makefile",
}
_INTERPRETERS |= {name: name for name in ("bash", "python", "perl", "ruby", "php", "lua", "julia", "groovy", "racket")}
_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+(?:-\S+\s+|\w+=\S*\s+)*(?:\S*/)?)?([A-Za-z]+)")


def known() -> list[str]:
    """The languages there are."""
    return sorted({*ENDINGS.values(), *NAMES.values(), *_INTERPRETERS.values()})


def language_of(rel: str, head: str = "") -> str | None:
    """By the file's name, else by the interpreter its first line names (`#!/usr/bin/env python3`). None: unknown."""
    name = PurePosixPath(rel).name.lower()
    if found := NAMES.get(name) or ENDINGS.get(PurePosixPath(name).suffix):
        return found
    shebang = _SHEBANG.match(head)
    return _INTERPRETERS.get(shebang[1].lower()) if shebang else None


def refusal(language: str | None, licence: str | None, config: CodeConfig) -> str | None:
    """Why a file is dropped, the same words for all files of one rule; None where it stays."""
    if language is None:
        return "of no known language"
    if config.languages is not None and language not in config.languages:
        return f"not in data.clean.code.languages=[{', '.join(config.languages)}]"
    if licence is None:
        return (
            "without a known licence (data.clean.code.unknown_licence=drop)"
            if config.unknown_licence == "drop"
            else None
        )
    if config.licences is not None and not permits(licence, config.licences):
        return f"not in data.clean.code.licences=[{', '.join(config.licences)}]"
    return None


# ------------------------------------------------------------------------------------------------ licences

_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([A-Za-z0-9.+()\- \t]+?)[ \t]*(?:\*/|-->|\*\)|$)", re.MULTILINE)
_DEPRECATED = re.compile(r"\b((?:A|L)?GPL-\d\.\d)(\+|-only|-or-later)?(?![\w.])")

_GRANT_MIT = (
    r"permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated"
)
_GRANT_ISC = r"permission to use, copy, modify, and(?:/or)? distribute this software for any purpose with or without fee is hereby"
_UNDER = r"(?:licensed|released|distributed|available|provided|covered|published|licen[cs]e ?:) *(?:under|by)? *(?:the )?(?:terms of )?(?:the )?"
_VERSION = r"[^.;]{0,90}?\bv(?:ersion)?\.? ?"

# (SPDX name, phrase): the one that matches first in the text names the licence; at the same place the first listed.
_PHRASES = [
    ("AGPL-3.0", r"gnu affero general public license"),
    ("LGPL", r"gnu (?:lesser|library) (?:general public license|gpl)"),
    ("GPL", r"gnu general public license|gnu gpl\b"),
    ("MPL-2.0", r"mozilla public license,? v(?:ersion|\.)? ?2\.0|mozilla\.org/mpl/2\.0"),
    ("MPL-1.1", r"mozilla public license,? v(?:ersion|\.)? ?1\.1"),
    ("Apache-2.0", r"apache license,? v(?:ersion|\.)? ?2(?:\.0)?\b|apache\.org/licenses/license-2\.0"),
    ("PSF-2.0", r"python software foundation license version 2|licensed to psf under a contributor agreement"),
    ("PSF-2.0", rf"{_UNDER}(?:psf|python software foundation) licen[cs]e"),
    ("Unlicense", r"free and unencumbered software released into the public domain|{_UNDER}unlicense"),
    ("CC0-1.0", r"\bcc0 1\.0|creativecommons\.org/publicdomain/zero/1\.0|creative commons zero"),
    ("CC-BY-SA-4.0", r"attribution-sharealike 4\.0|creativecommons\.org/licenses/by-sa/4\.0|\bcc-by-sa-4\.0"),
    (
        "CC-BY-4.0",
        r"creative commons attribution 4\.0|creativecommons\.org/licenses/by/4\.0|\bcc-by-4\.0|^attribution 4\.0 international",
    ),
    ("BSL-1.0", r"boost software license ?-? ?,?version 1\.0"),
    ("EPL-2.0", r"eclipse public license ?-? ?,?v(?:ersion|\.)? ?2\.0"),
    ("WTFPL", r"do what the fuck you want to public license"),
    ("Zlib", r"altered source versions must be plainly marked as such"),
    ("BSD", r"redistribution and use in source and binary forms|redistributions of source code must retain"),
    ("MIT", _GRANT_MIT),
    ("MIT", rf"{_UNDER}mit\b(?:[ /-]licen[cs]e)?|^(?:the )?mit licen[cs]e\b"),
    ("ISC", _GRANT_ISC),
    ("ISC", rf"{_UNDER}isc\b|^(?:the )?isc licen[cs]e\b"),
    ("HPND", r"permission to use, copy, modify,? and distribute this software and its documentation for any purpose"),
    ("BSD-3-Clause", rf"{_UNDER}(?:\"?new\"? |modified |3-clause |three-clause )bsd\b|bsd[ -]3-clause|3-clause bsd"),
    ("BSD-2-Clause", rf"{_UNDER}(?:simplified |2-clause |two-clause )bsd\b|bsd[ -]2-clause|2-clause bsd"),
    ("Apache-2.0", rf"{_UNDER}apache[ -]2\.0"),
]
_PATTERNS = [(name, re.compile(phrase)) for name, phrase in _PHRASES]
_SIGNS = (
    "licen",
    "permission",
    "redistribut",
    "public domain",
    "creative",
    "altered source",
    "gnu gpl",
    "bsd",
    "cc0",
    "cc-by",
)
_COMMENT = re.compile(
    r"^[ \t]*(?:[#*;%]+|//+|/\*+|--|<!--|\"\"\"|dnl\b|rem\b)[!/*]*|\*+/[ \t]*$|-->[ \t]*$", re.MULTILINE | re.IGNORECASE
)


def licence_of(text: str) -> str | None:
    """SPDX name or expression, of a licence file's text or of a source file's first HEADER characters. None: unknown."""
    text = text[:_LONGEST]
    if tag := _TAG.search(text):
        return _current(" ".join(tag[1].split()))
    plain = text.lower()
    if not any(sign in plain for sign in _SIGNS):
        return None  # most source files; the phrases would take 40 times as long
    plain = " ".join(_COMMENT.sub(" ", plain).replace("“", '"').replace("”", '"').split())
    found = [(match.start(), name) for name, pattern in _PATTERNS if (match := pattern.search(plain))]
    if not found:
        return None
    start, name = min(found, key=lambda place: place[0])  # the first listed of several
    return _exact(name, plain[start:])


def _exact(name: str, after: str) -> str | None:
    """The version or variant, from what follows the phrase."""
    if name in ("GPL", "LGPL", "AGPL-3.0"):
        return _gnu(name.removesuffix("-3.0"), after)
    if name == "BSD":
        if "advertising materials mentioning features" in after[:3_000]:
            return "BSD-4-Clause"
        return "BSD-3-Clause" if re.search(r"endorse or promote products", after[:2_500]) else "BSD-2-Clause"
    if name == "MIT" and after.startswith("permission"):
        return "MIT" if "permission notice shall be included" in after[:1_500] else "MIT-0"
    if name == "ISC" and after.startswith("permission"):
        return "ISC" if "provided that the above copyright" in after[:400] else "0BSD"
    return name


def _gnu(name: str, after: str) -> str | None:
    """`-or-later` where the header says so. A licence's own text says what a program may choose, so it means the version
    alone; so does a header that names one."""
    version = re.search(r"\bv(?:ersion)?\.? ?([123](?:\.\d)?)\b|\b[al]?gpl-?v?([123](?:\.\d)?)", after[:300])
    if version is None:
        return None
    number = version[1] or version[2]
    number = number if "." in number else f"{number}.0"
    is_text = re.match(r"gnu [a-z ]*public license v(?:ersion)? ?[\d.]+, \d+ (?:june|february|november|july)", after)
    later = not is_text and re.search(r"any later version|or later|or newer|or greater|\dplus|\d\+", after[:400])
    return f"{name}-{number}-{'or-later' if later else 'only'}"


def _current(expression: str) -> str:
    """GPL-2.0 and GPL-2.0+ were renamed in SPDX 3.0."""
    later = {None: "-only", "+": "-or-later"}
    return _DEPRECATED.sub(lambda found: found[1] + later.get(found[2], found[2] or ""), expression)


def permits(expression: str, licences: list[str]) -> bool:
    """Whether a file may be used under one of `licences`: any side of OR, every side of AND; an exception (WITH) only adds
    permissions. `GPL-2.0` in the list stands for GPL-2.0-only, `GPL-2.0+` for GPL-2.0-or-later."""
    allowed = {_current(name).lower() for name in licences}
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))
    return _any(tokens, allowed)


def _any(tokens: list[str], allowed: set[str]) -> bool:
    found = _all(tokens, allowed)
    while tokens and tokens[0].upper() == "OR":
        tokens.pop(0)
        found = _all(tokens, allowed) or found
    return found


def _all(tokens: list[str], allowed: set[str]) -> bool:
    found = _one(tokens, allowed)
    while tokens and tokens[0].upper() == "AND":
        tokens.pop(0)
        found = _one(tokens, allowed) and found
    return found


def _one(tokens: list[str], allowed: set[str]) -> bool:
    if not tokens:
        return False
    if (name := tokens.pop(0)) == "(":
        found = _any(tokens, allowed)
        tokens[:1] = []  # the closing bracket
        return found
    whole = name
    if len(tokens) > 1 and tokens[0].upper() == "WITH":
        whole = f"{name} WITH {tokens[1]}"
        del tokens[:2]
    return name.lower() in allowed or whole.lower() in allowed
