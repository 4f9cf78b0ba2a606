#!/usr/bin/env python3
"""Records the session of docs/session.svg: two real clients at pseudo-terminals, beside each other.

    scripts/record.py            records anew; look at the picture before committing it
    scripts/record.py --check    fails if a new recording has other lines; numbers of a time or a rate may differ

The programs are those in FS_BIN, or in target/release. The picture is drawn in its own colours, for light and dark pages; it
plays once, and shows its end where nothing moves.
"""

import difflib
import fcntl
import html
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "session.svg"
COLUMNS, ROWS = 58, 24
# Longest wait for a line, seconds.
TIMEOUT = 60
# How long a frame stays, seconds: with a typed line, and with what came of it.
TYPED, SHOWN = 0.8, 1.5
# Pixels: a character, the border, the bar with the user's name.
WIDTH, HEIGHT, MARGIN, BAR = 7.2, 17, 12, 26
# Drawers make one of several blanks.
NO_BREAK = "\u00a0"
STYLES = {0: "", 1: "bold", 2: "dim", 31: "red", 33: "yellow"}
CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\x1b[=>]|[\r\n\b\x07]")
# What differs from run to run: times, rates and ages.
VARIES = re.compile(r" *\d+(\.\d+)? (s|ms|min|[KMG]?i?B/s)(?=\W|$)")


class Screen:
    """What a terminal shows of a program's output; it never scrolls."""

    def __init__(self):
        self.cells = [[(" ", "")] * COLUMNS for _ in range(ROWS)]
        self.row = self.column = 0
        self.style, self.rest = "", ""

    def feed(self, text):
        text, self.rest = self.rest + text, ""
        at = 0
        while at < len(text):
            control = CONTROL.match(text, at)
            if control:
                self.control(control.group(0), control.group(1) or "", control.group(2))
                at = control.end()
            elif text[at] == "\x1b" and len(text) - at < 16:
                self.rest = text[at:]
                return
            else:
                self.put(text[at])
                at += 1

    def put(self, char):
        if self.column == COLUMNS:
            self.row, self.column = self.row + 1, 0
        if self.row >= ROWS:
            raise SystemExit("record: the session needs more than %d rows" % ROWS)
        self.cells[self.row][self.column] = (char, self.style)
        self.column += 1

    def control(self, text, numbers, final):
        count = int(numbers) if numbers.isdigit() else 0
        if text == "\r":
            self.column = 0
        elif text == "\n":
            self.row += 1
        elif text == "\b":
            self.column = max(0, self.column - 1)
        elif final == "m":
            for number in (int(number or 0) for number in numbers.split(";")):
                self.style = STYLES[number]
        elif final in ("A", "B", "C", "D", "G"):
            step = max(1, count)
            self.row = max(0, self.row + {"A": -step, "B": step}.get(final, 0))
            self.column = max(0, self.column + {"C": step, "D": -step}.get(final, 0))
            self.column = step - 1 if final == "G" else self.column
        elif final in ("J", "K"):
            first = 0 if count == 2 else self.column
            self.cells[self.row][first:] = [(" ", "")] * (COLUMNS - first)
            if final == "J":
                for row in range(self.row + 1, ROWS):
                    self.cells[row] = [(" ", "")] * COLUMNS
        elif final not in (None, "h", "l"):
            raise SystemExit("record: the screen does not know %r" % text)

    def lines(self):
        return ["".join(char for char, _ in row).rstrip() for row in self.cells]


