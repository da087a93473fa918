"""The demo page in real Chromium: sees what real clients publish, reports no error, and loses nothing when the node
is killed under it."""

import contextlib
import re
import tempfile

import pytest

from clients import curl, module, mosquitto_pub, need, publish
from node import PATIENCE, ROOT, free_ports, wait_until

SCREENSHOTS = ROOT / "build" / "screenshots"


@contextlib.contextmanager
def opened_browser(*more):
    webdriver = module("selenium.webdriver")
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    need("chromium")
    driver_path = need("chromedriver")
    options = Options()
    profile = tempfile.TemporaryDirectory(prefix="tidegate-chromium-", ignore_cleanup_errors=True)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                     "--disable-background-networking", "--disable-component-update", "--disable-sync",
                     "--disable-dev-shm-usage", "--window-size=1280,900", f"--user-data-dir={profile.name}", *more):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A port that no client connection can have been given in the meantime.
    driver = webdriver.Chrome(service=Service(driver_path, port=free_ports(1)[0]), options=options)
    driver.set_page_load_timeout(30 * PATIENCE)
    driver.set_script_timeout(30 * PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()
        profile.cleanup()


@pytest.fixture
def browser():
    with opened_browser() as driver:
        yield driver


class Page:
    def __init__(self, browser, node):
        self.browser = browser
        browser.get(node.web("/demo/"))
        self.wait_state("live")

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def state(self):
        return self.run("return document.getElementById('state').dataset.state")

    def wait_state(self, want):
        wait_until(lambda: self.state() == want, f"the page to be {want}")

    def text(self, name):
        return self.run("return document.getElementById(arguments[0]).textContent", name)

    def events(self):
        """(topic, payload) of the rows, oldest first."""
        rows = self.run("return [...document.getElementById('events').rows].map(r => "
                        "[r.querySelector('.topic').textContent, r.querySelector('.payload').textContent])")
        return [tuple(row) for row in reversed(rows)]

    def wait_events(self, want):
        try:
            wait_until(lambda: self.events() == want, f"the page to show {len(want)} events")
        except AssertionError:
            assert self.events() == want
            raise

    def console_errors(self, but=None):
        """Lines of the console above info; `but` matches those that are the test's own doing."""
        lines = [f"{entry['level']} {entry['message']}" for entry in self.browser.get_log("browser")
                 if entry["level"] not in ("INFO", "DEBUG")]
        return [line for line in lines if not (but and re.search(but, line))]

    def fill(self, name, text):
        self.run("const box = document.getElementById(arguments[0]); box.value = arguments[1];", name, text)

    def press(self, selector):
        self.run("document.querySelector(arguments[0]).click()", selector)

    def screenshot(self, name):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.browser.save_screenshot(str(SCREENSHOTS / f"{name}.png"))


@pytest.mark.deadline(90)
def test_page_shows_what_real_clients_publish(node, browser):
    page = Page(browser, node)
    mosquitto_pub(node, "home/kitchen", b'{"c":22}')
    publish(node, "home/hall", b'{"c":21.5}')
    publish(node, "door/front", b"open")
    page.wait_events([("home/kitchen", '{"c":22}'), ("home/hall", '{"c":21.5}'), ("door/front", "open")])
    for number in range(12):
        publish(node, "home/kitchen", b'{"c":%.1f}' % (20 + number * 0.3 - (number % 4) * 0.5))
    wait_until(lambda: page.text("count") == "15", "15 messages")
    assert page.run("return document.querySelectorAll('.card').length") == 3
    points = page.run("return document.querySelector('[data-topic=\"home/kitchen\"] polyline').getAttribute('points')")
    assert len(points.split()) == 13
    page.screenshot("demo-page")
    assert page.console_errors() == []


@pytest.mark.deadline(90)
def test_page_publishes_and_filters_and_reads_the_past(node, browser):
    page = Page(browser, node)
    page.fill("topic", "from/the/page")
    page.fill("payload", '{"hello":[1,2]}')
    page.press("#publish button")
    wait_until(lambda: page.text("published").startswith("durable at "), "the acknowledgement")
    page.wait_events([("from/the/page", '{"hello":[1,2]}')])
    kept = curl(node.api("/v1/history/from/the/page?from=earliest")).json()["messages"]
    assert [message["data"] for message in kept] == [{"hello": [1, 2]}]

    publish(node, "other/one", b"1")
    page.fill("filter", "other/+")
    page.press("#subscribe [value=earliest]")
    page.wait_events([("other/one", "1")])
    publish(node, "from/the/page", b"not wanted any more")
    publish(node, "other/two", b"2")
    page.wait_events([("other/one", "1"), ("other/two", "2")])

    page.fill("topic", "no/+/wildcards")
    page.press("#publish button")
    wait_until(lambda: page.text("published").startswith("bad_request"), "the refusal")
    assert page.console_errors() == []


@pytest.mark.deadline(60)
def test_page_begins_with_what_is_retained(node, browser):
    mosquitto_pub(node, "home/kitchen", b'{"c":19}', "-r")
    publish(node, "home/kitchen", b'{"c":20}')
    page = Page(browser, node)
    page.wait_events([("home/kitchen", '{"c":19}')])
    assert page.run("return document.getElementById('events').rows[0].cells[3].textContent") == "retained"
    publish(node, "home/kitchen", b'{"c":21}')
    page.wait_events([("home/kitchen", '{"c":19}'), ("home/kitchen", '{"c":21}')])
    assert page.console_errors() == []


@pytest.mark.deadline(120)
def test_page_resumes_after_kill_9_without_loss(make_node, browser):
    node = make_node(keep_ports=True)
    page = Page(browser, node)
    want = []

    def send(count):
        for _ in range(count):
            payload = '{"n":%d}' % len(want)
            publish(node, "home/kitchen", payload.encode())
            want.append(("home/kitchen", payload))

    for round_number in range(3):
        send(10)
        node.kill9()
        wait_until(lambda: page.state() != "live", "the page to notice")
        node.restart()
        # Acknowledged before the page is back (its back-off has hardly begun).
        send(10)
        page.wait_events(want)
        page.wait_state("live")
        assert int(page.text("reconnects")) > round_number
    send(5)
    page.wait_events(want)
    assert page.text("gaps") == "0"
    page.screenshot("demo-page-resumed")
    # The browser itself reports a refused connection while the node is down; nothing else may be there.
    assert page.console_errors(but=r"WebSocket connection to .* failed") == []


@pytest.mark.deadline(60)
def test_page_is_usable_with_a_narrow_window_and_in_the_dark(node, browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    browser.set_window_size(420, 900)
    page = Page(browser, node)
    publish(node, "home/kitchen", b'{"c":21.5}')
    page.wait_events([("home/kitchen", '{"c":21.5}')])
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth"), "no sideways scrolling"
    assert page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(15, 21, 27)"
    page.screenshot("demo-page-dark")
    assert page.console_errors() == []


@pytest.mark.deadline(60)
def test_the_readmes_lines_for_the_console(node, browser):
    lines = re.search(r"```js\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    publish(node, "home/kitchen", b'{"c":21.5}')
    page = Page(browser, node)
    page.console_errors()  # what is in the log so far
    page.run(lines.replace(":8080/", f":{node.ports['http']}/"))
    mosquitto_pub(node, "home/hall", b'{"c":22}')
    said = []

    def printed():
        said.extend(entry["message"] for entry in browser.get_log("browser"))
        return any('"home/kitchen" "{\\"c\\":21.5}"' in line for line in said) and \
            any('"home/hall" "{\\"c\\":22}"' in line for line in said)

    try:
        wait_until(printed, "both messages on the console")
    except AssertionError as error:
        raise AssertionError(f"{error}; it shows {said}") from None
