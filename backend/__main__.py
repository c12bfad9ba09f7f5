"""The command line: ``python -m backend COMMAND``; see `_parser`."""

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import structlog
import uvicorn
from pydantic import BaseModel, ValidationError
from tqdm.contrib.logging import logging_redirect_tqdm

from backend import __version__
from backend.api.api_keys import OPEN, ApiKeys, is_loopback
from backend.api.connections import bounded
from backend.api.schemas.inspection import CalibrateFields, FitFields, InferFields, RoiIds, RollbackRequest
from backend.commands import scoring
from backend.commands.console import print_line, say
from backend.commands.migrate import migration
from backend.common.config import Settings, load_settings
from backend.common.errors import BackendError, ConfigError, InvalidRequest
from backend.common.logs import configure_logging
from backend.network.weights import find_weights
from backend.roi_mask import parse_shape

_ABOUT = "Visual anomaly detection: a service, and its commands for whole folders of images."
_ABOUT_EPILOG = """\
Settings are environment variables (MODELS_DIR, DEVICE, WEIGHTS, ...); backend/README_backend.md lists them all.
`python -m backend COMMAND --help` describes a command.
"""
_IMAGES = """
Images are canonical ROIs: PNG, JPEG, BMP or WebP files, already cropped and rotated. Folders are read with all that
is below them, in natural order (2.png before 10.png); other and hidden files in them are ignored."""
_RECORDS = """
FILE gets one record per image, each as soon as it is made. Given the same command again, a run goes on where it
stopped, even where it was killed. Records of another memory bank, calibration, --mm-per-px, --shape or of an image
that has changed are never mixed in: the run refuses, and you give another FILE or --restart."""
_FIT = f"""
{_IMAGES}
Replaces the memory bank of the ROI and prints what was built. One broken image fails the whole fit and leaves the old
model as it was. Stopped or killed, it goes on where it was when the same command is given again."""
_FIT_EPILOG = """\
example:
  python -m backend fit Master1 Pattern good/ --mm-per-px 0.2
"""
_CALIBRATE = f"""
{_IMAGES}
Scores the images, stores the threshold (the 99th percentile of the OK scores, or its midpoint with the 5th percentile
of the NG scores) and prints the calibration, with what it promises. OK images that were in the fit count with their
scores by the memory bank of the others, where these are known. If one image cannot be scored, nothing is calibrated.
{_RECORDS}"""
_CALIBRATE_EPILOG = """\
examples:
  python -m backend calibrate Master1 Pattern --ok held-out/ --mm-per-px 0.2
  python -m backend calibrate Master1 Pattern --ok held-out/ --ng bad/ --mm-per-px 0.2 --scores scores.csv
  python -m backend calibrate Master1 Pattern --ok held-out/ --mm-per-px 0.2 --target-false-reject-rate 0.02
"""
_INFER = f"""
{_IMAGES}
Every image gives one record: score, threshold, decision, regions, milliseconds, and an error where it failed. Without
--out, records are printed as JSON lines. The exit status is 1 if an image failed.
{_RECORDS}"""
_INFER_EPILOG = """\
examples:
  python -m backend infer Master1 Pattern parts/ --mm-per-px 0.2
  python -m backend infer Master1 Pattern parts/ --mm-per-px 0.2 --out results.csv --heatmaps maps/
  python -m backend infer Master1 Pattern parts/7.png --mm-per-px 0.2 | jq '{path, score, decision}'
"""
_EVALUATE = """
DATASET is a folder in MVTec layout, or holds several such folders: train/good, test/good, test/TYPE for every type of
defect, and masks in ground_truth/TYPE/NAME_mask.png if there are any.

Fits on train/good and scores the test images as the service would. The threshold comes from the training images alone.
Prints a table, and writes report.html, which opens offline, and results.json. MODELS_DIR is not touched."""
_EVALUATE_EPILOG = """\
examples:
  python -m backend evaluate hazelnut/
  python -m backend evaluate mvtec/ --shots 1,2,4,8,16 --seeds 3 --out results/
"""
_VERSIONS = """
Prints one JSON line for each, the newest first: its number, when and by what it was replaced, what it was built from,
and its threshold."""
_ROLLBACK = """
Serves an earlier model again, with the calibration that it had, and prints what is served now. The model before is
kept as the newest version, so that the same command without --version goes forward again."""
_ROLLBACK_EPILOG = """\
examples:
  python -m backend rollback Master1 Pattern
  python -m backend rollback Master1 Pattern --version 3
"""
_MIGRATE = """
Copies stored images with their metadata, keeps old calibrations as history, takes over what recipes are locked to, and
fits anew, from stored images, every ROI that has MIN_OK_SAMPLES good ones. Old models hold features of another kind:
they are never copied or compared. Old files stay as they are, and OLD_MODELS_DIR may be MODELS_DIR itself. Given again,
the command leaves what is done and goes on where it stopped.

Prints a report: what was found, and what was done. The exit status is 1 if anything failed."""
_MIGRATE_EPILOG = """\
examples:
  python -m backend migrate old-models/ --dry-run
  python -m backend migrate old-models/
"""

