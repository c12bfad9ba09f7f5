"""``watch``: a verdict for each picture that arrives in a folder is written and sent, and the file is moved away."""

import argparse
import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from backend.commands.arguments import Commands, add_command
from backend.commands.console import say
from backend.commands.excel import add_excel, excel_of
from backend.commands.watch.arrivals import Arrivals
from backend.commands.watch.delivery import Channel, Delivery
from backend.commands.watch.engine_judge import EngineJudge
from backend.commands.watch.journal import Journal
from backend.commands.watch.judges import Away, Judge
from backend.commands.watch.judging import Judging
from backend.commands.watch.layouts import Layout, read_layout
from backend.commands.watch.mqtt import Mqtt
from backend.commands.watch.results import Results
from backend.commands.watch.secrets import KEY, TOKEN, Secrets, in_header
from backend.commands.watch.service_judge import ServiceJudge
from backend.commands.watch.showing import Showing
from backend.commands.watch.verdicts import Word
from backend.commands.watch.watching import Places, Watching
from backend.commands.watch.webhook import Webhook
from backend.common.config import Settings
from backend.common.errors import InvalidRequest, NotReady
from backend.common.machine import STOP_SIGNAL
from backend.common.roi_key import DEFAULT_RECIPE, canonical_recipe
from backend.service.inspection import InspectionService

_TEXT = """

LAYOUT is a recipe whose ROIs were drawn in the console, or a file in the format of GET /layout. Each picture that
arrives in FOLDER is cropped exactly as in the console, byte for byte, and judged: NG if any ROI is NG, OK only if all
are OK, else NOT JUDGED. Without --url, this process judges, with the models in MODELS_DIR. With --url, a running
service judges.

A file is judged when its size and time have not changed for --settle seconds. No part is judged twice or lost over a
restart: FOLDER/.roi-anomaly-watch keeps the state. Nothing is sent anywhere without --webhook or --mqtt. Keys and
passwords come from the environment: WATCH_API_KEY, WATCH_WEBHOOK_TOKEN, WATCH_MQTT_USERNAME, WATCH_MQTT_PASSWORD."""
_EPILOG = """\
examples:
  %(prog)s "line 1" incoming/ --out results.csv --ok done/ok --ng done/ng --not-judged done/not-judged
  %(prog)s "line 1" incoming/ --url http://127.0.0.1:8000 --out results.jsonl --webhook http://mes.example/verdicts
  %(prog)s layout.json incoming/ --recipe "line 1" --copy --ng rejected/ --mqtt mqtts://broker.example/line-1/verdicts
  %(prog)s "line 1" incoming/ --once --out results.csv
"""
_STATE_NAME = ".roi-anomaly-watch"
_SETTLE_S = 1.0
_MOST_TRIES = 6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# How long messages are still sent before the command ends.
_LAST_S, _LAST_ONCE_S = 5.0, 30.0


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(commands, "watch", run, "judge the pictures that arrive in a folder", _TEXT, _EPILOG)
    parser.add_argument("layout", metavar="LAYOUT", help="recipe, or layout file (.json)")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where pictures arrive, including its subfolders")
    parser.add_argument(
        "--recipe", metavar="NAME", help="recipe of the ROIs in a layout file; default: the default recipe"
    )
    parser.add_argument("--url", metavar="URL", help="service that judges, such as http://127.0.0.1:8000")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the results to FILE (.csv or .jsonl)")
    parser.add_argument("--ok", metavar="DIR", type=Path, help="move files of parts that are OK to DIR")
    parser.add_argument("--ng", metavar="DIR", type=Path, help="move files of parts that are NG to DIR")
    parser.add_argument(
        "--not-judged", metavar="DIR", type=Path, help="move files of parts that were not judged to DIR"
    )
    parser.add_argument("--copy", action="store_true", help="copy files instead of moving them")
    parser.add_argument("--webhook", metavar="URL", help="post each verdict as JSON to URL")
    parser.add_argument(
        "--mqtt", metavar="URL", help="publish each verdict: mqtt://HOST:PORT/TOPIC, or mqtts:// for TLS"
    )
    parser.add_argument(
        "--settle",
        metavar="SECONDS",
        type=_seconds,
        default=_SETTLE_S,
        help="how long a file must stay unchanged before it is judged (%(default)s)",
    )
    parser.add_argument("--once", action="store_true", help="judge the pictures that are in FOLDER, and end")
    parser.add_argument("--state", metavar="FILE", type=Path, help=f"file of its state (FOLDER/{_STATE_NAME})")
    add_excel(parser)


