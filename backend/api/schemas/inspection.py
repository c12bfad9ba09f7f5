"""Requests and replies of fits, inferences and explanations."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from backend.api.schemas.common import (
    DETAIL,
    MEMORY_ID,
    ModelReply,
    Reply,
    RoiFields,
    RoiReply,
    TellsUnknown,
    empty_is_none,
)
from backend.common.profiles import DetailName, ProfileName
from backend.infer import Region
from backend.service.pictures import HeatmapName, Wanted
from backend.service.results import InferResult
from backend.tiles import MOST_DETAIL

WARNING = "what in the request is probably a mistake or had no effect"
HEATMAP_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


WantedHeatmap = Annotated[HeatmapName | None, BeforeValidator(empty_is_none)]
WANTED_HEATMAP = (
    "scale of the heatmap: contract stretches each image separately; threshold is the same for all images of a "
    "calibration, floor(128 * distance / threshold), so 128 and above is at or above the threshold"
)
WANTED_OVERLAY = "also return overlay_png_base64: the image with colour and with regions and their mm²"
OVERLAY = (
    "colour PNG of the uploaded image's size: the image, coloured at and above the threshold, with its regions and "
    "their mm²; only with overlay, left out if there is no threshold"
)

UPLOADED_AS = "part7.png"
"""What examples of requests call the image that the examples of uploads store."""

UploadedAs = Annotated[str | None, Field(description="original name of a stored image", examples=[UPLOADED_AS])]


class FitFields(RoiFields, TellsUnknown):
    """Form fields of ``POST /fit_ok`` besides the images."""

    memory_fit: bool = Field(False, description="keep every embedding instead of a coreset", examples=[False])
    use_dataset: bool = Field(False, description="fit on the stored OK images; send no files", examples=[False])
    append: bool = Field(
        False, description="keep the existing memory bank, and add what it lacks from these images", examples=[False]
    )
    thumbnails: bool = Field(
        False, description="keep a small picture of every image with the memory bank, for /explain", examples=[False]
    )
    group_copies: bool = Field(
        False,
        description="count images that look nearly the same as one image: they are not compared with each other",
        examples=[False],
    )
    profile: ProfileName | None = Field(
        None,
        description="profile: how embeddings, distance maps and scores are made; contract, or recommended, which "
        "ranks defective parts better; default: PROFILE, or with append the profile of the model",
        examples=[None],
    )
    detail: DetailName | None = Field(
        None,
        description="number N of overlapping tiles along each side of the ROI, 1 to 5, or auto: more tiles show "
        "smaller defects, and an image takes N² passes of the network; default: DETAIL, or with append the detail of "
        "the model",
        examples=[None],
    )
    smallest_defect_mm: Annotated[float | None, BeforeValidator(empty_is_none)] = Field(
        None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="length of the smallest defect that matters, in mm; detail=auto chooses by it, and detail_reason "
        "says how many tokens such a defect covers",
        examples=[None],
    )
    shape: str | None = Field(
        None,
        description="mask in pixels of the images, as in /infer, for ok_scores; stored images have their own masks",
        examples=[None],
    )

    @field_validator("profile", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return empty_is_none(value)

    @field_validator("detail", mode="before")
    @classmethod
    def _is_a_detail(cls, value: Any) -> Any:
        value = empty_is_none(value)
        text = str(value).strip()
        if value is None or text == "auto":
            return value if value is None else text
        if text not in {str(number) for number in range(1, MOST_DETAIL + 1)}:
            raise ValueError(f"a whole number from 1 to {MOST_DETAIL}, or auto")
        return int(text)

    @field_validator("memory_fit", "use_dataset", "append", "thumbnails", "group_copies", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if value is None or (isinstance(value, str) and not value.strip()) else value


class InferFields(RoiFields, TellsUnknown):
    """Form fields of ``POST /infer`` besides the image."""

    shape: str | None = Field(
        None,
        description="mask in pixels of the uploaded image, as JSON: rect (x, y, w, h), circle (cx, cy, r) or annulus "
        '(cx, cy, r, r_inner), such as {"kind":"circle","cx":128,"cy":128,"r":120}',
        examples=[None],
    )
    trial: bool = Field(False, description="a trial: /drift does not count the image as a part", examples=[False])
    part_id: Annotated[str | None, BeforeValidator(empty_is_none)] = Field(
        None,
        max_length=128,
        description="id of the part, the same if the request is sent again: /drift counts it once, /history lists it "
        "once",
        examples=[None],
    )
    heatmap: WantedHeatmap = Field(None, description=WANTED_HEATMAP, examples=[None])
    overlay: bool = Field(False, description=WANTED_OVERLAY, examples=[False])
    why: bool = Field(
        False,
        description="explain in words why the part is OK or NG; always done if regions decide",
        examples=[False],
    )

    @field_validator("trial", "overlay", "why", mode="before")
    @classmethod
    def _empty_is_no(cls, value: Any) -> Any:
        return False if isinstance(value, str) and not value.strip() else value

    @property
    def wanted(self) -> Wanted:
        """The pictures."""
        return Wanted(self.heatmap or "contract", self.overlay)


class ExplainFields(InferFields):
    """Form fields of ``POST /explain`` besides the image."""

    x: Annotated[int | None, BeforeValidator(empty_is_none)] = Field(
        None,
        ge=0,
        le=1_000_000,
        description="x of a pixel to explain, with y; default: the regions",
        examples=[None],
    )
    y: Annotated[int | None, BeforeValidator(empty_is_none)] = Field(
        None, ge=0, le=1_000_000, description="y of a pixel to explain, with x", examples=[None]
    )
    pictures: bool = Field(True, description="include a picture of each place", examples=[True])

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
    def wanted(self) -> Wanted:
        """The pictures of the whole image; a heatmap only if it is named."""
        return Wanted(self.heatmap, self.overlay)

    @property
    def point(self) -> tuple[int, int] | None:
        """(x, y), if a pixel is requested."""
        return None if self.x is None or self.y is None else (self.x, self.y)


class SuspiciousReply(Reply):
    """An image of a fit that may be defective."""

    index: int = Field(description="position among the images of the fit, from 0", examples=[2])
    filename: str = Field(examples=["part7.png"])
    uploaded_as: UploadedAs = None
    score: float = Field(examples=[0.93])


class ScoredReply(Reply):
    """An image of a fit, and its score by a memory bank of the others."""

    index: int = Field(description="position among the images of the fit, from 0", examples=[17])
    filename: str = Field(examples=["part18.png"])
    uploaded_as: UploadedAs = None
    score: float = Field(examples=[0.43])


class FitReply(RoiReply):
    """The result of a fit."""

    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: the previous calibration is no longer applied; calibrate again", examples=["none"]
    )
    n_embeddings: int = Field(description="number of patch embeddings of all images", examples=[34816])
    coreset_size: int = Field(description="number of embeddings in the memory bank", examples=[697])
    memory_id: str = MEMORY_ID
    profile: ProfileName | None = Field(
        None, description="profile of the memory bank; left out for the profile of the contract", examples=[None]
    )
    detail: int | None = Field(None, description=DETAIL, examples=[None])
    detail_reason: str | None = Field(
        None,
        description="reason for the detail; left out unless detail=auto or smallest_defect_mm was sent",
        examples=[None],
    )
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    ok_scores: list[float] | None = Field(
        None,
        description="score of each image by a memory bank of the others, in the order of the upload: what new good "
        "parts score; left out if there are no others, or if only a sample is scored (`ok_scores_sample`)",
        examples=[[0.43, 0.41, 0.47]],
    )
    ok_scores_sample: list[ScoredReply] | None = Field(
        None,
        description="instead of ok_scores, if there are too many images to score all: a random sample, each image "
        "with its score by a memory bank of the others",
        examples=[None],
    )
    suspicious: list[SuspiciousReply] = Field(
        description="images that score far above the others: check them before you trust the model", examples=[[]]
    )
    warning: str | None = Field(None, description=WARNING)


class RegionReply(Reply):
    """A connected defect, in pixels of the uploaded image."""

    bbox: list[int] = Field(description="[x, y, w, h]", examples=[[41, 100, 23, 17]])
    x: int = Field(examples=[41])
    y: int = Field(examples=[100])
    w: int = Field(examples=[23])
    h: int = Field(examples=[17])
    area_px: float = Field(examples=[250.0])
    area_mm2: float = Field(examples=[10.0])
    contour: list[list[int]] = Field(
        description="outer boundary [[x, y], …]", examples=[[[41, 100], [41, 116], [63, 100]]]
    )


def told_of(result: InferResult) -> dict[str, Any]:
    """Further members of replies with a decision, by name, if regions decide or ``why`` is requested."""
    calibration = result.calibration
    return {
        "decide_by": calibration.decide_by if calibration else None,
        "pixel_threshold": calibration.pixel_threshold if calibration else None,
        "why": result.why,
    }


def region_reply(region: Region) -> RegionReply:
    """A region, in the form of the reply."""
    return RegionReply(bbox=[region.x, region.y, region.w, region.h], **vars(region))


DecidedBy = Annotated[
    Literal["region", "either"] | None,
    Field(description="what decides, according to the calibration; left out if the score decides", examples=[None]),
]
PixelThreshold = Annotated[
    float | None,
    Field(
        description="threshold of the regions; left out if the score decides, because regions are then found at "
        "threshold",
        examples=[None],
    ),
]
Why = Annotated[
    str | None,
    Field(
        description="why the part is OK or NG; left out if it was not requested and the score decides",
        examples=["The score 0.61 reaches the threshold 0.55. 1 region reaches it: it has 10 mm²."],
    ),
]


class InferReply(RoiReply):
    """The judgement of one image."""

    score: float = Field(description="percentile of the masked distance map, 0..2", examples=[0.61])
    threshold: float | None = Field(None, description="left out before calibration", examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(
        None,
        description="ng if score >= threshold, or according to decide_by; left out before calibration",
        examples=["ng"],
    )
    decide_by: DecidedBy = None
    pixel_threshold: PixelThreshold = None
    why: Why = None
    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: the calibration belongs to an earlier fit or another BLUR_SIGMA and is not applied",
        examples=["applied"],
    )
    heatmap_png_base64: str | None = Field(
        None,
        description="8-bit grey PNG of the uploaded image's size, 0 outside the mask; left out with "
        "heatmap=threshold if there is no threshold",
        examples=[HEATMAP_EXAMPLE],
    )
    overlay_png_base64: str | None = Field(None, description=OVERLAY, examples=[None])
    regions: list[RegionReply]
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    warning: str | None = Field(None, description=WARNING)
    model: ModelReply


class GoodPatchReply(Reply):
    """The good patch that is nearest to a place."""

    index: int = Field(description="position of the image in the fit, from 0", examples=[3])
    filename: str = Field(description="name of the image", examples=["part12.png"])
    uploaded_as: UploadedAs = None
    box: list[int] = Field(description="[x, y, w, h] in pixels of that image", examples=[[128, 72, 8, 8]])


class ReasonReply(Reply):
    """A place of an image, and the good patch that is nearest to it."""

    x: int = Field(description="in pixels of the uploaded image", examples=[140])
    y: int = Field(examples=[80])
    region: int | None = Field(
        None, description="position among the regions of /infer; left out if the place is in none", examples=[0]
    )
    box: list[int] = Field(description="patch of the place, [x, y, w, h]", examples=[[136, 80, 8, 8]])
    distance: float = Field(description="distance of the patch to the nearest good one, 0..2", examples=[0.83])
    good: GoodPatchReply | None = Field(
        None, description="left out for models of earlier versions, which do not record the images of their patches"
    )
    picture_png_base64: str | None = Field(
        None,
        description="the place, and to its right the good patch, if its image is stored or has a thumbnail",
        examples=[HEATMAP_EXAMPLE],
    )


class ExplainReply(RoiReply):
    """The judgement of one image, and its reasons."""

    score: float = Field(examples=[0.61])
    threshold: float | None = Field(None, examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(None, examples=["ng"])
    decide_by: DecidedBy = None
    pixel_threshold: PixelThreshold = None
    why: Why = None
    calibration: Literal["none", "applied", "stale"] = Field(examples=["applied"])
    heatmap_png_base64: str | None = Field(
        None, description="only with heatmap, as in the reply to /infer", examples=[None]
    )
    overlay_png_base64: str | None = Field(None, description=OVERLAY, examples=[None])
    reasons: list[ReasonReply] = Field(
        description="reasons for the eight largest regions, or for the worst place if there is no region"
    )
    model: ModelReply
    warning: str | None = Field(None, description="as in the reply to /infer")