log: Any = structlog.get_logger(__name__)


_READY_POLL_S = 0.02
# Who signals a whole group, as systemd does, reaches us through make too.
_SAME_SIGTERM_S = 2.0


class _Server(uvicorn.Server):
    """Says what to try next once the service is ready, and ends at once where SIGTERM comes again, seconds later."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        drain = signal.getsignal(signal.SIGTERM)
        first: float | None = None

        def drain_or_end(number: int, frame: FrameType | None) -> None:
            nonlocal first
            if first is None:
                first = time.monotonic()
                if callable(drain):
                    drain(number, frame)
            elif time.monotonic() - first > _SAME_SIGTERM_S:
                os._exit(128 + number)

        signal.signal(signal.SIGTERM, drain_or_end)
        self._announcement = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        lifecycle = importlib.import_module("backend.app").app.state.lifecycle
        while lifecycle.status != "ok" and not self.should_exit:
            await asyncio.sleep(_READY_POLL_S)
        if not self.should_exit:
            host = "localhost" if self.config.host in ("0.0.0.0", "::") else self.config.host  # noqa: S104
            address = f"http://{f'[{host}]' if ':' in host else host}:{self.servers[0].sockets[0].getsockname()[1]}"
            print(
                f"\nReady at {address}. Next:",
                f"  {f'curl {address}/health':<38}is it well?",
                f"  {f'{address}/docs':<38}every endpoint, with examples to try",
                f"  {'make demo':<38}fit, calibrate and inspect real images\n",
                sep="\n",
                file=sys.stderr,
                flush=True,
            )


def serve(settings: Settings) -> None:
    """Serve on ``HOST:PORT`` until stopped.

    Raises:
        ConfigError: the address cannot be bound, or an API key cannot be used.
    """
    if not ApiKeys.of(settings) and not is_loopback(settings.host):
        log.warning("access.open", address=settings.host, reason=OPEN)
    http = bounded(settings.body_timeout_s)
    server = _Server(
        uvicorn.Config("backend.app:app", host=settings.host, port=settings.port, log_config=None, http=http)
    )
    try:
        server.run()
    except KeyboardInterrupt:
        return  # Ctrl-C is how to stop it
    except SystemExit as exc:  # uvicorn's way to say that it did not start; the log has the reason
        if server.lifespan.should_exit:
            raise
        raise ConfigError(f"cannot listen on HOST={settings.host} PORT={settings.port}") from exc
    if not server.started:
        sys.exit(3)


def weights(settings: Settings) -> None:
    """Find and verify the weights, and name the file.

    Raises:
        WeightsError: there are none.
    """
    found = find_weights(settings)
    print(f"{found.path} ({found.source}, sha256 {found.sha256})")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command of the command line.

    The exit status is 0, or 1: it failed, or an image did; 2: its arguments cannot be used; 130, 143: Ctrl-C, SIGTERM.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings()
        if options.command in ("serve", "weights"):
            configure_logging(settings.log_level, settings.log_format)
            options.run(settings)
        else:
            # Beside a progress bar what a log says at level info is noise, unless it was asked for.
            level = settings.log_level if "log_level" in settings.model_fields_set else "warning"
            configure_logging(level, settings.log_format)
            with logging_redirect_tqdm(), _sigterm_stops():
                options.run(settings, options)
    except InvalidRequest as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
    except BackendError as exc:
        sys.exit(str(exc))
    except KeyboardInterrupt as exc:
        sys.exit(143 if isinstance(exc, _Terminated) else 130)


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which stops a bulk command as cleanly as Ctrl-C does."""


@contextlib.contextmanager
def _sigterm_stops() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fit(settings: Settings, options: argparse.Namespace) -> None:
    fields = _fields(
        FitFields,
        options,
        memory_fit=options.keep_all,
        append=options.append,
        thumbnails=options.thumbnails,
        shape=options.shape,
    )
    print_line(json.dumps(scoring.fit(settings, fields, options.images)))


