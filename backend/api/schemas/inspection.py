"""What requests say, as pydantic models, with the examples that ``/docs`` shows; what they get back is in `replies`."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from backend.common.roi_key import MAX_RECIPE_CHARACTERS, RoiKey, canonical_recipe
from backend.utils import MAX_MM_PER_PX, MIN_MM_PER_PX

Identifier = Annotated[str, Field(min_length=1, max_length=128)]
_RecipeName = Annotated[str, Field(max_length=MAX_RECIPE_CHARACTERS)]
MillimetresPerPixel = Annotated[
    FiniteFloat,
    Field(
        ge=MIN_MM_PER_PX, le=MAX_MM_PER_PX, description="millimetres per pixel of the uploaded image", examples=[0.2]
    ),
]
Score = Annotated[FiniteFloat, Field(strict=True, ge=-1e6, le=1e6)]
# One bad score is named, and not a million of them.
Scores = Annotated[list[Score], Field(fail_fast=True)]


class _Fields(BaseModel):
    """Unknown fields are ignored: newer clients send more."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


def _zero_is_none(value: Any) -> Any:
    return None if isinstance(value, int | float) and value == 0 else value


def _or_zero(schema: dict[str, Any]) -> None:
    schema["anyOf"].append({"type": "number", "const": 0})


