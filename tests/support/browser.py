"""A headless Chromium and one tab of it, driven over the DevTools protocol."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.support.server import wait_until

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """One tab. What the browser complained about is in `complaints`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        call_id = next(self._ids)
        self._connection.send(json.dumps({"id": call_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("id") == call_id:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(message["params"]))

    def evaluate(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        wait_until(lambda: self.evaluate(expression), what=expression)

    def text(self, element_id: str) -> str:
        return str(self.evaluate(f"document.getElementById({json.dumps(element_id)}).textContent"))

    def set_value(self, element_id: str, value: str) -> None:
        """As a user would, with the events of one."""
        self.evaluate(
            f"""(() => {{
                const field = document.getElementById({json.dumps(element_id)});
                field.value = {json.dumps(value)};
                for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {{ bubbles: true }}));
            }})()"""
        )

    def choose_model(self, name: str) -> None:
        self.evaluate(f"document.getElementById('model-{name}').click()")

    def choose_files(self, *files: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        field = self.call("DOM.querySelector", nodeId=root, selector="#files")["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=field, files=[str(file) for file in files])

    def press(self, element_id: str) -> None:
        """With the keyboard: focus and Enter, which only a control takes."""
        self.evaluate(f"document.getElementById({json.dumps(element_id)}).focus()")
        assert self.evaluate("document.activeElement.id") == element_id
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
            )

    def predict_count(self) -> int:
        return int(
            self.evaluate("performance.getEntriesByType('resource').filter((e) => e.name.includes('/predict')).length")
        )

    def centre_pixel(self) -> list[int]:
        pixel: list[int] = self.evaluate(
            """(() => {
                const canvas = document.getElementById("canvas");
                const context = canvas.getContext("2d");
                return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
            })()"""
        )
        return pixel


@contextlib.contextmanager
def running_chromium(profile: Path) -> Iterator[int]:
    """A headless browser with a profile of its own. Yields its DevTools port."""
    options = (
        "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-background-networking "
        "--disable-component-update --disable-sync --no-first-run --remote-debugging-port=0 "
        "--use-fake-ui-for-media-stream --use-fake-device-for-media-stream"
    )
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *options.split(), f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    port_file = profile / "DevToolsActivePort"

    def port() -> int | None:
        lines = port_file.read_text("ascii").splitlines() if port_file.exists() else []
        return int(lines[0]) if lines else None

    try:
        found = wait_until(port, 30.0, "Chromium opens its DevTools port")
        assert found is not None
        yield found
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def opened_tab(port: int, url: str, key: str = "") -> Iterator[Page]:
    """A tab with a playground in the browser with this DevTools port, its models shown; closed at the end.

    `key` is for a server that shows its models to nobody without one; what the browser says of that is forgotten.
    """
    devtools = f"http://127.0.0.1:{port}"
    tab = httpx.put(f"{devtools}/json/new").json()
    with connect(tab["webSocketDebuggerUrl"], max_size=None, proxy=None) as connection:
        page = Page(connection)
        page.call("Page.navigate", url=url)
        if key:
            page.wait_for("document.querySelector('#problem .problem') !== null")
            page.complaints.clear()
            page.set_value("key", key)
        page.wait_for("document.querySelector('.model') !== null")
        yield page
    httpx.get(f"{devtools}/json/close/{tab['id']}")
