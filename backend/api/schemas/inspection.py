"""What a fit, an inference and an explanation are asked for, and what they reply."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from backend.api.schemas.common import MEMORY_ID, ModelReply, Reply, RoiFields, RoiReply, TellsUnknown, empty_is_none
from backend.common.profiles import ProfileName
from backend.infer import Region
from backend.service.pictures import HeatmapName, Wanted
from backend.service.results import InferResult

WARNING = "what was asked for and can hardly be meant, or had no effect"
HEATMAP_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


WantedHeatmap = Annotated[HeatmapName | None, BeforeValidator(empty_is_none)]
WANTED_HEATMAP = (
    "scale of the heatmap: contract stretches each image by itself; threshold is the same for all images of a "
    "calibration, floor(128 * distance / threshold), so that 128 and above is at or above the threshold"
)
WANTED_OVERLAY = "also overlay_png_base64: colour and regions with their mm² over the image"
OVERLAY = (
    "colour PNG of the uploaded image's size: the image, coloured at and above the threshold, with its regions "
    "and their mm²; with overlay, left out where there is no threshold"
)

UPLOADED_AS = "part7.png"
"""What examples of requests call the image that the examples of uploads store."""

UploadedAs = Annotated[
    str | None, Field(description="of a stored image the name that it came with", examples=[UPLOADED_AS])
]


class FitFields(RoiFields, TellsUnknown):
    """Form fields of ``POST /fit_ok`` beside the images."""

    memory_fit: bool = Field(False, description="keep every embedding instead of a coreset", examples=[False])
    use_dataset: bool = Field(False, description="fit on the stored OK images; then send no files", examples=[False])
    append: bool = Field(
        False, description="keep the memory bank that there is and add what it lacks of these images", examples=[False]
    )
    thumbnails: bool = Field(
        False, description="keep a small picture of every image with the memory, for /explain", examples=[False]
    )
    group_copies: bool = Field(
        False,
        description="count images that look nearly the same as one: none of them is another image to the others",
        examples=[False],
    )
    profile: ProfileName | None = Field(
        None,
        description="which tokens are compared, how distances become a map, and which score judges: contract, or "
        "recommended, which ranks defective parts better; default PROFILE, and with append that of the model",
        examples=[None],
    )
    shape: str | None = Field(
        None,
        description="mask in pixels of the images, as of /infer, within which ok_scores are made; stored images have "
        "their own",
        examples=[None],
    )

    @field_validator("profile", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return empty_is_none(value)

    @field_validator("memory_fit", "use_dataset", "append", "thumbnails", "group_copies", mode="before")
    @classmethod
    def _empty_is_false(cls, value: Any) -> Any:
        return False if value is None or (isinstance(value, str) and not value.strip()) else value


class InferFields(RoiFields, TellsUnknown):
    """Form fields of ``POST /infer`` beside the image."""

    shape: str | None = Field(
        None,
        description="mask in pixels of the uploaded image, as JSON: rect (x, y, w, h), circle (cx, cy, r) or annulus "
        '(cx, cy, r, r_inner), such as {"kind":"circle","cx":128,"cy":128,"r":120}',
        examples=[None],
    )
    trial: bool = Field(
        False, description="somebody tries an image: /drift does not count it as a part", examples=[False]
    )

    heatmap: WantedHeatmap = Field(None, description=WANTED_HEATMAP, examples=[None])
    overlay: bool = Field(False, description=WANTED_OVERLAY, examples=[False])
    why: bool = Field(
        False,
        description="say in words why the part is OK or NG; where regions decide, that is said anyway",
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
    """Form fields of ``POST /explain`` beside the image."""

    x: Annotated[int | None, BeforeValidator(empty_is_none)] = Field(
        None,
        ge=0,
        le=1_000_000,
        description="the pixel that is asked about, with y; default the regions",
        examples=[None],
    )
    y: Annotated[int | None, BeforeValidator(empty_is_none)] = Field(
        None, ge=0, le=1_000_000, description="the pixel that is asked about, with x", examples=[None]
    )
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
    def wanted(self) -> Wanted:
        """The pictures of the whole image; no heatmap that is not named."""
        return Wanted(self.heatmap, self.overlay)

    @property
    def point(self) -> tuple[int, int] | None:
        """(x, y), if a pixel is asked about."""
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
    """What a fit built."""

    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: the one there was is not applied any more; calibrate again", examples=["none"]
    )
    n_embeddings: int = Field(description="patch embeddings of all images", examples=[34816])
    coreset_size: int = Field(description="embeddings in the memory bank", examples=[697])
    memory_id: str = MEMORY_ID
    profile: ProfileName | None = Field(
        None, description="of the memory bank; left out for the contract's", examples=[None]
    )
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    ok_scores: list[float] | None = Field(
        None,
        description="score of each image by a memory bank of the others, in the order they were sent: what fresh good "
        "parts score; left out where there are no others, and where only a sample is scored (`ok_scores_sample`)",
        examples=[[0.43, 0.41, 0.47]],
    )
    ok_scores_sample: list[ScoredReply] | None = Field(
        None,
        description="instead of ok_scores, where there are too many images to score all: a random sample of them, each "
        "with its score by a memory bank of the others",
        examples=[None],
    )
    suspicious: list[SuspiciousReply] = Field(
        description="images that score far above the others: look at them before you trust the model", examples=[[]]
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
    """What replies say of a decision beside it, by name: where regions decide, or why was asked for."""
    calibration = result.calibration
    return {
        "decide_by": calibration.decide_by if calibration else None,
        "pixel_threshold": calibration.pixel_threshold if calibration else None,
        "why": result.why,
    }


def region_reply(region: Region) -> RegionReply:
    """A region, as clients read it."""
    return RegionReply(bbox=[region.x, region.y, region.w, region.h], **vars(region))


DecidedBy = Annotated[
    Literal["region", "either"] | None,
    Field(description="what decides, as it was calibrated; left out where the score does", examples=[None]),
]
PixelThreshold = Annotated[
    float | None,
    Field(description="regions are found at it; left out where the score decides: at threshold then", examples=[None]),
]
Why = Annotated[
    str | None,
    Field(
        description="why the part is OK or NG; left out where it was not asked for and the score decides",
        examples=["The score 0.61 reaches the threshold 0.55. 1 region reaches it: it has 10 mm²."],
    ),
]


class InferReply(RoiReply):
    """The judgement of one image."""

    score: float = Field(description="percentile of the masked distance map, 0..2", examples=[0.61])
    threshold: float | None = Field(None, description="left out before calibration", examples=[0.5512])
    decision: Literal["ok", "ng"] | None = Field(
        None,
        description="ng when score >= threshold, or as decide_by says; left out before calibration",
        examples=["ng"],
    )
    decide_by: DecidedBy = None
    pixel_threshold: PixelThreshold = None
    why: Why = None
    calibration: Literal["none", "applied", "stale"] = Field(
        description="stale: there is one, made for an earlier fit or another BLUR_SIGMA; it is not applied",
        examples=["applied"],
    )
    heatmap_png_base64: str | None = Field(
        None,
        description="8-bit grey PNG of the uploaded image's size, 0 outside the mask; left out with heatmap=threshold "
        "where there is no threshold",
        examples=[HEATMAP_EXAMPLE],
    )
    overlay_png_base64: str | None = Field(None, description=OVERLAY, examples=[None])
    regions: list[RegionReply]
    token_shape: list[int] = Field(description="token grid [rows, columns]", examples=[[32, 32]])
    warning: str | None = Field(None, description=WARNING)
    model: ModelReply


class GoodPatchReply(Reply):
    """The good patch that comes nearest to a place."""

    index: int = Field(description="which image of the fit, from 0", examples=[3])
    filename: str = Field(description="its name", examples=["part12.png"])
    uploaded_as: UploadedAs = None
    box: list[int] = Field(description="[x, y, w, h] in pixels of that image", examples=[[128, 72, 8, 8]])


class ReasonReply(Reply):
    """A place of an image, and the good patch that comes nearest to it."""

    x: int = Field(description="in pixels of the uploaded image", examples=[140])
    y: int = Field(examples=[80])
    region: int | None = Field(
        None, description="position among the regions of /infer; left out where none has the place", examples=[0]
    )
    box: list[int] = Field(description="its patch, [x, y, w, h]", examples=[[136, 80, 8, 8]])
    distance: float = Field(description="of the patch to the nearest good one, 0..2", examples=[0.83])
    good: GoodPatchReply | None = Field(
        None, description="left out for models of earlier versions, which do not know where their patches come from"
    )
    picture_png_base64: str | None = Field(
        None,
        description="the place, and to its right the good patch, where its image is stored or has a thumbnail",
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
    heatmap_png_base64: str | None = Field(None, description="with heatmap, as of /infer", examples=[None])
    overlay_png_base64: str | None = Field(None, description=OVERLAY, examples=[None])
    reasons: list[ReasonReply] = Field(
        description="of the eight largest regions, or of the worst place where there is none"
    )
    model: ModelReply
    warning: str | None = Field(None, description="as of /infer")
