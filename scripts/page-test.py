#!/usr/bin/env python3
"""Checks the server's status page in a real browser, headless Chromium, without network access.

    scripts/page-test.py [--no-build] [--screenshots FOLDER]

In light and dark, on a desktop and on a phone: what the page shows and how it is arranged (by the structure of its screenshots,
not by single pixels), how soon it shows a change, what it says when the server is stuck or gone, and what it asks for. No name of
a file may be in anything that the port serves. --screenshots keeps the pictures.

Builds release programs first; with --no-build, uses those in FS_BIN or target/release. Installs Chromium (Debian's package) if it is
missing, which needs root.
"""

import argparse
import fcntl
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
import fileshare_testkit  # noqa: E402
from page_test_browser import Browser, Picture  # noqa: E402

SECRET_NAME = "secret-plans-of-the-base.txt"
# Seconds until a change shows.
CHANGE_MAX = 2.0
# The same for a server that takes connections and does not answer.
STUCK_MAX = 4.0
# How long it does not answer.
GAP = 3.0
TILES = ["Peers online", "Publications", "Requests a second", "Refused a second", "Waiting for the disk", "Dropped by the system"]
PLOTS = ["Peers online", "Publications", "Requests a second", "Throughput a second", "99 of 100 take less than", "Refused a second"]
TABLES = ["Requests since the start", "Logins, and how sessions ended", "Refused and dropped", "Who is here"]
# Width, height, and the number of cards in each row from above.
LAYOUTS = {"desktop": (1280, 900, [6, 2, 2, 2, 2, 2]), "phone": (390, 844, [2, 2, 2] + [1] * 10)}
# The cards and the colours of the page.
CARDS = """[...document.querySelectorAll(".card")].filter(card => !card.hidden).map(card => {
  const { x, y, width, height } = card.getBoundingClientRect();
  const lines = [...card.querySelectorAll("path")];
  return { title: card.querySelector("h2").textContent, kind: card.querySelector("svg") ? "plot" : card.querySelector("table") ? "table" : "tile",
    x: x + scrollX, y: y + scrollY, width, height, lines: lines.map(line => getComputedStyle(line).stroke), text: card.innerText };
})"""


