"""The command line: its help, its reaction to mistakes, and its work on whole folders."""

import re
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from harness.contract.blanks import Blanks, layout_of, parse, pretty
from harness.contract.checkout import Checkout, Outcome
from harness.contract.files import texts_of_files
from harness.contract.older_models import write_folder_to_migrate
from harness.contract.pictures import Image, crop, encoded, part, scratched
from harness.contract.sentences import help_without_sentences

_COMMANDS = re.compile(r"\{([\w,-]+)\}")
_BAR = re.compile(r"\r?(\w[\w ]*): +\d+%\|[^\r\n]*")
_DURATION = re.compile(r"\d+ ms\b")
_AT_ONCE = 2
_IMAGES = "images"
# What command lines are written with below; an @ is the folder of `CommandLine`.
_SHORT = {
    "ROI": "'Line 1' Pattern",
    "MM": "--mm-per-px 0.2",
    "SHAPE": """--shape '{"kind":"circle","cx":75,"cy":60,"r":50}'""",
}

WRONG: Mapping[str, str] = {
    "no command": "",
    "an unknown command": "nosuch",
    "version": "--version",
    "an abbreviated option": "fit ROI x --mm 0.2",
    "no arguments": "fit",
    "no images": "fit ROI nothing-here MM",
    "mm_per_px of no number": "fit ROI x --mm-per-px fine",
    "an empty role": "versions '' Pattern",
    "a long roi": f"versions a {'x' * 300}",
    "the reserved recipe": "versions ROI --recipe Last",
    "a bad shape": """infer ROI x MM --shape '{"kind":"star"}'""",
    "a bad percentile": "evaluate x --percentile 0",
    "bad shots": "evaluate x --shots 1,a",
    "a bad version": "rollback ROI --version one",
    "no such version": "rollback ROI --version 7",
    "no data set": "evaluate nothing-here",
    "no older models": "migrate nothing-here",
}
WRONG_SETTINGS: Mapping[str, dict[str, str]] = {
    "INPUT_SIZE": {"INPUT_SIZE": "1"},
    "several": {"DEVICE": "abacus", "CORESET_RATE": "2", "TRACE": "perhaps"},
    "a short key": {"API_KEYS": "short"},
    "a host with a port": {"ALLOWED_HOSTS": "a:80"},
    "weights that are none": {"WEIGHTS": "pyproject.toml"},
}
RUNS: Mapping[str, str] = {
    "weights": "weights",
    "fit": "fit ROI @images/good MM --thumbnails",
    "infer uncalibrated": "infer ROI @images/parts/2.png MM",
    "calibrate": "calibrate ROI --ok @images/good @images/held-out --ng @images/bad MM --scores @scores.jsonl",
    "infer to a table": "infer ROI @images/parts MM --out @results.csv --heatmaps @maps",
    "infer to lines": "infer ROI @images/held-out @images/bad MM --out @results.jsonl",
    "infer to a table that is there": "infer ROI @images/parts MM --out @results.csv",
    "infer under other conditions": "infer ROI @images/parts MM SHAPE --out @results.csv",
    "append": "fit ROI @images/held-out MM --append",
    "calibrate by a rate": "calibrate ROI --ok @images/held-out MM --target-false-reject-rate 0.4",
    "choose the percentile": "calibrate ROI --ok @images/held-out --ng @images/bad MM --choose-percentile",
    "versions": "versions ROI",
    "rollback": "rollback ROI --version 1",
    "fit a broken image": "fit ROI @images/parts MM",
    "fit of a recipe": "fit ROI @images/good/1.png @images/good/2.png MM --recipe 'Line 9' --keep-all SHAPE",
    "infer by a recipe": "infer ROI @images/held-out/0.png MM --recipe 'line 9' SHAPE",
    "another scale": "fit ROI @images/good/1.png --mm-per-px 0.3 --recipe 'Line 9'",
    "not fitted": "infer Nobody Pattern @images/good MM",
    "evaluate": "evaluate @images/mvtec --out @evaluation --shots 1,2 --seeds 2",
    "migrate in a dry run": "migrate @old --dry-run",
    "migrate": "migrate @old",
    "migrate again": "migrate @old --no-refit",
}


