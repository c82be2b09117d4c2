"""The page's own script, run by node on the page's own document."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from web_gateway import NOW, day, plain, plant

from edge.web.app import STATIC


@pytest.mark.skipif(shutil.which("node") is None and not os.environ.get("CI"), reason="node: apt install nodejs")
def test_the_script_shows_what_the_snapshot_says(tmp_path):
    # node takes a .js file for a module only where a package says so; a browser needs no such file.
    folder = tmp_path / "static"
    shutil.copytree(STATIC, folder)
    (folder / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    snapshots = tmp_path / "snapshots.json"
    views = {name: json.loads(msgspec.json.encode(view)) for name, view in (("plant", plant()), ("plain", plain()))}
    told = msgspec.to_builtins(day("cnc"))
    for span in told["spans"]:
        span["exact"] = [str(span["start"]), str(span["end"])]
    snapshots.write_text(json.dumps({**views, "now": NOW, "day": told}), encoding="utf-8")
    script = Path(__file__).with_name("web_script.mjs")
    done = subprocess.run(
        ["node", script, folder, snapshots], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) >= 20, done.stdout
