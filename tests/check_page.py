"""Checks a report's page in headless Chromium, as a reader meets it: on a wide screen and on a phone.

    python tests/check_page.py PAGE.html [--widths 1280 390] [--shots FOLDER]

It prints a line per check. Exit code 0: all hold; 1: some do not; 2: there is no browser, or no page.

The browser is driven through its own debugging pipe, because only that sets a width below the 500 pixels of a
window, moves a real pointer, and leaves the page's content security policy in force.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# for the browser to answer, in seconds
PATIENCE = 60.0
HEIGHT = 900
# of a page that is longer, the picture ends there
TALLEST_SHOT = 12000
# The browser reads its commands from file 3 and writes to file 4, numbers that may be taken in this process
LAUNCHER = (
    "import fcntl, os, sys\n"
    "r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD_CLOEXEC, 10) for n in sys.argv[1:3])\n"
    "os.dup2(r, 3), os.dup2(w, 4), os.execv(sys.argv[3], sys.argv[3:])\n"
)

# What is too wide, and how much; boxes that scroll by themselves may hold what is wider than they are
OVERFLOW = """(() => {
  const width = document.documentElement.clientWidth;
  const beyond = [...document.body.querySelectorAll("*")].filter((e) => !e.closest(".scroll, pre, .hidden, .skip")
    && e.getBoundingClientRect().right > width + 1);
  return {inner: innerWidth, width, scroll: document.documentElement.scrollWidth,
    beyond: beyond.slice(0, 3).map((e) => e.tagName.toLowerCase() + "." + (e.getAttribute("class") || ""))};
})()"""
FIGURES = """[...document.querySelectorAll("figure")].map((figure) => {
  const drawing = figure.querySelector("svg, img");
  const box = drawing ? drawing.getBoundingClientRect() : {width: 0, height: 0};
  const loaded = drawing && (drawing.tagName !== "IMG" || drawing.naturalWidth > 0);
  return {name: figure.dataset.name || "", width: box.width, height: box.height, loaded: !!loaded};
})"""
# Clicks each table's first header of figures three times, and notes the figures' order each time
SORTING = """[...document.querySelectorAll("main table")].map((table) => {
  const heads = [...table.tHead.rows[0].cells];
  const of = (column) => [...table.tBodies[0].rows].map((row) => row.cells[column])
    .map((cell) => "none" in cell.dataset ? "none" : cell.dataset.v ?? "");
  const column = heads.findIndex((head, i) => head.querySelector("button") && of(i).some((v) => v && v !== "none"));
  const name = table.dataset.name || "";
  if (column < 0) return {name, states: []};
  const states = [[heads[column].getAttribute("aria-sort"), of(column)]];
  for (let i = 0; i < 3; i++) {
    heads[column].querySelector("button").click();
    states.push([heads[column].getAttribute("aria-sort"), of(column)]);
  }
  return {name, head: heads[column].textContent, states};
})"""
MARK = """(() => {
  const mark = document.querySelector("figure svg .mark");
  if (!mark) return null;
  mark.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
  const box = mark.getBoundingClientRect();
  return {x: box.x + box.width / 2, y: box.y + box.height / 2, told: mark.getAttribute("aria-label")};
})()"""
TIP = """(() => {
  const tip = document.querySelector("[role=tooltip]");
  if (!tip || tip.hidden) return null;
  const box = tip.getBoundingClientRect();
  return {text: tip.textContent, inside: box.left >= 0 && box.right <= innerWidth && box.top >= 0};
})()"""
FOCUS = 'document.querySelector("figure svg .mark").focus({preventScroll: true})'


class Check(NamedTuple):
    passed: bool
    text: str


class Browser:
    """A headless Chromium with one page, through its debugging pipe."""

    def __init__(self, path: str, profile: str) -> None:
        # the browser's end of each pipe, and ours
        commands, self._write = os.pipe()
        self._read, answers = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
        options += ["--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        command = [sys.executable, "-c", LAUNCHER, str(commands), str(answers), path, *options]
        self._process = subprocess.Popen(
            command, pass_fds=(commands, answers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self._buffer, self._count, self._session = b"", 0, ""
        self.errors: list[str] = []
        self._loaded = False
        pages = [t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        target = {"targetId": pages[0]["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", target)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        try:
            self._session = ""
            self.call("Browser.close")
            self._process.wait(10)
        except (OSError, RuntimeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """One command's answer.

        Raises:
            RuntimeError: the browser refused, ended, or did not answer in time.
        """
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters or {}}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + PATIENCE
        while (answer := self._next(deadline)).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("the browser ended" if ready else "the browser does not answer")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what the console shows as an error."""
        method, told = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description", ""))) for a in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])

    def open(self, page: Path, width: int, dark: bool = False) -> None:
        """Load the page at that width, anew."""
        self.errors.clear()
        self._loaded = False
        size = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [theme]})
        self.call("Page.navigate", {"url": page.resolve().as_uri()})
        deadline = time.monotonic() + PATIENCE
        while not self._loaded:
            self._note(self._next(deadline))

    def value(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "a script failed"))
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait for two frames: scrolling tells of itself late, and would hide what the pointer brought up."""
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"
        self.call("Runtime.evaluate", {"expression": frames, "awaitPromise": True})

    def point(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y, "pointerType": "mouse"})

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key})

    def shoot(self, path: Path, width: int) -> None:
        """All of the page, as one picture."""
        height = min(int(self.value("document.documentElement.scrollHeight")), TALLEST_SHOT)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        options = {"format": "png", "captureBeyondViewport": True, "clip": clip}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", options)["data"]))


@contextmanager
def browser(path: str) -> Iterator[Browser]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        found = Browser(path, profile)
        try:
            yield found
        finally:
            found.close()


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


# ---------------------------------------------------------------------- checks
def check(page: Path, path: str, widths: Sequence[int], shots: Path | None = None) -> Iterator[Check]:
    """Every check, in both themes' pictures where ``shots`` is given.

    Raises:
        RuntimeError: the browser failed.
    """
    with browser(path) as chromium:
        for width in widths:
            chromium.open(page, width)
            if shots:
                chromium.shoot(shots / f"{page.stem}-{width}-light.png", width)
            found = [_fits(chromium, width), *_figures(chromium), *_marks(chromium), *_sorting(chromium)]
            found.append(_quiet(chromium))
            yield from (Check(passed, f"{width} px: {text}") for passed, text in found)
            if shots:
                chromium.open(page, width, dark=True)
                chromium.shoot(shots / f"{page.stem}-{width}-dark.png", width)


def _fits(chromium: Browser, width: int) -> Check:
    """No part of the page beyond its right edge. A phone's window would widen, so that counts as well."""
    found = chromium.value(OVERFLOW)
    if found["inner"] != width or found["scroll"] > found["width"] or found["beyond"]:
        told = f"content is {found['scroll']} px wide in a window of {found['inner']}"
        return Check(False, f"{told}; beyond the edge: {', '.join(found['beyond']) or 'nothing'}")
    return Check(True, "no horizontal overflow")


