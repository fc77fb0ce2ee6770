"""The system's Chromium, by Selenium."""

import shutil

import pytest

# Not CHROMIUM alone: Google Chrome has the same driver.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def start():
    """Returns Chromium without a window and without network.

    The test is skipped if it is not installed.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if path is None or driver is None:
        pytest.skip(
            "There is no Chromium with its driver: "
            "apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = path
    for argument in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "host-resolver-rules=MAP * ~NOTFOUND",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability(
        "goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"}
    )
    # A given driver, because Selenium would look for one in the network.
    service = webdriver.ChromeService(driver)
    return webdriver.Chrome(options=options, service=service)