class Person:
    """A client at a pseudo-terminal."""

    def __init__(self, name, password, home, programs, port):
        self.name, self.prompt, self.screen = name, name + ">", Screen()
        self.folder = home / name
        self.folder.mkdir()
        environment = {"HOME": str(home / (name + "-home")), "TERM": "xterm", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        environment.update(XDG_RUNTIME_DIR=str(home / "run"), FILESHARE_PASSWORD=password)
        self.terminal, end = pty.openpty()
        fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        argv = [programs / "client", "127.0.0.1", port, "-u", name]
        self.process = subprocess.Popen(
            argv, cwd=self.folder, env=environment, stdin=end, stdout=end, stderr=end, start_new_session=True
        )
        os.close(end)

    def wait(self, what, is_there):
        deadline = time.monotonic() + TIMEOUT
        while not is_there([line for line in self.screen.lines() if line]):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.terminal], [], [], left)[0]:
                raise SystemExit("record: no %s at %s:\n%s" % (what, self.name, "\n".join(self.screen.lines())))
            try:
                self.screen.feed(os.read(self.terminal, 65536).decode())
            except OSError:
                raise SystemExit("record: %s has ended:\n%s" % (self.name, "\n".join(self.screen.lines())))

    def shows(self, text, prompt=True):
        """Waits until a line contains the text, and the prompt stands below."""

        def is_there(lines):
            return any(text in line for line in lines) and (not prompt or lines[-1] == self.prompt)

        self.wait(repr(text), is_there)

    def types(self, line):
        os.write(self.terminal, line.encode())
        self.wait("typed line", lambda lines: lines[-1] == "%s %s" % (self.prompt, line))


