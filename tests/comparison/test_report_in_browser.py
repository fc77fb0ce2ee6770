"""The report in a real browser: the system's Chromium, by Selenium."""

import json

import pytest
from made_up import FACTS, made_up
from utils import only_on

from keras_mla.comparison import report

pytestmark = only_on("torch")  # The report is NumPy alone.

LONG = "a_name_that_no_line_can_break_" * 4
# Returns what is wider than its box. Children of a scroll box may be.
WIDER = """
const wide = [];
const right = document.querySelector("main").getBoundingClientRect().right;
for (const one of document.querySelectorAll("html, body, body *")) {
  if (one.closest("svg") && one.tagName !== "svg") continue;
  if (one.closest(".scroll")) {
    const box = one.closest(".scroll");
    if (one !== box) continue;
    const text = ": " + box.textContent.slice(0, 40);
    if (getComputedStyle(box).overflowX !== "auto")
      wide.push("box that does not scroll" + text);
    if (box.getBoundingClientRect().right > right + 0.5)
      wide.push("scroll box" + text);
    const fits = box.matches("figure:not(.wide) .scroll");
    if (fits && box.scrollWidth > box.clientWidth)
      wide.push("figure that must fit" + text);
    continue;
  }
  const shown = getComputedStyle(one).display !== "inline";
  if (shown && one.scrollWidth > one.clientWidth)
    wide.push(one.tagName + ": " + one.textContent.slice(0, 40));
}
return wide;
"""
# Returns the colours of the page and of a text in a figure.
COLORS = """
const text = document.querySelector("svg text");
return [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.body).color, getComputedStyle(text).fill];
"""


@pytest.fixture(scope="module", params=["plain", "long names", "multi-label"])
def page(request, tmp_path_factory):
    """The path of a report."""
    comparison = {
        "plain": lambda: made_up(seeds=(0, 1), facts=FACTS),
        "long names": lambda: made_up(
            methods=[f"Method_{LONG}", "B"],
            modalities=("text", f"audio_{LONG}"),
            seeds=(0,),
            n=30,
            classes=[f"{LONG}{i}" for i in range(12)],
            name=LONG,
            failures={LONG: LONG},
            missing=[LONG],
            facts={"command": LONG, LONG: {LONG: LONG}},
        ),
        "multi-label": lambda: made_up("multi_label", seeds=(0,), facts=FACTS),
    }[request.param]()
    return report.write(comparison, tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_report_in_browser(browser, page, width, mode):
    size = {"width": width, "height": 900}
    size |= {"deviceScaleFactor": 1, "mobile": width == 400}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": mode}
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [feature]}
    )
    for log in ("browser", "performance"):
        browser.get_log(log)  # Forgets what was before.
    browser.get(page.as_uri())
    assert browser.execute_script("return innerWidth") == width
    assert browser.execute_script(WIDER) == []
    background, ink, text = browser.execute_script(COLORS)
    assert text == ink
    lightness = [
        sum(map(int, color.strip("rgb()").split(","))) / 3
        for color in (background, ink)
    ]
    assert (lightness[0] > 200 and lightness[1] < 60) == (mode == "light")
    assert (lightness[0] < 60 and lightness[1] > 200) == (mode == "dark")
    assert browser.get_log("browser") == []
    events = (
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    )
    requested = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert page.as_uri() in requested
    assert all(url.startswith(("file:", "data:")) for url in requested)
    assert {url for url in requested if url[:5] == "file:"} == {page.as_uri()}


def test_report_in_print(browser, page):
    media = {"media": "print", "features": []}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')]"
        ".map(box => getComputedStyle(box).overflowX)"
    )
    assert set(boxes) == {"visible"}
    heads = browser.execute_script(
        "return [...document.querySelectorAll('thead')]"
        ".map(head => getComputedStyle(head).display)"
    )
    assert set(heads) == {"table-header-group"}
    media = {"media": "", "features": []}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
