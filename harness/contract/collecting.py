"""Everything that a checkout shows, part by part: the document, the command line, replies, files and logs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.contract import access, generations, mistakes, models, questions, recipes
from harness.contract.blanks import Blanks
from harness.contract.checkout import Checkout
from harness.contract.client import Client, Step, collect
from harness.contract.commands import CommandLine, texts_of_help, texts_of_runs, texts_of_written
from harness.contract.files import texts_of_files
from harness.contract.logs import texts_of_log
from harness.contract.older_models import write_models

DOCUMENT: dict[str, Step] = {"openapi.json": lambda client: client.gui().get("/openapi.json")}
# In this order: later steps ask about what earlier ones stored.
OPEN: dict[str, Step] = {
    **questions.SERVICE,
    **questions.OLDER,
    **generations.GENERATIONS,
    **recipes.RECIPES,
    **recipes.STORED_IMAGES,
    **models.MODELS,
    **mistakes.FIELDS,
    **mistakes.IMAGES,
    **mistakes.JSON,
    **mistakes.RAW,
    **models.LONG_WORK,
}
_KEYS = {
    "API_KEYS": access.FULL,
    "INFER_KEYS": access.INFER,
    "TRACE": "false",
    "CORS_ORIGINS": "https://gui.example",
    "ALLOWED_HOSTS": "127.0.0.1",
    "LOG_LEVEL": "debug",
}
_LIMITS = {
    "MAX_FILE_MB": "0.05",
    "MAX_REQUEST_MB": "2",
    "MAX_JSON_MB": "0.1",
    "MAX_PIXELS": "90000",
    "MAX_FILES": "2",
    "KEEP_VERSIONS": "0",
    "BLOCK": "10",
    "CORESET_RATE": "0.5",
}


@dataclass
class Shown:
    """What a checkout shows.

    Attributes:
        parts: texts by their names, by the parts that are compared.
        n_requests: how many requests were sent.
        broken: promises that were not kept.
    """

    parts: dict[str, dict[str, str]] = field(default_factory=dict)
    n_requests: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Run:
    """One run of a checkout, in a folder for all that it stores."""

    checkout: Checkout
    work: Path
    blanks: Blanks
    shown: Shown

    def ask(self, name: str, steps: Mapping[str, Mapping[str, Step]], status: str = "ok", **settings: str) -> None:
        """Ask a service of its own, and keep the replies, by part, and the log."""
        with self.checkout.serving(self.work / f"{name}.log", status=status, **settings) as server:
            for part, of_part in steps.items():
                collected = collect(Client(server.host, server.port), of_part, self.blanks)
                self._part(part).update(collected.texts)
                self.shown.n_requests += collected.n_requests
                self.shown.broken += collected.broken
        texts = texts_of_log(server, self.blanks)
        self._part("logs").update({f"{name}: {what}": text for what, text in texts.items()})

    def _part(self, part: str) -> dict[str, str]:
        return self.shown.parts.setdefault(part, {})


def shown_by(checkout: Checkout, work: Path, *, sentences: bool) -> Shown:
    """Run everything.

    Args:
        checkout: what is looked at.
        work: an empty folder for models, logs and images; the same for all that are compared.
        sentences: whether sentences are blanked.

    Raises:
        RuntimeError: a service does not answer.
    """
    # A file that is named after a path of images has it without its first slash.
    words = {str(work): "<work>", str(work)[1:]: "<work>", str(checkout.folder): "<checkout>"}
    blanks = Blanks(words, sentences=sentences)
    shown = Shown()
    line = CommandLine(checkout, work / "commands", blanks)
    shown.parts["help"] = texts_of_help(line)
    run = _Run(checkout, work, blanks, shown)
    models_dir = work / "models"
    write_models(models_dir)
    keys_file = work / "keys"
    keys_file.write_text(f"# of the line\n{access.FILED}\n")
    run.ask("open", {"openapi": DOCUMENT, "replies": OPEN}, MODELS_DIR=str(models_dir))
    run.ask("keys", {"replies": access.KEYS}, MODELS_DIR=str(models_dir), API_KEYS_FILE=str(keys_file), **_KEYS)
    run.ask("limits", {"replies": access.LIMITS}, MODELS_DIR=str(work / "limits"), **_LIMITS)
    nothing = {"MODELS_DIR": str(work / "nothing"), "WEIGHTS": str(work / "nothing"), "RATE_LIMIT_PER_S": "0.01"}
    run.ask("no network", {"replies": access.WITHOUT_NETWORK}, status="failed", **nothing)
    within_limits = {f"limits: {name}": text for name, text in texts_of_files(work / "limits", blanks).items()}
    shown.parts["files of the service"] = {**texts_of_files(models_dir, blanks), **within_limits}
    shown.parts["commands"] = texts_of_runs(line)
    shown.parts["files of the commands"] = texts_of_written(line)
    return shown