def _calibrate(settings: Settings, options: argparse.Namespace) -> None:
    fields = _fields(
        CalibrateFields,
        options,
        area_mm2_thr=options.area_mm2_thr,
        score_percentile=options.score_percentile,
        target_false_reject_rate=options.target_false_reject_rate,
    )
    shape = parse_shape(options.shape)
    calibration = scoring.calibrate(
        settings,
        fields,
        shape,
        options.ok,
        options.ng,
        scores=options.scores,
        restart=options.restart,
        choose=options.choose_percentile,
    )
    print_line(json.dumps(calibration))


def _infer(settings: Settings, options: argparse.Namespace) -> None:
    fields = _fields(InferFields, options, shape=options.shape)
    n_failed = scoring.infer(
        settings, fields, options.images, out=options.out, heatmaps=options.heatmaps, restart=options.restart
    )
    if n_failed:
        sys.exit(1)


def _evaluate(settings: Settings, options: argparse.Namespace) -> None:
    from backend.commands.evaluate import evaluation, page  # what they need takes a second to import

    if options.percentile is not None:
        settings = load_settings(score_percentile=options.percentile)
    out = options.out or Path(f"evaluation-{Path(options.dataset).resolve().name}")
    is_new = not out.exists()
    try:  # before minutes are spent
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise InvalidRequest(f"--out {out}: the folder cannot be made ({exc.strerror})") from exc
    try:
        result = evaluation.evaluate(settings, options.dataset, shots=options.shots, n_seeds=options.seeds)
        page.write_results(result, out)
    except BaseException as exc:
        if is_new:
            with contextlib.suppress(OSError):  # a file was put there meanwhile
                out.rmdir()
        if isinstance(exc, KeyboardInterrupt):
            say("stopped; nothing was written")
        raise
    print_line(page.as_text(result))
    try:
        page.write_page(result, out)
    except BaseException:  # minutes later, images may be gone
        say(f"wrote {out / page.RESULTS}, but not {page.PAGE}")
        raise
    say(f"wrote {out / page.PAGE} and {out / page.RESULTS}")


def _versions(settings: Settings, options: argparse.Namespace) -> None:
    fields = _fields(RoiIds, options)
    versions = scoring.versions(settings, fields)
    for version in versions:
        print_line(json.dumps(version))
    if not versions:
        say(f"no earlier model of {fields.role_id!r}, {fields.roi_id!r} is kept")


def _rollback(settings: Settings, options: argparse.Namespace) -> None:
    fields = _fields(RollbackRequest, options, version=options.number)
    print_line(json.dumps(scoring.roll_back(settings, fields)))


def _migrate(settings: Settings, options: argparse.Namespace) -> None:
    if migration.migrate(settings, options.old, dry_run=options.dry_run, refit=not options.no_refit):
        sys.exit(1)


def _percentile(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) <= 100:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, at most 100")


def _natural_number(text: str) -> int:
    with contextlib.suppress(ValueError):
        if (value := int(text)) >= 1:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")


def _natural_numbers(text: str) -> list[int]:
    return sorted({_natural_number(item) for item in text.split(",")})


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of descriptions and examples, and gives options the room that ours need."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=120)


Fields = TypeVar("Fields", bound=BaseModel)
_ARGUMENTS = {"role_id": "ROLE", "roi_id": "ROI", "recipe_id": "--recipe"}


