"""Markup and boilerplate out of one text. Takes a text; gives it without HTML or XML tags, or without the lines that every
page of a site has. Called by `clean.clean_text` where the spec asks for it, in training and at the endpoint. Knows
nothing of rows or the spec.

A tag must be one: prose such as "a < b and c > d", "if x<i and y>z", "<3" or "<john@example.com>" stays whole. A parser of
HTML (html.parser, lxml) would take `<b and c>` and `<i and y>` for tags, hence our own grammar; its quantifiers are
possessive, so that no text takes more than linear time. What a line is by is in the style of the C4 rules (Raffel et al.
2020), but each pattern covers a whole line or starts it: a sentence about cookies or copyright is prose."""

from __future__ import annotations

import html
import re

_VOID = "area base br col embed hr img input link meta param source track wbr"
_OPEN_ENDED = "body colgroup dd dt head html li optgroup option p tbody td tfoot th thead tr"  # closing tag optional
_INLINE = (
    "a abbr acronym b bdi bdo big cite code data del dfn em font i ins kbd mark q ruby rb rp rt s samp small span strike"
    " strong sub sup time tt u var wbr img"
)
_BLOCK = (
    "address article aside audio blockquote button canvas caption center details dialog dir div dl fieldset figcaption"
    " figure footer form frame frameset h1 h2 h3 h4 h5 h6 header hgroup iframe label legend main map menu meter nav object"
    " ol output picture pre progress search section select summary table textarea title ul video"
)
_SPACED = frozenset(["td", "th"])
_JOINED = frozenset(_INLINE.split())
_ALONE = frozenset(f"{_VOID} {_OPEN_ENDED}".split())
_HTML = frozenset(f"{_VOID} {_OPEN_ENDED} {_INLINE} {_BLOCK}".split())

