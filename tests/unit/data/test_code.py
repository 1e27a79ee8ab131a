from __future__ import annotations

import re
import sysconfig
import time
from importlib.metadata import distributions
from pathlib import Path

import pytest

from orchestration.data.code import HEADER, known, language_of, licence_of, permits, refusal
from orchestration.data.config import CodeConfig

STDLIB = Path(sysconfig.get_paths()["stdlib"])

GPL_HEADER = """/* frob.c
 * This program is free software; you can redistribute it and/or modify
 * it under the terms of the GNU {which}General Public License as published by
 * the Free Software Foundation; either version {version} of the License, or
 * (at your option) any later version.
 */"""


@pytest.mark.parametrize(
    ("rel", "head", "language"),
    [
        ("a/b.py", "", "python"),
        ("Lib.RS", "", "rust"),
        ("src/x.c++", "", "c++"),
        ("sub/Makefile", "", "makefile"),
        ("Dockerfile", "", "dockerfile"),
        ("CMakeLists.txt", "", "cmake"),
        ("bin/run", "#!/usr/bin/env python3\n", "python"),
        ("bin/run", "#!/bin/sh -e\n", "bash"),
        ("bin/run", "#! /usr/bin/env -S node --flag\n", "javascript"),
        ("bin/run", "#!/usr/local/bin/perl5.36 -w", "perl"),
        ("bin/run.py", "#!/bin/sh\n", "python"),  # the name is more than the first line
        ("notes.txt", "", None),
        ("bin/run", "plain text", None),
        ("bin/run", "#!/opt/unknown-thing\n", None),
    ],
)
def test_a_language_is_known_by_name_or_first_line(rel: str, head: str, language: str | None) -> None:
    assert language_of(rel, head) == language
    assert language is None or language in known()


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("# SPDX-License-Identifier: MIT\nimport os", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0+ */", "GPL-2.0-or-later"),
        ("<!-- SPDX-License-Identifier: Apache-2.0 OR  MIT -->", "Apache-2.0 OR MIT"),
        ("// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note", "GPL-2.0-only WITH Linux-syscall-note"),
        (GPL_HEADER.format(which="", version=2), "GPL-2.0-or-later"),
        (
            GPL_HEADER.format(which="", version=2).replace(", or\n * (at your option) any later version", ""),
            "GPL-2.0-only",
        ),
        (GPL_HEADER.format(which="Lesser ", version="2.1"), "LGPL-2.1-or-later"),
        (GPL_HEADER.format(which="Affero ", version=3), "AGPL-3.0-or-later"),
        ('# Licensed under the Apache License, Version 2.0 (the "License");', "Apache-2.0"),
        ("# This Source Code Form is subject to the terms of the Mozilla Public\n# License, v. 2.0.", "MPL-2.0"),
        ("# Licensed to PSF under a Contributor Agreement.", "PSF-2.0"),
        ("// Released under the MIT license.", "MIT"),
        ("# Distributed under the terms of the Modified BSD License.", "BSD-3-Clause"),
        ("This is free and unencumbered software released into the public domain.", "Unlicense"),
        ("Creative Commons Legal Code\n\nCC0 1.0 Universal", "CC0-1.0"),
        ("# Licensed under the BSD license.", None),  # which one, nobody can say
        ("# Permission to enter is granted.", None),
        ("# GNU General Public License", None),  # of no known version
        ("import os\n", None),
        ("", None),
    ],
)
def test_a_licence_is_known_by_tag_or_phrase(text: str, licence: str | None) -> None:
    assert licence_of(text) == licence


def test_licence_files_of_installed_packages_are_those_that_their_authors_state() -> None:
    """One licence file and one SPDX name: nothing to choose between."""
    stated: dict[str, list[tuple[str, str, str | None]]] = {}
    for package in distributions():
        name = package.metadata.get("License-Expression") or ""
        files = [file for file in package.files or [] if re.fullmatch(r"(?i)(licen[cs]e|copying)(\.\w+)?", file.name)]
        if len(files) == 1 and name in ("MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "ISC", "MPL-2.0", "MIT-0"):
            text = Path(str(files[0].locate())).read_text(errors="replace")
            stated.setdefault(name, []).append((package.name, name, licence_of(text)))
    rows = [row for found in stated.values() for row in found]
    assert len(rows) > 30
    assert {"MIT", "Apache-2.0", "BSD-3-Clause"} <= set(stated)
    wrong = [row for row in rows if row[1] != row[2] and row[2] is not None]
    unknown = [row for row in rows if row[2] is None]
    assert len(wrong) <= 0.02 * len(rows), wrong
    assert len(unknown) <= 0.05 * len(rows), unknown


def test_the_standard_library_is_python_and_its_headers_name_what_they_do() -> None:
    files = [path for path in sorted(STDLIB.glob("*.py"))]
    found = {path.name: licence_of(path.read_text(encoding="utf-8", errors="replace")[:HEADER]) for path in files}
    assert all(language_of(path.name) == "python" for path in files)
    assert (found["numbers.py"], found["ipaddress.py"]) == ("PSF-2.0", "PSF-2.0")
    assert (found["tarfile.py"], found["optparse.py"]) == ("MIT", "BSD-3-Clause")
    assert sum(licence is None for licence in found.values()) > 0.7 * len(found)  # no header, so nothing is claimed


def test_a_source_file_is_searched_quickly() -> None:
    text = (STDLIB / "argparse.py").read_text()[:HEADER]
    start = time.process_time()
    for _ in range(1000):
        licence_of(text)
    assert time.process_time() - start < 1.0
    start = time.process_time()
    for evil in (
        "licensed " * 3000,
        "bsd " * 5000,
        "#" * 20_000,
        "under the " * 2000 + "licence",
        " \n* " * 5000 + "licence",
    ):
        licence_of(evil)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize(
    ("expression", "licences", "permitted"),
    [
        ("MIT", ["MIT"], True),
        ("mit", ["MIT"], True),
        ("MIT OR GPL-3.0-only", ["MIT"], True),
        ("MIT AND GPL-3.0-only", ["MIT"], False),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", ["Apache-2.0", "BSD-3-Clause"], True),
        ("(MIT OR Apache-2.0) AND BSD-3-Clause", ["MIT"], False),
        ("MIT AND (BSD-3-Clause OR Apache-2.0) OR ISC", ["ISC"], True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0"], True),
        ("Apache-2.0 WITH LLVM-exception", ["Apache-2.0 WITH LLVM-exception"], True),
        ("GPL-2.0-or-later", ["GPL-2.0-only"], False),
        ("GPL-2.0-or-later", ["GPL-2.0+"], True),
        ("(MIT", ["MIT"], True),
        ("", ["MIT"], False),
    ],
)
def test_expressions_are_read_as_their_author_meant(expression: str, licences: list[str], permitted: bool) -> None:
    assert permits(expression, licences) == permitted


def test_reasons_name_the_key_and_never_the_files_own_value() -> None:
    config = CodeConfig(languages=["python", "rust"], licences=["MIT", "PSF-2.0"])
    assert refusal("python", "MIT", config) is None
    assert refusal(None, "MIT", config) == "of no known language"
    assert refusal("go", "MIT", config) == "not in data.clean.code.languages=[python, rust]"
    assert refusal("rust", "GPL-3.0-only", config) == "not in data.clean.code.licences=[MIT, PSF-2.0]"
    assert refusal("rust", None, config) == "without a known licence (data.clean.code.unknown_licence=drop)"
    assert refusal("rust", None, CodeConfig(unknown_licence="keep", licences=["MIT"])) is None
    assert refusal("go", "WTFPL", CodeConfig()) is None
