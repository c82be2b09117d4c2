"""A headless Chromium over its debugging pipe: enough to look at the page and to tap on it. No further library.

Run as a program it takes pictures of a page that is being served:
`python tests/web/web_browser.py http://127.0.0.1:8080/ out.png [width] [height] [dark] [javascript ...]`
"""

import asyncio
import base64
import itertools
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One browser with one page. Use as an asynchronous context manager."""

    def __init__(self, width=1440, height=900, dark=False, touch=False):
        self.width, self.height, self.dark, self.touch = width, height, dark, touch
        self.complaints = []
        self._ids = itertools.count(1)
        self._waiting = {}

    async def __aenter__(self):
        self._folder = tempfile.mkdtemp(prefix="andon-browser-")
        to_read, to_write = os.pipe()
        from_read, from_write = os.pipe()
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        self._process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, CHROMIUM, *FLAGS, f"--user-data-dir={self._folder}", "about:blank",
            pass_fds=(to_read, from_write), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        self._write = to_write
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
        self._pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_read, "rb")
        )
        self._listening = asyncio.create_task(self._listen(reader))
        targets = await self._send("Target.getTargets")
        target = next(t for t in targets["targetInfos"] if t["type"] == "page")
        attached = await self._send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.resize(self.width, self.height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if self.dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        return self

    async def __aexit__(self, *_):
        self._process.terminate()
        await self._process.wait()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._pipe.close()
        os.close(self._write)
        await asyncio.sleep(0)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def resize(self, width, height):
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=self.touch
        )

    async def _listen(self, reader):
        while True:
            text = (await reader.readuntil(b"\0"))[:-1]
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(message["params"]["exceptionDetails"])[:600])
            elif message["method"] == "Log.entryAdded":
                entry = message["params"]["entry"]
                self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")

    async def _send(self, method, session=None, **parameters):
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")
        reply = await asyncio.wait_for(future, 30)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']}")
        return reply["result"]

    async def call(self, method, **parameters):
        return await self._send(method, self._session, **parameters)

    async def open(self, url):
        await self.call("Page.navigate", url=url)

    async def run(self, script):
        """Return the value of a JavaScript expression."""
        result = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:600])
        return result["result"].get("value")

    async def until(self, script, seconds=15):
        """Wait until a JavaScript expression holds."""
        try:
            async with asyncio.timeout(seconds):
                while not await self.run(script):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never came true: {script}; the browser says {self.complaints}") from None

    async def tap(self, script, effect="true", seconds=20):
        """Tap on the element that a JavaScript expression returns until another one holds.

        A layout that moves under the finger makes a person tap again, too.
        """
        await self.until(f"Boolean({script})", seconds)
        for _ in range(5):
            await self._tap(script)
            try:
                await self.until(effect, seconds / 5)
            except AssertionError:
                continue
            return
        raise AssertionError(f"no tap on {script} had the effect {effect}; the browser says {self.complaints}")

    async def _tap(self, script):
        where = await self.run(
            f"(() => {{ const e = {script}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1)

    async def type(self, text):
        await self.call("Input.insertText", text=text)

    async def key(self, name, code):
        for kind in ("keyDown", "keyUp"):
            text = "\r" if name == "Enter" and kind == "keyDown" else ""
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, text=text
            )

    async def picture(self, path, whole=False):
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


async def main():
    url, path, *rest = sys.argv[1:]
    width, height = (int(n) for n in (rest[:2] or (1440, 900)))
    async with Browser(width, height, dark="dark" in rest) as browser:
        await browser.open(url)
        await asyncio.sleep(3)
        for script in rest[3:]:
            print(await browser.run(script))
            await asyncio.sleep(1)
        await browser.picture(path)
        print("\n".join(browser.complaints))


if __name__ == "__main__":
    asyncio.run(main())
