"""Shows whether two checkouts behave alike: ``python -m harness.compare BEFORE AFTER``.

Both are run, each in processes of its own: ``/openapi.json``, the help of every command, hundreds of requests of all
generations of clients and with all kinds of mistakes, the files of models, the events of the log, and the command line
on whole folders. Differences are printed, and then the exit status is 1.
"""

import argparse
import difflib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from urllib.parse import quote

from harness.contract.blanks import digest
from harness.contract.checkout import Checkout
from harness.contract.collecting import Shown, shown_by

Texts = Mapping[str, str]

_LONGEST_NAME = 180


def differences(part: str, before: Texts, after: Texts) -> dict[str, list[str]]:
    r"""The items that differ, or that only one side has: by name, the lines of a unified diff.

    >>> differences("help", {"fit": "one\n", "infer": "same\n"}, {"fit": "two\n", "infer": "same\n"})
    {'fit': ['--- before/help/fit', '+++ after/help/fit', '@@ -1 +1 @@', '-one', '+two']}
    """
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return {name: list(_diff(f"{part}/{name}", before.get(name), after.get(name))) for name in names}


def _diff(name: str, old: str | None, new: str | None) -> Iterator[str]:
    return difflib.unified_diff(
        (old or "").splitlines(),
        (new or "").splitlines(),
        fromfile="nothing" if old is None else f"before/{name}",
        tofile="nothing" if new is None else f"after/{name}",
        lineterm="",
    )


def report(before: Shown, after: Shown) -> tuple[str, bool]:
    """What is to be said about two checkouts, and whether they behave alike."""
    rows, diffs, n_items, n_differ = [], [], 0, 0
    for part in dict.fromkeys([*before.parts, *after.parts]):
        old, new = before.parts.get(part, {}), after.parts.get(part, {})
        found = differences(part, old, new)
        count = len({*old, *new})
        rows.append(f"{part:<24} {count:>5} compared {len(found):>5} differ")
        diffs += ["", *chain.from_iterable(found.values())] if found else []
        n_items += count
        n_differ += len(found)
    broken = [f"{side}: {what}" for side, shown in (("before", before), ("after", after)) for what in shown.broken]
    alike = not n_differ and not broken
    last = (
        f"Both behave alike: {n_items} texts are the same, with the replies to {after.n_requests} requests, "
        f"the help of {_n_helps(after)} commands and {_n_files(after)} files."
        if alike
        else f"They differ: {n_differ} of {n_items} texts, and {len(broken)} broken promises."
    )
    return "\n".join([*rows, *diffs, *broken, "", last]), alike


def _n_helps(shown: Shown) -> int:
    return sum(name.startswith("help of ") for name in shown.parts["help"])


def _n_files(shown: Shown) -> int:
    return sum(len(texts) for part, texts in shown.parts.items() if part.startswith("files "))


def write(shown: Shown, folder: Path) -> None:
    """Write every text into a file, to look at with diff."""
    for part, texts in shown.parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / part / f"{file_name(name)}.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def file_name(name: str) -> str:
    """The file of an item.

    >>> file_name("404 delete ../a"), file_name(".drift/7") + "…"
    ('404 delete ..%2Fa', '%2Edrift%2F7…')
    """
    encoded = re.sub(r"^\.", "%2E", quote(name, safe=" ,:<>'@={}"))
    return encoded if len(encoded) <= _LONGEST_NAME else f"{encoded[:_LONGEST_NAME]} {digest(name.encode())[:8]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both, and print what differs; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m harness.compare", description=__doc__)
    parser.add_argument("before", metavar="BEFORE", type=Path, help="a checkout")
    parser.add_argument("after", metavar="AFTER", type=Path, help="the checkout that should behave like BEFORE")
    parser.add_argument(
        "--weights", metavar="FILE", type=Path, help="weights of the network; default: those that each checkout finds"
    )
    parser.add_argument("--blank-sentences", action="store_true", help="ignore sentences for people")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="write the texts to FOLDER/before and FOLDER/after")
    options = parser.parse_args(arguments)
    for folder in (options.before, options.after):
        if not (folder / "backend").is_dir():
            parser.error(f"{folder}: this is no checkout of the project")
    try:
        sides = _run(options)
    except RuntimeError as exc:
        print(exc, file=sys.stderr)
        return 1
    text, alike = report(sides["before"], sides["after"])
    print(text)
    return 0 if alike else 1


def _run(options: argparse.Namespace) -> dict[str, Shown]:
    sides = {}
    with tempfile.TemporaryDirectory(prefix="roi-anomaly-compare-") as folder:
        work = Path(folder) / "work"
        for side in ("before", "after"):
            work.mkdir()  # of the same name for both: so is every path that they print or store
            checkout = Checkout(getattr(options, side).resolve(), options.weights and options.weights.resolve())
            print(f"running {checkout.folder} …", file=sys.stderr, flush=True)
            sides[side] = shown_by(checkout, work, sentences=options.blank_sentences)
            shutil.rmtree(work)
            if options.keep:
                write(sides[side], options.keep / side)
    return sides


if __name__ == "__main__":
    sys.exit(main())
