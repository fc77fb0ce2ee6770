"""The site of documentation, built as it is published."""

import html.parser
import importlib
import inspect
import json
import pathlib
import re
import urllib.parse

import pytest
from test_docstrings import PUBLIC
from utils import ROOT, in_process, only_on

pytest.importorskip("sphinx")
pytestmark = only_on("torch")  # It depends on no backend.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    done = in_process(
        *("-W", "ignore", "-m", "sphinx", "-W", "--keep-going", "-q"),
        *("-b", "html", "-d", folder / "trees", ROOT / "docs", folder / "html"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "html"


def test_links_of_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


class Links(html.parser.HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded = [], {""}, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script", "link"):
            self.loaded += [given[k] for k in ("src", "href") if given.get(k)]


@pytest.fixture(scope="module")
def pages(site):
    """dict of each page's path to its links."""
    return {path: Links(path) for path in site.rglob("*.html")}


def test_every_link_resolves(site, pages):
    lost = []
    for page, found in pages.items():
        for link in found.links + found.loaded:
            address, _, anchor = link.partition("#")
            if urllib.parse.urlsplit(address).scheme:
                continue
            path = page
            if address:
                path = (page.parent / urllib.parse.unquote(address)).resolve()
            path = pathlib.Path(str(path).partition("?")[0])
            if not path.exists():
                lost.append((page.name, link))
            elif path.suffix == ".html" and anchor:
                # Search and the index have anchors of scripts.
                known = pages[path].anchors
                if urllib.parse.unquote(anchor) not in known:
                    lost.append((page.name, link))
    assert not lost, lost[:20]


def test_nothing_is_loaded_from_elsewhere(pages):
    for page, found in pages.items():
        for address in found.loaded:
            parts = urllib.parse.urlsplit(address)
            assert parts.scheme in ("", "data"), (page.name, address)
            assert not parts.netloc, (page.name, address)


def test_every_public_name_is_there(site):
    from sphinx.util.inventory import InventoryFile

    with open(site / "objects.inv", "rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    documented = set()
    for kind, names in inventory.items():
        if kind.startswith("py:"):
            documented |= {_object(name) for name in names}
    lacking = [n for n, item in PUBLIC.items() if id(item) not in documented]
    assert not lacking


def _object(name):
    """Returns the identity of what a documented name names."""
    parts = name.split(".")
    # A function may have the name of its module.
    for end in range(len(parts) - 1, 0, -1):
        try:
            item = importlib.import_module(".".join(parts[:end]))
            for part in parts[end:]:
                item = inspect.getattr_static(item, part)
        except (ImportError, AttributeError):
            continue
        return id(item)
    return None


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(
    "page", ["index", "start", "methods", "results", "api/models"]
)
def test_opens_without_network(site, browser, page, width):
    browser.set_window_size(width, 900)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get((site / f"{page}.html").as_uri())
    assert browser.find_element("tag name", "h1").is_displayed()
    errors = [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
    ]
    assert not errors
    events = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    assert asked
    assert all(url.startswith(("file:", "data:")) for url in asked), asked
    # Tables scroll by themselves.
    wide = browser.execute_script(
        "return document.documentElement.scrollWidth - window.innerWidth"
    )
    assert wide <= 0


def test_search_finds_a_class(site, browser):
    browser.set_window_size(1400, 900)
    browser.get((site / "search.html").as_uri() + "?q=GradientProjector")
    found = []
    for _ in range(50):
        found = browser.find_elements("css selector", "#search-results li a")
        if found:
            break
        browser.implicitly_wait(0.1)
    assert any("GradientProjector" in link.text for link in found)
