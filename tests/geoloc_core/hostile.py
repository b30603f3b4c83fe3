"""Texts that try to act on what shows them, and what reads them back."""

import unicodedata
from html.parser import HTMLParser

from hypothesis import strategies as st
from markdown_it import MarkdownIt

HOSTILE = [
    "IMG_1[edited].jpg",
    "[bold red]x[/]",
    "[/]",
    "[link=http://h]x[/link]",
    ":cat:",
    "\x1b]0;title\x07\x1b[2J\x1b[31m",
    "\x9b31m\x85",
    "a\nb\r\nc\tgeoloc: error: forged",
    "nul\0 bell\a back\b\x7f",
    "evil\u202egpj.exe\u202c\u2066\u200f",
    "half \ud800 of a pair, a byte \udcff",
    "line\u2028break\ufeff\u00ad\U000e0041",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '"><b onclick="x">',
    "</script><!-- --> &lt; &#60;",
    "[text](javascript:alert(1)) ![p](http://h/p.png) <http://h> https://h www.h.org a@b.org",
    "`code` **bold** _em_ __em__ ~~gone~~ $x$ \\ | a | b",
    "=cmd|' /C calc'!A0",
    "خانه\u200cها 日本 Ünïcode – “quoted”",
]
texts = (
    st.text() | st.sampled_from(HOSTILE) | st.text(alphabet="\\`*_[]<>&|~$:/!()@w.\x1b\n\u202e\ud800 a", max_size=20)
)


def is_quiet(text: str) -> bool:
    """Whether nothing in a text but line breaks acts on a terminal."""
    acting = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return not any(unicodedata.category(c) in acting and c not in "\n\u200c\u200d" for c in text)


MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Page(HTMLParser):
    """What a page says, and its tags but for ``wbr``, which says only where a line may end."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag != "wbr":
            self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data
