"""A headless Chromium spoken to through a pipe, by its DevTools protocol: enough to open a page, use it and time it."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """Where a Chromium is installed; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of one browser. Messages of its console and the addresses that it asked for are kept as they come."""

    def __init__(self, width: int = 1280, height: int = 900, dark: bool = False):
        self.folder = tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True)
        (read_in, self.write), (self.read, write_out) = os.pipe(), os.pipe()
        flags = f"--headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir={self.folder.name}"
        command = f"exec {find()} {flags} --remote-debugging-pipe 3<&{read_in} 4>&{write_out}"
        self.process = subprocess.Popen(
            ["bash", "-c", command], pass_fds=(read_in, write_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read_in)
        os.close(write_out)
        self.buffer, self.count, self.session = b"", 0, ""
        self.console: list[str] = []
        self.asked: list[str] = []
        self.events: set[str] = set()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Answer of one command of the protocol; RuntimeError with the browser's words where it refuses."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(60)
            if answer.get("id") == self.count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            if not select.select([self.read], [], [], seconds)[0]:
                raise TimeoutError("the browser says nothing")
            self.buffer += os.read(self.read, 1 << 20)
        line, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(line)
        name, params = message.get("method", ""), message.get("params", {})
        self.events.add(name)
        if name == "Runtime.exceptionThrown":
            self.console.append(params["exceptionDetails"]["text"])
        if name == "Log.entryAdded":
            self.console.append(params["entry"]["text"])
        if name == "Runtime.consoleAPICalled":
            self.console.append(str(params["args"]))
        if name == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        return message

    def open(self, url: str) -> float:
        """Seconds until the page has loaded and drawn."""
        self.events.clear()
        start = time.perf_counter()
        self.call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self.events:
            self._next(60)
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return time.perf_counter() - start

    def run(self, script: str) -> Any:
        """What a script of the page gives, waited for where it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 10) -> float:
        """Seconds until the script gives something true."""
        start = time.perf_counter()
        while not self.run(f"!!({script})"):
            if time.perf_counter() - start > seconds:
                raise TimeoutError(f"not true within {seconds} s: {script}")
            time.sleep(0.01)
        return time.perf_counter() - start

    def press(self, key: str, code: int = 0) -> None:
        """One key, as from a keyboard."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text if kind == "keyDown" else "",
                      windowsVirtualKeyCode=code)  # fmt: skip

    def picture(self, path: Path, selector: str = "") -> None:
        """A PNG of the whole page, or of one element."""
        box = f"document.querySelector({json.dumps(selector or 'html')}).getBoundingClientRect()"
        clip = self.run(f"(b => ({{x: b.x + scrollX, y: b.y + scrollY, width: b.width, height: b.height}}))({box})")
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip | {"scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and deletes what it kept."""
        self.session = ""
        self.call("Browser.close")
        self.process.wait(20)
        os.close(self.write)
        os.close(self.read)
        self.folder.cleanup()