def say(text):
    print(text, flush=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def wait(condition, what, seconds=20):
    """Seconds until it is true."""
    start = time.monotonic()
    while not condition():
        check(time.monotonic() < start + seconds, f"not within {seconds} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


def without_network():
    """Starts this script again in a network namespace that has nothing but its own loopback interface."""
    if os.environ.get("FILESHARE_PAGE_TEST") != "isolated":
        namespace = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
        os.environ["FILESHARE_PAGE_TEST"] = "isolated"
        os.execvp("unshare", [*namespace, sys.executable, *sys.argv, "--no-build"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # SIOCSIFFLAGS with IFF_UP
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
    check(os.listdir("/sys/class/net") and not any(reaches(host) for host in ("192.0.2.1", "8.8.8.8")), "there is a network")


def reaches(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex((host, 53)) == 0


def chromium():
    names = ("chromium", "chromium-browser", "google-chrome")
    if not any(map(shutil.which, names)):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", "chromium", "fonts-dejavu-core"], check=True,
                       stdout=subprocess.DEVNULL, env=environment)
    return next(filter(None, map(shutil.which, names)))


def status_address(share):
    wait(lambda: "status page at " in share.server.log, "the address in the log")
    return share.server.log.split("status page at ")[1].split()[0]


def fetch(address, path):
    try:
        with urllib.request.urlopen(address + path, timeout=10) as response:
            return response.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def rgb(text):
    """Of "rgb(1, 2, 3)"."""
    return tuple(map(int, text[text.index("(") + 1:text.index(")")].split(",")[:3]))


def blocks(picture, background):
    """The number of blocks in each row of them: rows and blocks are parted by the background."""
    rows, band = [], []
    for y in range(picture.height + 1):
        pixels = picture.row(y) if y < picture.height else []
        if any(pixel != background for pixel in pixels):
            band.append(pixels)
        elif band:
            is_part = [any(row[x] != background for row in band) for x in range(picture.width)]
            starts = sum(part and not before for part, before in zip(is_part, [False, *is_part]))
            # Lines of text are lower than any card.
            if len(band) >= 48:
                rows.append(starts)
            band = []
    return rows


def contrast(a, b):
    """Of two colours, 1 to 21, as WCAG 2 defines it."""
    def luminance(color):
        linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def check_look(browser, name, scheme, folder):
    width, height, rows = LAYOUTS[name]
    browser.show_as(width, height, scheme)
    wait(lambda: browser.evaluate(f"innerWidth === {width} && matchMedia('(prefers-color-scheme: {scheme})').matches"), "the screen")
    cards = browser.evaluate(CARDS)
    for kind, titles in (("tile", TILES), ("plot", PLOTS), ("table", TABLES)):
        check([card["title"] for card in cards if card["kind"] == kind] == titles, f"{kind}s: {cards}")
    check(browser.evaluate("document.documentElement.scrollWidth") <= width, "the page is wider than the screen")
    total = browser.evaluate("document.documentElement.scrollHeight")
    png = browser.screenshot(width, total)
    if folder:
        (folder / f"{name}-{scheme}.png").write_bytes(png)
    picture = Picture(png)
    style = "getComputedStyle(document.querySelector('{}')).{}"
    page, text = (rgb(browser.evaluate(style.format("body", which))) for which in ("backgroundColor", "color"))
    card_color = rgb(browser.evaluate(style.format(".card", "backgroundColor")))
    dim = rgb(browser.evaluate(style.format("h2", "color")))
    check((sum(page) < 384) == (scheme == "dark"), f"{scheme}: {page}")
    check(min(contrast(text, page), contrast(text, card_color), contrast(dim, card_color)) >= 4.5, f"{scheme}: text is hard to read")
    found = blocks(picture, page)
    check(found == rows, f"{name}, {scheme}: cards in rows {found}, expected {rows}")
    for card in cards:
        left, top, right, bottom = (round(card["x"]), round(card["y"]), round(card["x"] + card["width"]), round(card["y"] + card["height"]))
        inside = {picture.at(x, y) for x in range(left + 2, right - 2) for y in range(top + 2, bottom - 2)}
        check(card_color in inside and len(inside) > 10, f"{card['title']} is empty")
        for color in map(rgb, card["lines"]):
            near = (max(abs(a - b) for a, b in zip(color, pixel)) for pixel in inside)
            check(min(near) <= 40, f"{card['title']}: no line in {color}")
            check(contrast(color, card_color) >= 3, f"{card['title']}: a line in {color} is hard to see")
    say(f"ok      {name}, {scheme}: {len(cards)} cards in rows {found}")


def check_page(browser, share, folder):
    address = status_address(share)
    browser.open(address)
    tile = lambda name: browser.evaluate(f"document.getElementById('{name}').textContent")
    health = lambda: browser.evaluate("document.getElementById('health').innerText")
    text = lambda: browser.evaluate("document.body.innerText")
    wait(lambda: tile("sessions") == "0" and "healthy" in health(), "the first figures")

    hans = share.client("hans")
    seconds = wait(lambda: tile("sessions") == "1", "a login shows")
    check(seconds <= CHANGE_MAX, f"a login showed after {seconds:.1f} s")
    hans.write(SECRET_NAME, b"x")
    hans.pub(SECRET_NAME)
    more = wait(lambda: tile("publications") == "1", "a publication shows")
    check(more <= CHANGE_MAX, f"a publication showed after {more:.1f} s")
    wait(lambda: "hans" in text() and "publish" in text(), "who is here, and the request")
    say(f"ok      a login shows after {seconds:.2f} s, a publication after {more:.2f} s")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"junk", ("127.0.0.1", share.server.port))
    wait(lambda: "malformed" in text(), "what was refused")
    vader = share.client("vader")
    vader.sch("plans")
    vader.get(SECRET_NAME)
    wait(lambda: tile("sessions") == "2" and "search" in text(), "a second peer")
    # Some samples for the plots.
    wait(lambda: len(points(browser)) >= 4, "plots")
    for name in LAYOUTS:
        for scheme in ("light", "dark"):
            check_look(browser, name, scheme, folder)

    opacity = lambda: float(browser.evaluate("getComputedStyle(document.querySelector('section')).opacity"))
    check(opacity() == 1, "figures of now are dimmed")
    share.server._program.send_signal(signal.SIGSTOP)
    stuck = wait(lambda: "does not answer" in health(), "a server that is stuck")
    check(stuck <= STUCK_MAX, f"a server that is stuck showed after {stuck:.1f} s")
    check("last figures" in health() and opacity() < 0.5, "old figures look like those of now")
    time.sleep(GAP)
    share.server._program.send_signal(signal.SIGCONT)
    wait(lambda: "healthy" in health() and opacity() == 1, "a server that goes on")
    # The line is drawn by time, and has no part where nothing is known.
    wait(lambda: [begins for _, begins in points(browser)].count(True) == 2, "a gap in the line")
    (before, _), (after, _) = next((a, b) for a, b in zip(points(browser), points(browser)[1:]) if b[1])
    check(after - before >= GAP, f"{GAP} s without an answer are {after - before} s wide")
    share.server.kill()
    seconds = wait(lambda: "does not answer" in health(), "a server that is gone")
    check(seconds <= CHANGE_MAX, f"a server that is gone showed after {seconds:.1f} s")
    check("last figures" in health() and opacity() < 0.5, "old figures look like those of now")
    say(f"ok      a server that is stuck (after {stuck:.2f} s), goes on and is gone (after {seconds:.2f} s)")
    slow = browser.evaluate("ms(p99({ count: 0, cumulative: [0, 0], bounds: [1, 10] }, { count: 1, cumulative: [0, 0], bounds: [1, 10] }))")
    check(slow == "over 10 s", f"a time above all bounds is '{slow}'")
    return address


def points(browser):
    """Of the first plot's line: the place in seconds, and whether it begins there anew."""
    path = browser.evaluate("document.querySelector('path').getAttribute('d')") or ""
    return [(float(place), command == "M") for command, place in re.findall(r"([ML])([\d.]+)", path)]


def check_traffic(browser, address):
    asked = [event["request"]["url"] for event in browser.events["Network.requestWillBeSent"]]
    check(all(url.startswith((address, "data:")) for url in asked), f"asked for {set(asked)}")
    blocked = browser.evaluate("""(async () => {
      const blocked = new Promise(done => document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective)));
      fetch("http://127.0.0.1:9/").catch(() => {});
      return blocked;
    })()""")
    check(blocked == "connect-src", f"the policy is {blocked}")
    check(not browser.events["Runtime.exceptionThrown"], browser.events["Runtime.exceptionThrown"])
    say(f"ok      {len(asked)} requests, all to the server; its policy permits no others")


def check_names(share):
    address = status_address(share)
    paths = ["", "metrics", "stats.json", "healthz", SECRET_NAME, "..", "%2e%2e/credentials.txt", "?" + "x" * 5000]
    everything = "".join(fetch(address, path) for path in paths)
    check(len(everything) > 10_000 and "hans" in everything, "the pages are there")
    check(SECRET_NAME not in everything and "secret" not in everything, "the name of a file is served")
    say("ok      no name of a file in what the port serves")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if not arguments.no_build:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bins"], check=True, cwd=HERE.parent)
    program = chromium()
    without_network()
    if arguments.screenshots:
        arguments.screenshots.mkdir(parents=True, exist_ok=True)
    browser = Browser(program)
    try:
        with fileshare_testkit.Share(options=("--status", "127.0.0.1:0", "--status-users")) as share:
            address = check_page(browser, share, arguments.screenshots)
            check_traffic(browser, address)
            share.server.restart()
            wait(lambda: '"sessions":2' in fetch(status_address(share), "stats.json"), "the clients resume")
            check_names(share)
    finally:
        browser.close()


if __name__ == "__main__":
    main()