# An attribute has a value, or is one of those that HTML lets stand alone.
_BARE = (
    "allowfullscreen|async|autofocus|autoplay|checked|compact|controls|default|defer|disabled|formnovalidate|hidden|inert|"
    "ismap|itemscope|loop|multiple|muted|nohref|nomodule|noshade|novalidate|nowrap|open|playsinline|readonly|required|"
    "reversed|selected"
)
_ATTRIBUTE = rf"""(?:[\w:.@-]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|[^\s"'<>`]++)|(?:{_BARE})(?![\w=]))"""
_TAG = re.compile(rf"<(/?)([A-Za-z][\w:.-]*+)((?:\s++{_ATTRIBUTE})*+)\s*+(/?)>", re.IGNORECASE)
_DECLARATION = re.compile(r"<!doctype\b[^<>]*+>|<\?[a-z][^<>]*+>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# Elements whose content is no text for readers.
_HIDDEN = re.compile(r"<(script|style|noscript|template)(?=[\s>])[^<>]*+>", re.IGNORECASE)
_HIDDEN_END = {
    name: re.compile(rf"</{name}\s*+>", re.IGNORECASE) for name in ("script", "style", "noscript", "template")
}


def without_markup(text: str) -> str:
    """Tags, comments, scripts and style sheets removed, tags of blocks replaced by line ends, entities (only those that end
    in a semicolon: `?a=1&copy=2` is an address) by their characters."""
    if "<" in text:
        text = _without_tags(_without_hidden(_without_comments(text)))
    return _ENTITY.sub(lambda found: html.unescape(found[0]), text) if "&" in text else text


def _without_comments(text: str) -> str:
    """What is never closed stays: it is no comment."""
    text = _cut(text, "<!--", "-->")
    if "<![CDATA[" in text:
        text = "".join(_unwrapped(part) for part in text.split("<![CDATA["))
    return _DECLARATION.sub("", text) if "<!" in text or "<?" in text else text


def _unwrapped(part: str) -> str:
    content, end, rest = part.partition("]]>")
    return html.escape(content, quote=False) + rest if end else part  # < and & in it are text


def _cut(text: str, opening: str, closing: str) -> str:
    kept, at = [], 0
    while (start := text.find(opening, at)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        kept.append(text[at:start])
        at = end + len(closing)
    return "".join([*kept, text[at:]])


def _without_hidden(text: str) -> str:
    """What is never closed stays: prose may speak of the <script> tag."""
    kept, at, start_at = [], 0, 0
    unclosed: set[str] = set()  # names that are not searched for again, so the time is linear
    while start := _HIDDEN.search(text, start_at):
        name = start[1].lower()
        end = None if name in unclosed else _HIDDEN_END[name].search(text, start.end())
        if end is None:
            unclosed.add(name)
            start_at = start.end()
            continue
        kept += [text[at : start.start()], "\n"]
        at = start_at = end.end()
    return "".join([*kept, text[at:]])


def _without_tags(text: str) -> str:
    """Names that are not HTML's (XML) and single letters without attributes (`x<b>y`) are tags where they are closed."""
    closed = {found[2].lower() for found in _TAG.finditer(text) if found[1]}
    blocks = False

    def replaced(tag: re.Match[str]) -> str:
        nonlocal blocks
        name = tag[2].lower()
        sure = name in _HTML and (len(name) > 1 or tag[1] or tag[3] or name in _ALONE)
        if not (sure or name in closed or tag[4]):
            return tag[0]
        if name in _JOINED:
            return ""
        if name in _SPACED:
            return " "
        blocks = True
        return "\n"

    text = _TAG.sub(replaced, text)
    if not blocks:
        return text
    return "\n".join(line for part in text.split("\n") if (line := part.strip()))


# ------------------------------------------------------------------------------------------------ boilerplate


_LONGEST = 400  # characters; a longer line is prose
_PLACE = (
    r"home ?page|home|about(?: us)?|contacts?(?: us)?|blog|news|faqs?|help|support|log ?in|sign ?in|log ?out|sign ?out|sign ?up|"
    r"register|subscribe|search|menu|main menu|site ?map|shop|store|(?:shopping )?cart|(?:my )?account|careers|jobs|press|"
    r"products|services|privacy(?: policy| notice| & cookies)?|cookies?(?: policy| settings| notice| preferences)?|"
    r"terms(?: (?:of|and|&) (?:service|use|conditions))?|legal(?: notice)?|imprint|accessibility|advertise(?: with us)?|"
    r"首页|关于我们|联系我们|登录|登陆|注册|搜索|网站地图|帮助中心|隐私政策|服务条款|加入我们|友情链接"
)
_ACTION = (
    r"skip to (?:main )?(?:content|navigation)|back to top|(?:toggle|open|close|show|hide) (?:navigation|menu|search)|"
    r"(?:read|load|show|see|view) more|read (?:the )?full (?:article|story)|continue reading|leave a (?:comment|reply)|"
    r"post a comment|no comments(?: yet)?|(?:related|recent|popular) (?:posts|articles|stories)|"
    r"(?:next|previous) (?:page|post|article)|advertisements?|sponsored(?: content)?|print(?: this(?: page)?)?|tweet(?: this)?|"
    r"pin it|e-?mail this|share|返回顶部|上一篇|下一篇|阅读全文|查看更多|点击查看更多"
)
_NETWORK = r"facebook|twitter|x|linked ?in|pinterest|reddit|whats ?app|telegram|tumblr|e-?mail|instagram|youtube|weibo|微信|微博|朋友圈"
# Whole lines, where a text has more than one.
_WHOLE = re.compile(
    rf"(?:{_PLACE}|{_ACTION}|"
    rf"(?:share|follow us|find us|like us)(?: this(?: (?:article|post|page|story))?)?:?"
    rf"(?: (?:on|via|to|with|by))?(?:[ ,|/&]++(?:and |on )?(?:{_NETWORK}))++|"
    rf"(?:share|print|e-?mail) this (?:article|post|page|story)|(?:分享到|分享至|关注我们)[:： ]*+(?:(?:{_NETWORK})[ 、,/]*+)*+)[ .!:»›>→…]*+",
    re.IGNORECASE,
)
_DIVIDER = re.compile(r"\s*+[|»›•·｜]\s*+|\s+[>/]\s+|\t+|\s{3,}")
_PLACES = re.compile(_PLACE, re.IGNORECASE)
# Lines that a site says to its visitors, also alone.
_NOTICE = re.compile(
    r"(?:(?:we|this (?:web ?)?site|our (?:web ?)?site|the site|[\w-]+\.(?:com|org|net))(?: and our partners)? (?:also )?uses?"
    r" (?:\w+,? ){0,4}cookies\b(?=.*\b(?:experience|browsing|sites?|website|consent|traffic|analy[sz]e|personali[sz]e|preferences|ads)\b)"
    r"|by (?:continuing|clicking|browsing|using (?:this|our) (?:web ?)?site)\b.*\bcookies\b"
    r"|(?:accept|reject|allow|decline|manage)(?: all| only)?(?: (?:necessary|essential))? cookies\W*+$"
    r"|本(?:网站|站)使用 ?cookie"
    r"|(?:please |you (?:must|need to) |to (?:view|use|see) .*)?(?:enable|turn on|activate) java ?script\b"
    r"|java ?script (?:must be|is|has been|needs to be|seems to be|appears to be) (?:currently )?(?:enabled|disabled|required|turned off)\b"
    r"|(?:this|our|the) (?:web ?)?(?:site|page|app|application|content|feature|video) requires java ?script\b"
    r"|your browser (?:does not|doesn't) support\b|请(?:启用|开启) ?javascript"
    r"|(?:copyright )?(?:©|\(c\)) ?(?:copyright )?(?:19|20)\d\d\b|copyright (?:©|\(c\))|copyright (?:19|20)\d\d(?:[-–, ]+\d{2,4})*+(?:\W*+$|,? (?:by )?(?-i:[A-Z]))"
    r"|(?:[^.!?]{0,80}[.,;|] ?)?all rights reserved\W*+$|.{0,40}版权所有|.{0,40}[A-Z一-鿿]ICP[备证]"
    r"|(?:subscribe to|sign up (?:for|to)|join) (?:our|the) (?:\w+ ){0,2}(?:newsletter|mailing list)\b"
    r"|(?:proudly )?powered by (?:wordpress|blogger|drupal|joomla|shopify|disqus|wix|squarespace|phpbb|vbulletin|mediawiki)\b"
    r"|lorem ipsum dolor)",
    re.IGNORECASE,
)


def without_boilerplate(text: str) -> str:
    """Without lines that are menus, cookie or script notices, copyright notes, share and navigation buttons. The shortest
    ones ("Share", "Home") only go where the text has other lines."""
    lines = text.split("\n")
    kept = [line for line in lines if not _is_boilerplate(line.strip(), alone=len(lines) == 1)]
    return text if len(kept) == len(lines) else "\n".join(kept).strip()


def _is_boilerplate(line: str, *, alone: bool) -> bool:
    if not line or len(line) > _LONGEST:
        return False
    if _NOTICE.match(line):
        return True
    if _is_menu(line):
        return True
    # a last word of wrapped prose ("support") is no button
    return not alone and not line[0].islower() and _WHOLE.fullmatch(line) is not None


def _is_menu(line: str) -> bool:
    """Three short items or more between dividers, two of them places that most sites have."""
    items = [item for item in _DIVIDER.split(line) if item]
    if len(items) < 3 or max(map(len, items)) > 30:
        return False
    return sum(_PLACES.fullmatch(item) is not None for item in items) >= 2