def _figures(chromium: Browser) -> Iterator[Check]:
    found = chromium.value(FIGURES)
    empty = [f["name"] for f in found if not (f["loaded"] and f["width"] > 0 and f["height"] > 0)]
    yield Check(
        not empty, f"figures without a size: {', '.join(empty)}" if empty else f"{len(found)} figures have a size"
    )


def _sorting(chromium: Browser) -> Iterator[Check]:
    """Up, down, and as it was; a table without figures, or of one row, has nothing to click."""
    for table in chromium.value(SORTING):
        if table["states"]:
            wrong = _wrongly_sorted(table["states"])
            told = f"table {table['name']}, column {table['head']}"
            yield Check(not wrong, f"{told}: {wrong}" if wrong else f"{told}: sorts")


def _wrongly_sorted(states: Sequence[tuple[str, list[str]]]) -> str:
    if [name for name, _ in states] != ["none", "ascending", "descending", "none"]:
        return f"aria-sort is {', '.join(str(name) for name, _ in states)}"
    original, up, down, again = (values for _, values in states)
    for values, sign in ((up, 1.0), (down, -1.0)):
        numbers = [sign * float(v) for v in values if v not in ("", "none")]
        tail = values[len(values) - values.count("none") :]
        if numbers != sorted(numbers) or any(v != "none" for v in tail):
            return f"not sorted: {', '.join(values[:6])}"
    return "" if again == original else "the third click does not restore the order"


def _marks(chromium: Browser) -> Iterator[Check]:
    """The first mark tells about itself under the pointer and by the keyboard, and Escape ends it."""
    mark = chromium.value(MARK)
    if mark is None:
        return
    chromium.settle()
    chromium.point(mark["x"], mark["y"])
    yield _told(chromium.value(TIP), mark["told"], "under the pointer")
    chromium.press("Escape")
    hidden = chromium.value(TIP) is None
    yield Check(hidden, "Escape hides the tooltip" if hidden else "Escape does not hide the tooltip")
    chromium.point(1, 1)
    chromium.value(FOCUS)
    yield _told(chromium.value(TIP), mark["told"], "on focus")
    chromium.press("Escape")


def _told(tip: dict[str, Any] | None, expected: str, how: str) -> Check:
    if tip is None:
        return Check(False, f"no tooltip {how}")
    if not tip["inside"]:
        return Check(False, f"the tooltip {how} is outside of the window")
    return Check(bool(tip["text"]) and bool(expected), f"tooltip {how}: {' '.join(tip['text'].split())}")


def _quiet(chromium: Browser) -> Check:
    # an answered command means that everything said before it has arrived
    chromium.value("0")
    return Check(
        not chromium.errors, f"console: {'; '.join(chromium.errors)}" if chromium.errors else "console is quiet"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=[1280, 390], help="of the window, in pixels")
    parser.add_argument("--shots", type=Path, help="folder for a picture per width and theme")
    options = parser.parse_args(arguments)
    path = find_browser()
    if path is None or not options.page.is_file():
        print(
            "error: no Chromium or Chrome found" if path is None else f"error: no page {options.page}", file=sys.stderr
        )
        return 2
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    passed = True
    try:
        for found in check(options.page, path, options.widths, options.shots):
            print(f"{'ok' if found.passed else 'FAILED'}  {found.text}", flush=True)
            passed &= found.passed
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