def _fields(model: type[Fields], options: argparse.Namespace, **others: Any) -> Fields:
    """The fields as over HTTP, by the same rules.

    Raises:
        InvalidRequest: one of them is out of range; the message names the argument.
    """
    given = {name: getattr(options, name, None) for name in ("role_id", "roi_id", "recipe_id", "mm_per_px")}
    values = {name: value for name, value in given.items() if name in model.model_fields} | others
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        names = [str(item["loc"][0]) for item in exc.errors()]
        arguments = [_ARGUMENTS.get(name, f"--{name.replace('_', '-')}") for name in names]
        problems = zip(arguments, exc.errors(), strict=True)
        raise InvalidRequest("; ".join(f"{argument}: {item['msg']}" for argument, item in problems)) from exc


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description=_ABOUT,
        epilog=_ABOUT_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Any, summary: str, text: str = "", epilog: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.{text}",
            epilog=epilog,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
        )
        added.set_defaults(run=run)
        return added

    command("serve", serve, "serve on HOST:PORT until stopped")
    command("weights", weights, "find and verify the weights of the network")

    fit = command("fit", _fit, "learn what good parts look like", _FIT, _FIT_EPILOG)
    _add_roi(fit)
    _add_images(fit)
    _add_shape(fit)
    fit.add_argument("--keep-all", action="store_true", help="keep every embedding instead of a coreset")
    fit.add_argument("--append", action="store_true", help="keep the memory bank and add what it lacks of these images")
    fit.add_argument("--thumbnails", action="store_true", help="keep a small picture of every image, for /explain")

    calibrate = command("calibrate", _calibrate, "choose the threshold of a ROI", _CALIBRATE, _CALIBRATE_EPILOG)
    _add_roi(calibrate)
    calibrate.add_argument("--ok", metavar="PATH", nargs="+", required=True, help="good parts that were not in the fit")
    calibrate.add_argument("--ng", metavar="PATH", nargs="+", default=[], help="defective parts, if there are any")
    _add_shape(calibrate)
    calibrate.add_argument("--area-mm2-thr", metavar="MM2", help="smallest region in mm²; default AREA_MM2_THR")
    calibrate.add_argument(
        "--score-percentile", metavar="P", help="percentile of the map that is the score; default SCORE_PERCENTILE"
    )
    calibrate.add_argument(
        "--choose-percentile",
        action="store_true",
        help="choose the percentile that separates --ok from --ng best: 99 unless another does by more than chance",
    )
    calibrate.add_argument(
        "--target-false-reject-rate",
        metavar="RATE",
        help="choose the threshold so that the next good part is rejected with this probability at most",
    )
    calibrate.add_argument(
        "--scores", metavar="FILE", type=Path, help="keep the scores in FILE (.jsonl or .csv), to go on after a stop"
    )
    _add_restart(calibrate)

    infer = command("infer", _infer, "score images, and judge them by the calibration", _INFER, _INFER_EPILOG)
    _add_roi(infer)
    _add_images(infer)
    _add_shape(infer)
    infer.add_argument(
        "--out", metavar="FILE", type=Path, help="write the records to FILE (.jsonl or .csv), to go on after a stop"
    )
    infer.add_argument("--heatmaps", metavar="FOLDER", type=Path, help="write each heatmap to FOLDER/PATH.png")
    _add_restart(infer)

    evaluate = command(
        "evaluate", _evaluate, "measure how good the service is on a data set", _EVALUATE, _EVALUATE_EPILOG
    )
    evaluate.add_argument("dataset", metavar="DATASET", help="folder in MVTec layout, or folder of such folders")
    evaluate.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where the results go; default evaluation-NAME, of the data set"
    )
    evaluate.add_argument(
        "--percentile",
        metavar="P",
        type=_percentile,
        help="percentile of the map that is the score; default SCORE_PERCENTILE",
    )
    evaluate.add_argument(
        "--shots",
        metavar="N,N,...",
        type=_natural_numbers,
        default=[],
        help="also with so few training images, drawn at random",
    )
    evaluate.add_argument(
        "--seeds", metavar="N", type=_natural_number, default=1, help="draws for each of --shots; default 1"
    )

    _add_ids(command("versions", _versions, "list what a model was before its last changes", _VERSIONS))
    rollback = command("rollback", _rollback, "serve an earlier model of a ROI again", _ROLLBACK, _ROLLBACK_EPILOG)
    _add_ids(rollback)
    rollback.add_argument("--version", dest="number", metavar="N", type=int, help="its number; default: the newest")

    migrate = command(
        "migrate", _migrate, "bring what an older backend stored into MODELS_DIR", _MIGRATE, _MIGRATE_EPILOG
    )
    migrate.add_argument("old", metavar="OLD_MODELS_DIR", type=Path, help="models folder of the older backend")
    migrate.add_argument("--dry-run", action="store_true", help="write nothing, and report what would be done")
    migrate.add_argument("--no-refit", action="store_true", help="fit nothing anew, and load no network")
    return parser


def _add_ids(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("role_id", metavar="ROLE", help="inspection role, as the GUI names it")
    parser.add_argument("roi_id", metavar="ROI", help="region of interest within the role")
    parser.add_argument("--recipe", dest="recipe_id", metavar="NAME", help="recipe of the ROI; default: none")


def _add_roi(parser: argparse.ArgumentParser) -> None:
    _add_ids(parser)
    parser.add_argument("--mm-per-px", required=True, metavar="MM", help="millimetres per pixel of the images")


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="PATH", nargs="+", help="image, or folder with all images below it")


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shape",
        metavar="JSON",
        help='mask in pixels of each image, such as {"kind":"circle","cx":128,"cy":128,"r":120}',
    )


def _add_restart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--restart", action="store_true", help="forget what is in FILE and begin anew")


if __name__ == "__main__":
    main()
