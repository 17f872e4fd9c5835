"""A headless Chromium over its debugging protocol, as small as the tests of the site need; downloads nothing."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def executable():
    """Return where a Chromium is, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One tab: what it printed, asked for, and what a script in it returns."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=30)
        self.number, self.events = 0, []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']['message']}")
                return message["result"]
            self.events.append(message)

    def width(self, pixels, height=900, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=height, deviceScaleFactor=1, mobile=pixels < 600
        )
        value = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": value}])

    def open(self, path, fragment=""):
        """Load a file and wait until it, its pictures and its fonts are there."""
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri() + fragment)
        end = time.monotonic() + 30
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < end, f"{path} did not load"
            self.events.append(json.loads(self.socket.recv()))
        self.script("document.fonts.ready.then(() => true)")

    def script(self, text):
        answer = self.call("Runtime.evaluate", expression=text, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def asked_for(self):
        """Addresses of everything loaded since `open`, contents written into an address left out."""
        sent = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith("data:")]

    def complaints(self):
        """What the console and the log say since `open`."""
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(parameters["exceptionDetails"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
                found.append(str(parameters["args"]))
            elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"])
        return found

    def screenshot(self, path, whole=True):
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(picture["data"]))


@contextmanager
def page(folder):
    """Start a browser whose profile lies in `folder`, give one tab, and end the browser."""
    command = [
        executable(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port, end = folder / "DevToolsActivePort", time.monotonic() + 30
        while not (port.is_file() and port.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        number, path = port.read_text().split()
        browser = websocket.create_connection(f"ws://127.0.0.1:{number}{path}", suppress_origin=True, timeout=30)
        browser.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
        while (answer := json.loads(browser.recv())).get("id") != 1:
            pass
        browser.close()
        yield Page(f"ws://127.0.0.1:{number}/devtools/page/{answer['result']['targetId']}")
    finally:
        process.terminate()
        process.wait(10)
