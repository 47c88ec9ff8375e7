"""Parser of HTML pages for tests."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br"}
LEFT_OPEN = {"defs", "g", "path", "rect", "use"}


class Reader(HTMLParser):
    """Parses a page, collects its tags, headings and text, and asserts that every opened tag is closed.

    In the text, a space replaces consecutive whitespace, as in a browser.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        self.text = " ".join(self.text.split())
        assert self.open_tags == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open_tags.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append((tag, ""))

    def handle_startendtag(self, tag, attrs):
        assert tag in LEFT_OPEN
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        if "style" in self.open_tags:
            return
        self.text += data
        if self.open_tags and self.open_tags[-1] in ("h1", "h2", "h3"):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
