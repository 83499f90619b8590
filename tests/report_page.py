"""What a page of the report holds, read as a browser's parser reads it: every element with its attributes, text and parent."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "input", "br", "path", "use", "rect"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join("".join(parts).split())

    def all(self, tag: str = "", **wanted: str) -> list["Element"]:
        """Elements below, in order; `id_` and `class_` for the attributes of these names."""
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if tag in ("", child.tag) and all(child.attributes.get(name) == value for name, value in wanted.items()):
                    found.append(child)
                found += child.all(tag, **wanted)
        return found

    def table(self) -> dict[str, dict[str, "Element"]]:
        """Cells of a table by the name of their line, then of their column."""
        heads = [cell.text for row in self.all("thead") for cell in row.all("th")]
        return {row.all("th")[0].text: dict(zip(heads[1:], row.all("td"), strict=True)) for row in self.all("tbody")[0].all("tr")}


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("document", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
            self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(path: Path) -> Element:
    """The page as a tree; AssertionError where an element is not closed."""
    parser = _Parser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert len(parser.open) == 1, [element.tag for element in parser.open]
    return parser.open[0]
