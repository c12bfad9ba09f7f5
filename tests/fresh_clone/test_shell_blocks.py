"""`make test-docs`: the shell blocks of README, manual and tutorial, in a fresh clone and environment."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from harness.no_network import sitecustomize as no_network
from harness.server import free_port

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "backend/README_backend.md", "docs/tutorial.md")
_LIMIT_S = 900  # of a page, the installation included

# What is left out, by a part of a block or by the beginning of a line, and why.
LEFT_OUT_BLOCKS = {
    "docker build ": "needs Docker",
    ".venv\\Scripts\\Activate.ps1": "Windows; tests/test_docs.py compares it with docs/windows.md",
}
LEFT_OUT_LINES = {
    "make demo": "takes a minute, and does by HTTP what the tutorial does",
    "curl -H 'Content-Type: application/json' localhost:8000/runs/cancel": "needs a run that is under way",
}

_SERVES = re.compile(r"^(?:\w+=\S+ )*(?:make serve|roi-anomaly serve|uvicorn |gunicorn )")
_PRELUDE = """
set -m
service=
stop() { if [ -n "$service" ]; then kill -TERM -- "-$service" && { wait "$service" || true; }; service=; fi; }
trap stop EXIT
ready() {
    for _ in $(seq 400); do
        kill -0 "$service" || { tail -n 30 service.log; return 1; }
        if curl -q --silent --fail "http://127.0.0.1:$PORT/ready" >ready.json 2>&1; then return 0; fi
        sleep 1
    done
    echo "the service is not ready after 400 s"
    return 1
}
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files as `git clone` gives them, and the images that the pages name."""
    folder = tmp_path_factory.mktemp("fresh") / "clone"
    if (ROOT / ".git").exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True, timeout=120)
    else:  # an unpacked archive
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv*", ".*_cache", "__pycache__"))
    for count, images in ((12, "hazelnut/good"), (2, "hazelnut/parts"), (2, "hazelnut/bad")):
        (folder / images).mkdir(parents=True)
        for number in range(count):
            _draw(folder / images / f"{number}.png", seed=len(images) * 100 + number, scratched=images.endswith("bad"))
    return folder


@pytest.fixture(scope="module")
def environment(clone: Path) -> dict[str, str]:
    """What a new user's terminal has: nothing of this environment but where weights and pip's files are kept."""
    mine = (
        no_network.RECORD,
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "MODELS_",
        "API_KEYS",
        "INFER_KEYS",
        "COVERAGE",
        "COV_",
        "MAKE",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
    (clone / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\nmax-time = 120\n")
    return kept | {
        "PYTHON": str(Path(sys.base_prefix) / "bin" / "python3"),
        "PORT": str(free_port()),
        "CURL_HOME": str(clone),  # every curl fails where the service refuses
        "HISTORY": "1000",
        "MIN_OK_SAMPLES": "1",
        "FULL_KEY": "full-key-of-the-manual",
        "LINE_KEY": "line-key-of-the-manual",
    }


@pytest.mark.timeout(_LIMIT_S + 60)
@pytest.mark.parametrize("page", PAGES)
def test_every_shell_block_of_a_page_runs(page: str, clone: Path, environment: dict[str, str]) -> None:
    """In the order of `PAGES`: the README installs, and the manual rolls back what both fitted and calibrated."""
    for number, name in enumerate(("ok1", "ok2", "part", "part7", "bad1", "anchor")):
        _draw(clone / f"{name}.png", seed=1000 * len(page) + number, scratched=name.startswith(("part", "bad")))
    script = _script((ROOT / page).read_text(encoding="utf-8"), environment["PORT"])
    process = psutil.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=clone, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=_LIMIT_S)
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()
    assert process.returncode == 0, "\n".join(line[:300] for line in said.splitlines()[-40:])


def test_everything_that_is_left_out_stands_on_a_page() -> None:
    blocks = [block for page in PAGES for block in _blocks((ROOT / page).read_text(encoding="utf-8"))]
    lines = [line for block in blocks for line in _lines(block)]
    assert [part for part in LEFT_OUT_BLOCKS if not any(part in block for block in blocks)] == []
    assert [start for start in LEFT_OUT_LINES if not any(line.startswith(start) for line in lines)] == []


def _blocks(text: str) -> list[str]:
    """The blocks without a language, which are those of a shell."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in blocks if not language]


def _lines(block: str) -> list[str]:
    """The commands of a block; what goes on in the next line is one."""
    return re.sub(r"(\\\n|(?<=,)\n) *", " ", block).splitlines()


def _script(text: str, port: str) -> str:
    blocks = [block for block in _blocks(text) if not any(part in block for part in LEFT_OUT_BLOCKS)]
    lines = [line for block in blocks for line in _lines(block) if not line.startswith(tuple(LEFT_OUT_LINES))]
    script = [_PRELUDE]
    for line in lines:
        command = re.sub(r"\b8000\b", port, line)
        script.append(f"echo {_quoted('$ ' + command)}")
        if _SERVES.match(line):
            script.append(f"stop\n{command.partition(' #')[0]} >service.log 2>&1 &\nservice=$!\nready")
        else:
            script.append(command)
    return "\n".join(script)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _draw(path: Path, *, seed: int, scratched: bool) -> None:
    """A part: the same ring on a ground that differs from image to image, with a scratch if it is defective."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(120, 30, (256, 256)), (0, 0), 3).clip(0, 255).astype(np.uint8)
    cv2.circle(image, (128, 128), 80, 200, 12)
    if scratched:
        cv2.line(image, (60, 80), (200, 170), 20, 4)
    cv2.imwrite(str(path), image)
