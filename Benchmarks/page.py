#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The page without a server in a browser: `make bench-page`.

    page.py PROGRAM

Exports the built-in network's page, opens it in Chromium without a window, and times, as medians,
a stroke's way until its percentages and maps are drawn, and an epoch of 2,000 digits with the
direct kernels. Fails where the first takes longer than a frame at 60 Hz, or the second than 2 s.
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

NETWORK = "Sources/MNISTSample/files/digits.safetensors"


class Page:
    """Chromium through its debugging pipe: messages are JSON with a 0 behind."""

    def __init__(self, program, folder, address):
        pipes = [os.pipe(), os.pipe()]
        command = f'exec "$0" "$@" 3<&{pipes[0][0]} 4>&{pipes[1][1]}'
        self.process = subprocess.Popen(
            ["sh", "-c", command, program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--window-size=1280,900", f"--user-data-dir={folder}/profile", "--remote-debugging-pipe"],
            pass_fds=(pipes[0][0], pipes[1][1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.inlet, self.outlet = os.fdopen(pipes[0][1], "wb", 0), os.fdopen(pipes[1][0], "rb")
        self.count, self.session = 0, {}
        target = self.send("Target.createTarget", url=address)["targetId"]
        self.session = {"sessionId": self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def send(self, method, **parameters):
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters, **self.session}
        self.inlet.write(json.dumps(message).encode() + b"\0")
        while True:
            text = b""
            while not text.endswith(b"\0"):
                byte = self.outlet.read(1)
                text += byte or sys.exit("the browser has ended")
            answer = json.loads(text[:-1])
            if answer.get("id") == self.count:
                return answer["result"] if "result" in answer else sys.exit(f"{method}: {answer['error']}")

    def value(self, expression):
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        return answer["result"].get("value")

    def wait(self, condition):
        for _ in range(600):
            if self.value(f"!!({condition})") is True:
                return
            time.sleep(0.1)
        sys.exit(f"never: {condition}")


def strokes(page):
    """Milliseconds from each move of the pen until what the network makes of it is on the page."""
    page.value("""(() => {
      let began = 0;
      window.times = [];
      pad.addEventListener("pointermove", () => { began ||= performance.now(); }, true);
      views.push({ looked() { if (began) times.push(performance.now() - began); began = 0; } });
      $("clear").click();
    })()""")
    left, top, size = page.value('(({ x, y, width }) => [x, y, width])($("pad").getBoundingClientRect())')
    for i in range(110):
        kind = "mousePressed" if i == 0 else "mouseMoved"
        page.send("Input.dispatchMouseEvent", type=kind, button="left", buttons=1, clickCount=1,
                  x=left + size * (0.3 + 0.4 * i / 110), y=top + size * (0.2 + 0.6 * (i % 40) / 40))
        time.sleep(0.05)
    # Code is compiled anew once it turns out to be hot.
    return page.value("times")[10:]


def epochs(page):
    """Seconds of each epoch."""
    page.value("""(() => {
      $("kernels").value = "direct";
      $("kernels").dispatchEvent(new Event("change"));
      $("text").value = machine.network;
      $("epochs").value = 5;
      $("train").click();
    })()""")
    page.wait('epochs.length === 5 && !$("train").disabled')
    return page.value("epochs.map((e) => machine.train_images / e.images_per_second)")


def main():
    program = sys.argv[1]
    names = ["chromium", "chromium-browser", "google-chrome"]
    browser = next(filter(None, map(shutil.which, names)), None) or sys.exit(f"no browser: none of {', '.join(names)}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        subprocess.run([program, "export", NETWORK, f"{folder}/page.html"], check=True, stdout=subprocess.DEVNULL)
        page = Page(browser, folder, f"file://{folder}/page.html")
        try:
            page.wait('typeof seen !== "undefined" && seen && rows.length')
            stroke, epoch = statistics.median(strokes(page)), statistics.median(epochs(page))
        finally:
            page.process.terminate()
            page.process.wait()
    print(f"{stroke:6.1f} ms   from a stroke to its percentages and maps (at most 16)")
    print(f"{epoch:6.2f} s    an epoch of 2,000 digits, direct kernels (at most 2)")
    sys.exit(stroke > 16 or epoch > 2)


main()
