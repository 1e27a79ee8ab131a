from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from orchestration.data.catalog import local
from orchestration.data.markup import without_boilerplate, without_markup


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return pq.read_table(local("catalog:vader-sentiment"))["text"].to_pylist()


@pytest.mark.parametrize(
    "prose",
    [
        "a < b and c > d",
        "a <b and c> d",
        "if a<b>c then",
        "x<i and y>z",
        "I <3 you",
        "write to <john@example.com> or <https://example.com/a>",
        "List<String> and Map<K, V>",
        "R&D, AT&T, ?a=1&copy=2&lt=3",
        "5 <-- five",
        "<!-- never closed",
        "the <script> tag runs code",
        "-> => <- <= <> </ >",
    ],
)
def test_prose_with_angle_brackets_and_ampersands_stays_whole(prose: str) -> None:
    assert without_markup(prose) == prose


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One</p><p>Two</p>", "One\nTwo"),
        ("One<br/>two<BR>three", "One\ntwo\nthree"),
        ("plain<b>bold</b>, <em class='x'>em</em>", "plainbold, em"),
        ('<a href="https://e.org/?a=1&b=2" target=_blank>link</a>', "link"),
        ("<img src=a.png alt=''>text<hr>", "text"),
        ("<input type=checkbox checked disabled> yes", "yes"),
        ("<ul>\n  <li>a</li>\n  <li>b</li>\n</ul>", "a\nb"),
        ("<table><tr><td>1</td><td>2</td></tr></table>", "1  2"),
        ("before<!-- a <b> comment -->after", "beforeafter"),
        ("<style>p { color: red }</style><script>if (a < b) { x() }</script>text", "text"),
        ("<script src=x></script >a<SCRIPT>\n<p>\n</SCRIPT>b", "a\nb"),
        ("<noscript>Enable JavaScript</noscript>text", "text"),
        ("<!DOCTYPE html><?xml version='1.0'?>text", "text"),
        ("&lt;b&gt; &amp; &quot;x&quot; &#8364; &#x20AC; &eacute;", '<b> & "x" € € é'),
        ("&amp;lt;", "&lt;"),  # replaced once, as a browser does
        ("&nosuch; &;", "&nosuch; &;"),
        ("<note><to lang='en'>Ann</to><from/>Bob</note>", "Ann\nBob"),
        ("<x:a>1</x:a><![CDATA[a < b & <c>]]>", "1\na < b & <c>"),
        ("</div> left over <span>", "left over"),
    ],
)
def test_markup_leaves_the_text_a_reader_sees(page: str, text: str) -> None:
    assert without_markup(page).strip() == text


def test_real_rows_lose_nothing_but_entities(texts: list[str]) -> None:
    changed = [(text, without_markup(text)) for text in texts if without_markup(text) != text]
    assert 100 < len(changed) < 500
    assert all("&" in text for text, _ in changed)
    assert all(
        "&" + text.split("&", 1)[1].split(";")[0] + ";" not in clean for text, clean in changed if "amp;" not in text
    )


def test_a_real_page_of_paragraphs_gives_them_back(texts: list[str]) -> None:
    import html

    rows = [" ".join(text.split()) for text in texts[:2000]]
    page = "".join(f'<div class="r"><p>{html.escape(row)}</p><hr></div>\n' for row in rows if row)
    assert without_markup(f"<html><body>{page}</body></html>").split("\n") == [row for row in rows if row]


@pytest.mark.parametrize(
    "part",
    [
        '<a b="',
        "<a ",
        "<a b='<a b=\"",
        "<!--",
        "<script>",
        "<![CDATA[",
        "&#",
        "<",
        "<a hidden ",
        "<!doctype ",
        " ",
        "<x a=b ",
        "</script",
    ],
)
def test_no_text_takes_more_than_linear_time(part: str) -> None:
    start = time.process_time()
    without_markup("<a" + part * (300_000 // len(part)))
    without_markup(part * (300_000 // len(part)) + "x")
    assert time.process_time() - start < 3.0


@pytest.mark.parametrize(
    "line",
    [
        "Home | About | Contact us | News",
        "Home > Products > Search",
        "首页 | 关于我们 | 联系我们",
        "We use cookies to give you the best experience on our website.",
        "This site uses cookies to analyse traffic.",
        "By continuing to browse you agree to our use of cookies.",
        "Accept all cookies",
        "JavaScript must be enabled to view this page",
        "Please enable JavaScript in your browser.",
        "This site requires JavaScript.",
        "Copyright © 2024 Acme Inc. All rights reserved.",
        "© 2019-2024 Acme",
        "Copyright 2020 Acme Ltd",
        "版权所有 某某公司 京ICP备12345号",
        "Proudly powered by WordPress",
        "Subscribe to our weekly newsletter for more",
    ],
)
def test_notices_and_menus_leave_wherever_they_are(line: str) -> None:
    assert without_boilerplate(line) == ""
    assert without_boilerplate(f"A first line.\n  {line}\nA last line.") == "A first line.\nA last line."


@pytest.mark.parametrize(
    "line",
    [
        "Home",
        "Skip to content",
        "Share this article",
        "Share on Facebook, Twitter and LinkedIn",
        "Tweet",
        "Read more »",
    ],
)
@pytest.mark.parametrize(
    "other", ["Privacy Policy", "Leave a comment", "Advertisement", "返回顶部", "分享到：微信 微博"]
)
def test_buttons_leave_a_page_but_not_a_row_of_their_own(line: str, other: str) -> None:
    assert without_boilerplate(f"A first line.\n{line}\n{other}\nA last line.") == "A first line.\nA last line."
    assert (without_boilerplate(line), without_boilerplate(other)) == (line, other)


@pytest.mark.parametrize(
    "prose",
    [
        "We use cookies as bribes for our children.",
        "The policy of the bakery on cookies changed.",
        "Copyright law in 1998 was the subject of a debate.",
        "Copyright 1998 legislation changed everything.",
        "JavaScript is a language; Python is another.",
        "She was at home and about to contact the news desk.",
        "Share your food with the poor.",
        "| year | sales | cost |",
        "2019 | 1,204 | 38%",
        "Powered by ambition, she went on.",
        "Follow us into the garden, he said.",
        "We need more help and more\nsupport",
        "- a list\n- of items",
    ],
)
def test_prose_on_the_same_subjects_survives(prose: str) -> None:
    assert without_boilerplate(f"First.\n{prose}\nLast.") == f"First.\n{prose}\nLast."


def test_no_line_of_real_prose_is_boilerplate(texts: list[str]) -> None:
    page = "\n".join(" ".join(text.split()) for text in texts).strip()
    assert without_boilerplate(page) == page