def run(settings: Settings, options: argparse.Namespace) -> None:
    """Watch until stopped; with ``--once``, until nothing waits.

    Raises:
        InvalidRequest, StorageError, NotReady, BackendError: see `Watching.run`, and if the options cannot be used.
    """
    places = _places(options)
    secrets = Secrets()
    excel = excel_of(options, options.out, "--out")
    results = None if options.out is None else Results(options.out, excel)
    channels = _channels(options, secrets)
    with contextlib.ExitStack() as stack:
        stopping = stack.enter_context(_stopping())
        judge = _judge(settings, options, secrets)
        stack.callback(judge.close)
        layout = _layout(judge, options, stopping)
        if layout is None:
            return
        journal = Journal(options.state or places.folder / _STATE_NAME)
        stack.callback(journal.close)
        showing = stack.enter_context(Showing(journal, prints_results=results is None))
        deliveries = [Delivery(journal, channel, showing.say) for channel in channels]
        arrivals = Arrivals(places.folder, options.settle, list(places.by_verdict.values()), journal.is_known)
        judging = Judging(judge, layout, follows=not _is_file(options.layout), say=showing.say)
        watching = Watching(
            places,
            arrivals,
            judging,
            journal,
            results,
            deliveries,
            report=showing.report,
            say=showing.say,
            show=showing.show,
            stopping=stopping,
            settle_s=options.settle,
            once=options.once,
        )
        showing.begin(layout, places.folder, {delivery.channel.name for delivery in deliveries})
        for delivery in deliveries:
            delivery.start()
        try:
            watching.run()
        finally:
            deadline = time.monotonic() + (_LAST_ONCE_S if options.once else _LAST_S)
            for delivery in deliveries:
                delivery.close(max(0.0, deadline - time.monotonic()))
            showing.end(watching.tally)
        if options.once and (waiting := sum(journal.n_messages().get(one.name, 0) for one in channels)):
            raise NotReady(f"{waiting} messages did not arrive; the next run sends them", 1)


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM set the event, so that the current part is finished; a second signal ends at once.

    At the end of the block, the earlier handler of the signal runs. An ignored signal stays ignored, as ``nohup`` and
    background jobs of a shell need it.
    """
    stopping = threading.Event()
    came: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))
        if stopping.is_set():
            before[number](number, frame)
        stopping.set()

    for number in (int(signal.SIGINT), int(STOP_SIGNAL)):
        if callable(signal.getsignal(number)):
            before[number] = signal.signal(number, stop)
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number, frame in came[:1]:
        before[number](number, frame)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")


def _places(options: argparse.Namespace) -> Places:
    """Where files go.

    Raises:
        InvalidRequest: a folder cannot be used.
    """
    folder: Path = options.folder
    if not folder.is_dir():
        raise InvalidRequest(f"{folder}: no such folder")
    wanted: dict[Word, Path | None] = {"ok": options.ok, "ng": options.ng, "not_judged": options.not_judged}
    by_verdict = {word: path for word, path in wanted.items() if path is not None}
    if options.copy and not by_verdict:
        raise InvalidRequest("--copy needs a folder to copy to: give --ok, --ng or --not-judged")
    for path in by_verdict.values():
        if path.resolve() == folder.resolve() or path.resolve() in folder.resolve().parents:
            raise InvalidRequest(
                f"{path}: files cannot be moved into the folder that they come from: give a folder beside {folder} "
                "or below it"
            )
    return Places(folder, by_verdict, options.copy)


def _channels(options: argparse.Namespace, secrets: Secrets) -> list[Channel]:
    channels: list[Channel] = []
    if options.webhook is not None:
        channels.append(Webhook(options.webhook, in_header(secrets.watch_webhook_token, TOKEN)))
    if options.mqtt is not None:
        password = secrets.watch_mqtt_password
        channels.append(
            Mqtt(options.mqtt, secrets.watch_mqtt_username, password.get_secret_value() if password else None)
        )
    return channels


def _judge(settings: Settings, options: argparse.Namespace, secrets: Secrets) -> Judge:
    if options.url is not None:
        return ServiceJudge(options.url, in_header(secrets.watch_api_key, KEY))
    return EngineJudge(InspectionService.open(settings))


def _is_file(layout: str) -> bool:
    return layout.lower().endswith(".json")


def _layout(judge: Judge, options: argparse.Namespace, stopping: threading.Event) -> Layout | None:
    """The layout; None if the command was stopped before there was one.

    Raises:
        InvalidRequest, LayoutNotFound, PictureNotFound: there is no usable layout.
        NotReady: nobody answers, and waiting is useless.
    """
    if not _is_file(options.layout) and options.recipe is not None:
        raise InvalidRequest("--recipe needs a layout file: without a .json file, LAYOUT is the name of the recipe")
    wait_s, tries, told = _FIRST_WAIT_S, 1, ""
    while True:
        try:
            return _read(judge, options)
        except Away as exc:
            if exc.is_key or (options.once and tries >= _MOST_TRIES):
                raise NotReady(str(exc), round(wait_s)) from exc
            if str(exc) != told:
                told = str(exc)
                say(f"{told}. The command tries again until it works.")
        if stopping.wait(wait_s):
            return None
        wait_s, tries = min(2 * wait_s, _LONGEST_WAIT_S), tries + 1


def _read(judge: Judge, options: argparse.Namespace) -> Layout:
    if not _is_file(options.layout):
        recipe = canonical_recipe(options.layout) or DEFAULT_RECIPE
        return read_layout(judge.layout(recipe), recipe, f"the layout of recipe {recipe!r}", judge.template)
    try:
        content = Path(options.layout).read_bytes()
    except OSError as exc:
        raise InvalidRequest(f"{options.layout}: cannot be read ({exc.strerror})") from exc
    return read_layout(content, options.recipe, options.layout, judge.template)
