"""Headless Chromium that makes a call, told what to do by its DevTools protocol."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import threading
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from testbed.voice.client.signal import Signal
from testbed.voice.media.opus import RATE
from tests.netns.waiting import wait_until

PAGE = Path(__file__).with_name("page.html")
#: Its microphone is a file of the testbed's signal, over and over.
_SECONDS = 60


def missing() -> str:
    """Why there is none here, or nothing."""
    if shutil.which("chromium") is None:
        return "not run: no chromium here; on Debian: apt install chromium"
    return ""


class Browser:
    """One page, in which JavaScript can be run."""

    def __init__(self, devtools: str) -> None:
        host = devtools.split("/")[2]
        request = urllib.request.Request(f"http://{host}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=20) as response:
            target = json.loads(response.read())
        self._socket = connect(target["webSocketDebuggerUrl"], max_size=1 << 28, proxy=None)
        self._number = 0

    def go(self, url: str) -> None:
        self._do("Page.navigate", {"url": url})
        wait_until(lambda: self.run("document.readyState === 'complete' && typeof call === 'function'"), "the page", 30)

    def run(self, script: str, timeout_s: float = 60) -> Any:
        """The value of an expression; a promise is waited for."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self._do("Runtime.evaluate", options, timeout_s)
        assert "exceptionDetails" not in found, json.dumps(found["exceptionDetails"])[:2000]
        return found["result"].get("value")

    def close(self) -> None:
        self._socket.close()

    def _do(self, method: str, parameters: dict[str, Any], timeout_s: float = 30) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            said = json.loads(self._socket.recv(timeout=timeout_s))
            if said.get("id") == self._number:
                assert "error" not in said, said
                result: dict[str, Any] = said["result"]
                return result


@contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    sound = directory / "microphone.wav"
    signal = Signal()
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"".join(signal.frame() for _ in range(50 * _SECONDS)))
    command = [
        "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={sound}", "--autoplay-policy=no-user-gesture-required",
        "--disable-background-networking", "--disable-component-update",
        "--remote-debugging-port=0", f"--user-data-dir={directory / 'profile'}", "about:blank",
    ]  # fmt: skip
    log = directory / "chromium.log"
    with log.open("w") as file_log:
        process = subprocess.Popen(command, stderr=file_log, stdout=file_log, start_new_session=True)
    try:
        told = re.compile(r"DevTools listening on (ws://\S+)")
        wait_until(lambda: told.search(log.read_text()) or process.poll() is not None, "Chromium is there", 60)
        found = told.search(log.read_text())
        assert found, log.read_text()
        made = Browser(found[1])
        try:
            yield made
        finally:
            made.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def served() -> Iterator[str]:
    """The page over HTTP, for only then a page may have a microphone; its origin."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = PAGE.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