@dataclass(frozen=True)
class CommandLine:
    """The command line of a checkout.

    Attributes:
        checkout: the checkout.
        folder: for what it reads and writes; an ``@`` in an argument stands for it.
        blanks: of the run.
    """

    checkout: Checkout
    folder: Path
    blanks: Blanks

    def text(self, command: str, says: Callable[[str], str] | None = None, **settings: str) -> str:
        """Run one command; its status, and what it printed.

        Args:
            command: what stands behind ``python -m backend``.
            says: what becomes of texts; default `Blanks.prose`.
            settings: environment variables.
        """
        for short, long in _SHORT.items():
            command = re.sub(rf"\b{short}\b", long, command)
        arguments = [argument.replace("@", f"{self.folder}/") for argument in shlex.split(command)]
        outcome = self.checkout.run(*arguments, **{"MODELS_DIR": str(self.folder / "models"), **settings})
        return text_of(outcome, self.blanks, says or self.blanks.prose)


def text_of(outcome: Outcome, blanks: Blanks, says: Callable[[str], str]) -> str:
    """The status, stdout and stderr of a command; of progress bars only what they are about."""
    stderr = _BAR.sub("\n", outcome.stderr)
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", stderr) if line.strip()]
    progress = list(dict.fromkeys(_BAR.findall(outcome.stderr)))
    parts = {
        "status": str(outcome.status),
        "stdout": _stdout(outcome.stdout, blanks, says),
        "progress": ", ".join(progress),
        "stderr": says("\n".join(lines)),
    }
    return "".join(f"--- {name}\n{text}\n" for name, text in parts.items() if text)


def _stdout(text: str, blanks: Blanks, says: Callable[[str], str]) -> str:
    lines = text.splitlines()
    if lines and all(line.startswith("{") for line in lines):
        return "\n".join(f"{pretty(blanks.json(parse(line)))}\nwritten as {layout_of(line)}" for line in lines)
    return says(_DURATION.sub("<measured> ms", text)).rstrip("\n")


def texts_of_help(line: CommandLine) -> dict[str, str]:
    """``--help`` of every command that the parser's own help names, and what wrong command lines get."""
    says = _help_without_sentences(line.blanks) if line.blanks.sentences else line.blanks.text
    overview = line.checkout.run("--help")
    names = _COMMANDS.search(overview.stdout)
    wanted: dict[str, Callable[[], str]] = {"help": partial(text_of, overview, line.blanks, says)}
    for name in names[1].split(",") if names else ():
        wanted[f"help of {name}"] = partial(line.text, f"{name} --help", says)
    for name, command in WRONG.items():
        wanted[f"wrong: {name}"] = partial(line.text, command)
    for name, settings in WRONG_SETTINGS.items():
        command = "weights" if "WEIGHTS" in settings else "serve"
        wanted[f"wrong setting: {name}"] = partial(line.text, command, None, **settings)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        texts = list(pool.map(lambda text: text(), wanted.values()))
    return dict(zip(wanted, texts, strict=True))


def _help_without_sentences(blanks: Blanks) -> Callable[[str], str]:
    return lambda text: help_without_sentences(blanks.text(text)) if text else ""


def texts_of_runs(line: CommandLine) -> dict[str, str]:
    """Whole folders: fit, calibrate, infer, versions, rollback, evaluate and migrate; what is printed."""
    _write_images(line.folder / _IMAGES)
    write_folder_to_migrate(line.folder / "old")
    return {name: line.text(command) for name, command in RUNS.items()}


def texts_of_written(line: CommandLine) -> dict[str, str]:
    """What the runs wrote, and the older models, which nobody changes."""
    texts = texts_of_files(line.folder, line.blanks)
    return {name: text for name, text in texts.items() if not name.startswith(f"{_IMAGES}/")}


def _write_images(folder: Path) -> None:
    groups: dict[str, list[Image]] = {
        "good": [part(number) for number in range(1, 7)],
        "held-out": [part(number) for number in range(30, 34)],
        "bad": [scratched(number) for number in range(30, 34)],
    }
    for category, first in (("disc", 0), ("plate", 40)):
        groups |= {
            f"mvtec/{category}/train/good": [part(first + number) for number in range(5)],
            f"mvtec/{category}/test/good": [part(first + number) for number in range(10, 16)],
            f"mvtec/{category}/test/scratch": [scratched(first + number) for number in range(20, 25)],
        }
    for number in range(20, 25):
        mask = np.asarray(np.any(part(number) != scratched(number), axis=2) * 255, np.uint8)
        _write(folder / f"mvtec/disc/ground_truth/scratch/{number - 20}_mask.png", encoded(mask))
    for name, images in groups.items():
        for number, image in enumerate(images):
            _write(folder / name / f"{number}.png", encoded(image))
    for name, content in {
        "10.png": crop(10),
        "2.png": crop(20, scratched),
        "below/1.jpg": encoded(part(11), ".jpg"),
        "below/broken.png": crop(12)[:800],
        "below/notes.txt": b"no image",
        ".hidden.png": crop(13),
    }.items():
        _write(folder / "parts" / name, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
