"""A headless Chromium, driven over its debugging pipe (Chrome DevTools Protocol), and its screenshots. Standard library alone."""

import base64
import collections
import json
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
import queue
import zlib

TIMEOUT = 30


class Browser:
    """One browser with one page."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="fileshare-browser.")
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()

        def place_pipe():
            # The browser reads from descriptor 3 and writes to 4.
            for copy, place in [(os.dup(to_browser), 3), (os.dup(from_browser), 4)]:
                os.dup2(copy, place)

        options = "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync " \
            "--disable-component-update --disable-quic --force-color-profile=srgb --remote-debugging-pipe"
        self.process = subprocess.Popen(
            [program, *options.split(), f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=place_pipe, close_fds=False, start_new_session=True)
        os.close(to_browser)
        os.close(from_browser)
        self._answers, self._next = queue.Queue(), 0
        self.events = collections.defaultdict(list)
        threading.Thread(target=self._read, daemon=True).start()
        self._session = None
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def _read(self):
        rest = b""
        while piece := os.read(self._from, 1 << 20):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.put(message)
                else:
                    self.events[message["method"]].append(message["params"])

    def call(self, method, **parameters):
        """The result of one command of the protocol."""
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._answers.get(timeout=TIMEOUT)
        if answer["id"] != self._next or "error" in answer:
            raise RuntimeError(f"{method}: {answer}")
        return answer["result"]

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page; a promise is awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    def open(self, address):
        """Returns when the page is loaded, and its scripts have run."""
        failure = self.call("Page.navigate", url=address).get("errorText")
        if failure:
            raise RuntimeError(f"{address}: {failure}")
        deadline = time.monotonic() + TIMEOUT
        while self.evaluate("document.readyState") != "complete":
            if time.monotonic() > deadline:
                raise RuntimeError(f"{address} is not loaded")
            time.sleep(0.01)

    def show_as(self, width, height, scheme):
        """`scheme` is light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, width, height):
        """A PNG of the page from its top left corner."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        return base64.b64decode(data)


class Picture:
    """The pixels of a PNG with 8 bits a channel."""

    def __init__(self, png):
        at, data = 8, b""
        while at < len(png):
            (length,), kind = struct.unpack(">I", png[at:at + 4]), png[at + 4:at + 8]
            if kind == b"IHDR":
                self.width, self.height, depth, color = struct.unpack(">IIBB", png[at + 8:at + 18])
                assert depth == 8 and color in (2, 6), (depth, color)
            elif kind == b"IDAT":
                data += png[at + 8:at + 8 + length]
            at += 12 + length
        self._channels = 3 if color == 2 else 4
        self._rows = self._unfilter(zlib.decompress(data))

    def _unfilter(self, data):
        n, stride = self._channels, self.width * self._channels
        rows, above = [], bytearray(stride)
        for y in range(self.height):
            start = y * (stride + 1)
            kind, row = data[start], bytearray(data[start + 1:start + 1 + stride])
            for x in range(stride) if kind else ():
                left, up, corner = (row[x - n] if x >= n else 0), above[x], (above[x - n] if x >= n else 0)
                if kind == 1:
                    guess = left
                elif kind == 2:
                    guess = up
                elif kind == 3:
                    guess = (left + up) // 2
                else:
                    base = left + up - corner
                    guess = min((left, up, corner), key=lambda value: abs(base - value))
                row[x] = (row[x] + guess) & 255
            rows.append(row)
            above = row
        return rows

    def at(self, x, y):
        """Red, green, blue."""
        start = x * self._channels
        return tuple(self._rows[y][start:start + 3])

    def row(self, y):
        n = self._channels
        return list(zip(self._rows[y][0::n], self._rows[y][1::n], self._rows[y][2::n]))