def record(programs):
    """The users, and the frames: how long each stays, and the cells of all screens."""
    with tempfile.TemporaryDirectory(prefix="fs-record-") as folder:
        home = pathlib.Path(folder)
        (home / "run").mkdir(mode=0o700)
        (home / "credentials.txt").write_text("hans falcon*solo\nvader sithlord**\n")
        (home / "credentials.txt").chmod(0o600)
        server = subprocess.Popen(
            [programs / "server", "0", "--ephemeral"], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        people = []
        try:
            port = server.stdout.readline().rsplit(":", 1)[1].strip()
            people.append(Person("vader", "sithlord**", home, programs, port))
            people[0].shows("Available commands")
            people.append(Person("hans", "falcon*solo", home, programs, port))
            people[1].shows("Available commands")
            return [person.name for person in people], play(*people)
        finally:
            for person in people:
                person.process.kill()
                person.process.wait()
            server.kill()
            server.wait()


def play(vader, hans):
    (vader.folder / "movie.mp4").write_bytes(os.urandom(48 << 20))
    (vader.folder / "photos").mkdir()
    (vader.folder / "photos" / "beach.jpg").write_bytes(os.urandom(1_300_000))
    frames = []

    def frame(seconds):
        frames.append((seconds, [[list(row) for row in person.screen.cells] for person in (vader, hans)]))

    def enter(person, line, shown, prompt=True):
        person.types(line)
        frame(TYPED)
        os.write(person.terminal, b"\r")
        person.shows(shown, prompt)
        frame(SHOWN)

    frame(SHOWN)
    enter(vader, "pub movie.mp4", "File published")
    enter(vader, "pub --watch photos", "watched until")
    enter(hans, "lap", "1 active peer:")
    enter(hans, "ls -l vader", "photos/beach.jpg")
    enter(hans, "gte movie.mp4", "did you mean")
    enter(hans, "get movie.mp4", "from vader")
    enter(hans, "follow photos/", "beach.jpg downloaded")
    (vader.folder / "photos" / "sunset.jpg").write_bytes(os.urandom(900_000))
    hans.shows("sunset.jpg downloaded")
    frame(SHOWN)
    enter(vader, "lpf", "photos/sunset.jpg")
    enter(hans, "xit", "Goodbye!", prompt=False)
    return frames


def transcript(names, frames):
    """The last screens as text."""
    text = []
    for name, cells in zip(names, frames[-1][1]):
        lines = ["".join(char for char, _ in row).rstrip() for row in cells]
        text += ["[%s]" % name] + [line for line in lines if line]
    return "\n".join(text)


def row_text(cells, x, y):
    """The elements of one row, a run of one style each."""
    runs, at = [], 0
    while at < len(cells):
        end = at
        while end < len(cells) and cells[end][1] == cells[at][1]:
            end += 1
        run, style = "".join(char for char, _ in cells[at:end]), cells[at][1]
        text = run.rstrip()
        if text:
            lead = len(text) - len(text.lstrip())
            place = (x + (at + lead) * WIDTH, y, (len(text) - lead) * WIDTH)
            mark = ' class="%s"' % style if style else ""
            runs.append('<text x="%.1f" y="%d" textLength="%.1f"%s>%s</text>' % (*place, mark, html.escape(text.strip()).replace(" ", NO_BREAK)))
        at = end
    return "".join(runs)


def draw(names, frames):
    pane = COLUMNS * WIDTH + 2 * MARGIN
    used = max(row + 1 for cells in frames[-1][1] for row in range(ROWS) if any(char != " " for char, _ in cells[row]))
    width, height = 2 * pane + MARGIN, BAR + used * HEIGHT + 2 * MARGIN
    starts = [sum(seconds for seconds, _ in frames[:number]) for number in range(len(frames))]
    body = []
    for number, name in enumerate(names):
        x = number * (pane + MARGIN)
        body.append('<rect class="pane" x="%.1f" y="0.5" width="%.1f" height="%d" rx="6"/>' % (x + 0.5, pane - 1, height - 1))
        body.append('<text class="name" x="%.1f" y="18" text-anchor="middle">%s</text>' % (x + pane / 2, name))
        for row in range(ROWS):
            first = 0
            for last in range(len(frames)):
                cells = frames[last][1][number][row]
                is_last = last + 1 == len(frames)
                if not is_last and frames[last + 1][1][number][row] == cells:
                    continue
                drawn = row_text(cells, x + MARGIN, BAR + MARGIN + (row + 1) * HEIGHT - 5)
                times = "in .01s %.1fs both" % starts[first] + ("" if is_last else ",out .01s %.1fs forwards" % starts[last + 1])
                if drawn:
                    body.append('<g%s style="animation:%s">%s</g>' % ("" if is_last else ' opacity="0"', times, drawn))
                first = last + 1
    return TEMPLATE % (width, height, width, height, html.escape(transcript(names, frames)), "\n".join(body))


TEMPLATE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d">
<title>Two users share files</title>
<desc>
%s
</desc>
<style>
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #1f2328; white-space: pre }
.pane { fill: #f6f8fa; stroke: #8c959f }
.name { font-weight: bold; fill: #59636e }
.bold { font-weight: bold } .dim { opacity: .7 }
.red { fill: #b3261e } .yellow { fill: #7d4e00 }
@keyframes in { from { opacity: 0 } to { opacity: 1 } }
@keyframes out { from { opacity: 1 } to { opacity: 0 } }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .pane { fill: #151b23; stroke: #3d444d } .name { fill: #9198a1 }
.red { fill: #ff8b82 } .yellow { fill: #e3b341 }
}
@media (prefers-reduced-motion: reduce) { g { animation: none !important } }
</style>
%s
</svg>
"""


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        raise SystemExit(__doc__.strip())
    programs = pathlib.Path(os.environ.get("FS_BIN") or ROOT / "target" / "release").resolve()
    names, frames = record(programs)
    if not sys.argv[1:]:
        PICTURE.write_text(draw(names, frames), encoding="utf-8")
        return
    recorded = html.unescape(PICTURE.read_text(encoding="utf-8").split("<desc>\n")[1].split("\n</desc>")[0])
    before, now = (VARIES.sub(" N", text).splitlines() for text in (recorded, transcript(names, frames)))
    if before != now:
        print("\n".join(difflib.unified_diff(before, now, "docs/session.svg", "now", lineterm="")))
        raise SystemExit("record: the picture is out of date: scripts/record.py draws it anew")


main()