def _number(value: Any) -> Any:
    """In JSON a text or a truth value is no number, as in the OpenAPI document; in a form all is text."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("number", "Input should be a valid number")
    return value


_JsonNumber = BeforeValidator(_number)


def _empty_is_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


class RoiIds(_Fields):
    """What every request names."""

    role_id: Identifier = Field(description="inspection role, as the GUI names it", examples=["Master1"])
    roi_id: Identifier = Field(description="region of interest within the role", examples=["Pattern"])
    recipe_id: Annotated[_RecipeName | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="recipe (the GUI's layout), without regard to case; default is the header X-Recipe-Id, else none",
        examples=["line 1"],
    )
    model_key: Annotated[Annotated[str, Field(max_length=128)] | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="which model of the ROI, default is roi_id; of no effect without a recipe",
        examples=["Pattern"],
    )

    def roi_key(self, other_recipe: str | None = None) -> RoiKey:
        """The ROI that is meant.

        Args:
            other_recipe: recipe where the request names none.
        """
        return RoiKey(self.role_id, self.roi_id, canonical_recipe(self.recipe_id or "") or other_recipe, self.model_key)


class RoiFields(RoiIds):
    """What every request names that is about images of its own."""

    mm_per_px: MillimetresPerPixel


class FitFields(RoiFields):
    """Form fields of ``POST /fit_ok`` beside the images."""

    memory_fit: bool = Field(False, description="keep every embedding instead of a coreset", examples=[False])
    use_dataset: bool = Field(False, description="fit on the stored OK images; then send no files", examples=[False])
    append: bool = Field(
        False, description="keep the memory bank that there is and add what it lacks of these images", examples=[False]
    )
    thumbnails: bool = Field(
        False, description="keep a small picture of every image with the memory, for /explain", examples=[False]
    )
    shape: str | None = Field(
        None,
        description="mask in pixels of the images, as of /infer, within which ok_scores are made; stored images have "
        "their own",
        examples=['{"kind":"circle","cx":128,"cy":128,"r":120}'],
    )

    @field_validator("memory_fit", "use_dataset", "append", "thumbnails", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if value is None or (isinstance(value, str) and not value.strip()) else value


class InferFields(RoiFields):
    """Form fields of ``POST /infer`` beside the image."""

    shape: str | None = Field(
        None,
        description="mask in pixels of the uploaded image, as JSON: rect (x, y, w, h), circle (cx, cy, r) or annulus "
        "(cx, cy, r, r_inner)",
        examples=['{"kind":"circle","cx":128,"cy":128,"r":120}'],
    )


class ExplainFields(InferFields):
    """Form fields of ``POST /explain`` beside the image."""

    x: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="the pixel that is asked about, with y; default the regions",
        examples=[140],
    )
    y: int | None = Field(None, ge=0, le=1_000_000, description="the pixel that is asked about, with x", examples=[80])
    pictures: bool = Field(True, description="with a picture of each place", examples=[True])

    @field_validator("pictures", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return True if isinstance(value, str) and not value.strip() else value

    @model_validator(mode="after")
    def _both_or_neither(self) -> "ExplainFields":
        if (self.x is None) != (self.y is None):
            raise ValueError("send x and y, or neither")
        return self

    @property
    def place(self) -> tuple[int, int] | None:
        """(x, y), if a pixel is asked about."""
        return None if self.x is None or self.y is None else (self.x, self.y)


TargetRate = Annotated[FiniteFloat, Field(ge=1e-6, lt=1)]
_TARGET_RATE = (
    "choose the threshold so that the next good part is rejected with this probability at most, whatever the "
    "distribution of scores; default: p99 of OK, or its midpoint with p5 of NG"
)


class CalibrateFields(RoiFields):
    """What a calibration names beside its scores."""

    area_mm2_thr: Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    score_percentile: Annotated[FiniteFloat, Field(gt=0, le=100)] | None = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    target_false_reject_rate: TargetRate | None = Field(None, description=_TARGET_RATE, examples=[None])


class CalibrateRequest(CalibrateFields):
    """Body of ``POST /calibrate_ng``."""

    ok_scores: Scores = Field(
        min_length=1,
        max_length=1_000_000,
        description="scores of good parts from /infer",
        examples=[[0.41, 0.44, 0.39]],
    )
    ng_scores: Scores | None = Field(
        None, max_length=1_000_000, description="scores of defective parts, if there are any", examples=[[0.72, 0.66]]
    )
    memory_id: Annotated[Annotated[str, Field(max_length=128)] | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="memory bank that the scores came from, as /fit_ok and /infer name it; 409 if the ROI has another "
        "one by now. Without it the stored one is meant",
        examples=[None],
    )

    @field_validator("mm_per_px", "area_mm2_thr", "score_percentile", "target_false_reject_rate", mode="before")
    @classmethod
    def _are_numbers(cls, value: Any) -> Any:
        return _number(value)


Label = Annotated[
    Literal["ok", "ng"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]


class SampleClass(RoiIds):
    """Query of what is about one class of stored images."""

    label: Label = Field(description="good or defective", examples=["ok"])


class SampleName(SampleClass):
    """Query of what is about one stored image."""

    filename: str = Field(
        min_length=1,
        max_length=1000,
        description="its name in /datasets/list, or the filename in its metadata",
        examples=["20261122-210455-123456-1a2b3c4d.png"],
    )


class _DatasetRequest(RoiIds):
    default_mm_per_px: Annotated[MillimetresPerPixel | None, BeforeValidator(_zero_is_none), _JsonNumber] = Field(
        None,
        description="for images whose metadata does not say, of a recipe that is not locked; 0 is none",
        examples=[0.2],
        json_schema_extra=_or_zero,
    )


class CalibrateDatasetRequest(_DatasetRequest):
    """Body of ``POST /calibrate_dataset``."""

    score_percentile: Annotated[Annotated[int, Field(gt=0, le=100)] | None, _JsonNumber] = Field(
        None, description="percentile of the masked map that is the score; default SCORE_PERCENTILE", examples=[99]
    )
    area_mm2_thr: Annotated[Annotated[FiniteFloat, Field(ge=0, le=1e12)] | None, _JsonNumber] = Field(
        None, description="smallest region in mm²; default AREA_MM2_THR", examples=[1.0]
    )
    require_ng: Annotated[StrictBool, BeforeValidator(lambda value: True if value is None else value)] = Field(
        True, description="refuse without NG images", examples=[True]
    )
    target_false_reject_rate: Annotated[TargetRate | None, _JsonNumber] = Field(
        None, description=_TARGET_RATE, examples=[None]
    )
    choose_percentile: Annotated[StrictBool, BeforeValidator(lambda value: False if value is None else value)] = Field(
        False,
        description="choose the percentile that separates OK from NG images best, 99 unless another does so by more "
        "than chance; needs NG images",
        examples=[False],
    )


class InferDatasetRequest(_DatasetRequest):
    """Body of ``POST /infer_dataset``."""

    labels: list[Label] | None = Field(
        None, max_length=100, description="empty or left out: both", examples=[["ok", "ng"]]
    )
    include_heatmap: StrictBool = Field(False, description="with the heatmap of each image", examples=[False])


class RollbackRequest(RoiIds):
    """Body of ``POST /rollback``."""

    version: Annotated[Annotated[int, Field(ge=1, le=1_000_000_000)] | None, _JsonNumber] = Field(
        None, description="its number in /versions; left out: the newest", examples=[3]
    )


class DriftResetRequest(RoiIds):
    """Body of ``POST /drift/reset``."""

    reference: Literal["calibration", "production"] = Field(
        "calibration",
        description="what to compare with from now on: the OK scores of the calibration (409 where they are not "
        "known), or the parts that come next",
        examples=["calibration"],
    )
