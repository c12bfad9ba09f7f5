"""The inputs of a calibration, in a file beside it, so that it can be repeated: scores, names and the rule.

``calib.<hash>.scores.json`` is named after the bytes of the ``calib.json`` that it belongs to. It is written before
that file is renamed, so a reader finds the scores of this calibration or none, but never those of another.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from backend.calib import CONTRACT_RULE, ThresholdOptions
from backend.common.files import MAX_JSON_FILE_BYTES, delete, read_small, read_whole
from backend.disk.layout import CALIBRATION_FILE

_FORMAT_VERSION = 1
_SUFFIX = ".scores.json"
_HASH_CHARACTERS = 16
# Of both classes. A file of more would be larger than files of JSON may be, and take seconds.
MOST_SCORES = 10_000


@dataclass(frozen=True)
class ScoredImage:
    """An image, as it counts in a calibration.

    Attributes:
        score: of the image.
        name: of its file; None if only scores were sent.
        uploaded_as: original name of a stored image.
        identity: identity by which it is recognised: see `BankImage.identity`; None if unknown.
    """

    score: FiniteFloat
    name: str | None = None
    uploaded_as: str | None = None
    identity: str | None = None


@dataclass(frozen=True)
class CalibrationInputs:
    """The inputs of a calibration, besides numbers that it records itself.

    Attributes:
        ok: good images, at least one, in order.
        ng: defective ones.
        options: how the threshold is chosen; `keep` and `not_good` are positions in `ok`.
        n_candidates, ok_are_fresh: as for `make_promise`.
    """

    ok: Annotated[tuple[ScoredImage, ...], Field(min_length=1)]
    ng: tuple[ScoredImage, ...] = ()
    options: ThresholdOptions = CONTRACT_RULE
    n_candidates: Literal[1, 6] = 1
    ok_are_fresh: bool | None = None

    @property
    def good(self) -> list[ScoredImage]:
        """The images of `ok` that count as good: those that `not_good` does not name."""
        left = set(self.options.not_good)
        return [image for position, image in enumerate(self.ok) if position not in left]

    def with_good(self, image: ScoredImage) -> "CalibrationInputs":
        """The same with an image that a person calls good; one that already counts keeps its score and its place."""
        position = position_of(self.ok, image)
        ok = self.ok if position is not None else (*self.ok, image)
        place = len(ok) - 1 if position is None else position
        keep = {*self.options.keep, place} if self.options.rule == "recommended" else self.options.keep
        not_good = set(self.options.not_good) - {place}
        options = replace(self.options, keep=tuple(sorted(keep)), not_good=tuple(sorted(not_good)))
        return replace(self.without_defective(image), ok=ok, options=options)

    def without_defective(self, image: ScoredImage) -> "CalibrationInputs":
        """The same, with an image removed from the defective ones."""
        return replace(self, ng=tuple(other for other in self.ng if not _is_same(other, image)))

    def with_defective(self, image: ScoredImage) -> "CalibrationInputs":
        """The same with an image that a person calls defective; one that already counts so keeps its score."""
        options, position = self.options, position_of(self.ok, image)
        if position is not None:
            keep, not_good = set(options.keep) - {position}, {*options.not_good, position}
            options = replace(options, keep=tuple(sorted(keep)), not_good=tuple(sorted(not_good)))
        is_new = position_of(self.ng, image) is None
        return replace(self, ng=(*self.ng, image) if is_new else self.ng, options=options)


_INPUTS: TypeAdapter[CalibrationInputs] = TypeAdapter(CalibrationInputs)
_OPTIONS = {option.name for option in fields(ThresholdOptions)}


def position_of(images: Sequence[ScoredImage], image: ScoredImage) -> int | None:
    """The position of an image among others; None if it is not among them, or if its identity is unknown."""
    return next((position for position, other in enumerate(images) if _is_same(other, image)), None)


def inputs_path(calibration: Path, content: bytes) -> Path:
    """The path of the inputs of a calibration.

    Args:
        calibration: path of its ``calib.json``.
        content: of that.
    """
    digest = hashlib.sha256(content).hexdigest()[:_HASH_CHARACTERS]
    return calibration.with_name(f"{Path(CALIBRATION_FILE).stem}.{digest}{_SUFFIX}")


def is_of_inputs(name: str) -> bool:
    """Whether a file has such a name."""
    return name.startswith(f"{Path(CALIBRATION_FILE).stem}.") and name.endswith(_SUFFIX)


def inputs_bytes(inputs: CalibrationInputs) -> bytes | None:
    """The file of the inputs of a calibration; None if they are too many for a file."""
    if len(inputs.ok) + len(inputs.ng) > MOST_SCORES:
        return None
    options = {name: value for name, value in asdict(inputs.options).items() if value is not None}
    values = {"version": _FORMAT_VERSION, "options": options, "n_candidates": inputs.n_candidates}
    values |= {} if inputs.ok_are_fresh is None else {"ok_are_fresh": inputs.ok_are_fresh}
    values |= {"ok": [_as_json(image) for image in inputs.ok], "ng": [_as_json(image) for image in inputs.ng]}
    content = json.dumps(values, allow_nan=False).encode()
    return content if len(content) <= MAX_JSON_FILE_BYTES else None


def read_inputs(calibration: Path, content: bytes) -> CalibrationInputs | None:
    """The inputs of a calibration; None if they are not stored, damaged, or of a newer version.

    Args:
        calibration, content: as for `inputs_path`.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        values = json.loads(read_small(inputs_path(calibration, content), MAX_JSON_FILE_BYTES))
        if not isinstance(values, dict) or values.pop("version", None) != _FORMAT_VERSION:
            return None
        inputs = _INPUTS.validate_python(values)
        known = set(values.get("options", ())) <= _OPTIONS  # by a rule that is not known nothing is calibrated again
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError, ValidationError):
        return None
    return inputs if known else None


def with_inputs(calibration: Path, content: bytes, inputs: CalibrationInputs | None) -> dict[Path, bytes]:
    """The files of a calibration, in the form for `write_atomic`: the last one commits.

    Args:
        calibration: path of its ``calib.json``.
        content: of that.
        inputs: its inputs; None keeps nothing.
    """
    encoded = None if inputs is None else inputs_bytes(inputs)
    beside = {} if encoded is None else {inputs_path(calibration, content): encoded}
    return {**beside, calibration: content}


def tidy_inputs(folder: Path, calibrations: Sequence[Path]) -> None:
    """Delete inputs that no longer belong to a calibration; the caller holds the lock of the folder.

    Args:
        folder: of the model.
        calibrations: in this folder.

    Raises:
        OSError: something cannot be read or deleted.
    """
    own = {kept_inputs(calibration) for calibration in calibrations}
    for path in folder.glob(f"*{_SUFFIX}"):
        if is_of_inputs(path.name) and path not in own:
            delete(path)


def kept_inputs(calibration: Path) -> Path | None:
    """The stored inputs of a calibration; None if there are none.

    Raises:
        OSError: the calibration cannot be read.
    """
    try:
        path = inputs_path(calibration, read_whole(calibration))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return path if path.exists() else None


def _is_same(one: ScoredImage, other: ScoredImage) -> bool:
    return one.identity is not None and one.identity == other.identity


def _as_json(image: ScoredImage) -> dict[str, Any]:
    texts = {"name": image.name, "uploaded_as": image.uploaded_as, "identity": image.identity}
    # Names of files may be any bytes.
    known = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items() if text is not None}
    return {"score": image.score, **known}
