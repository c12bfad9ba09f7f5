"""A section with a few scored images, as any command may show it."""

from backend.commands.report.content import Card, Decided, Mark, Pictures, Scale, ScoredImage, Section, Words
from backend.commands.report.rendering import render

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
WORDS = Words(
    {"train": "training image", "good": "good part", "defective": "defective part"},
    ng=Decided("rejected", "is rejected", "are rejected"),
    ok=Decided("passed", "passes", "pass"),
)
IMAGES = [
    *(ScoredImage(f"train/{n}.png", "train", "train", score) for n, score in enumerate((0.2, 0.25, 0.3, 0.55))),
    *(ScoredImage(f"good/{n}.png", "good", "good", score) for n, score in enumerate((0.22, 0.31, 0.47, 0.52))),
    *(ScoredImage(f"bent/{n}.png", "defective", "bent", score) for n, score in enumerate((0.45, 0.7))),
    *(ScoredImage(f"hole/{n}.png", "defective", "hole", score) for n, score in enumerate((0.35, 0.9, 0.95))),
]


def card(image):
    return Card(image, Pictures(PIXEL, PIXEL, PIXEL, 1, 1))


def section(threshold=0.5, images=IMAGES, **changes):
    marks = [] if threshold is None else [Mark("contract rule", threshold), Mark("recommended rule", 0.4)]
    return Section(
        **{
            "name": "part",
            "words": WORDS,
            "images": images,
            "threshold": threshold,
            "marks": marks,
            "remarks": ["Look at <this>"],
            "facts": ["4 training images."],
            "suspicious": [card(IMAGES[3])],
            "cards": [card(image) for image in images if image.kind != "train"],
            "scale": Scale(0.1, 1.0, "red"),
            **changes,
        }
    )


def html(*sections):
    return render("tests.commands.report", "plain.html.j2", sections)
