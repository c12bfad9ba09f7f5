"""Names of folders: which belong to the system, and which suggest the kind of their images."""

import itertools
import re
from enum import Enum

# Thumbnails, recycle bins, snapshots and the like: of Synology, QNAP, Windows, macOS and Linux. Hidden folders, such as
# .Trash-1000, .thumbnails and .@__thumb, are never read either.
_SYSTEM = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@transcode", "@snapshot", "@sharesnap"),
        *("#recycle", "#snapshot", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("__macosx", "network trash folder", "temporary items", "lost+found", "found.000"),
    )
)
_ONLY_MASK = frozenset(
    (
        *("mask", "masks", "groundtruth", "groundtruths", "annotation", "annotations", "segmentation"),
        *("segmentations", "heatmap", "heatmaps", "mascara", "mascaras", "máscara", "máscaras", "maske", "masken"),
    )
)
_MASK = _ONLY_MASK | {"gt", "label", "labels", "labelled"}  # the latter may be parts, too
_DEFECTIVE = frozenset(
    (
        *("bad", "ng", "nok", "nio", "ko", "scrap", "faulty", "fault", "faults", "damaged", "damage", "broken"),
        *("defect", "defects", "defective", "defectives", "anomaly", "anomalies", "anomalous", "abnormal"),
        *("abnormals", "abnormality", "abnormalities", "reject", "rejects", "rejected", "rejection", "rejections"),
        *("fail", "fails", "failed", "failure", "failures", "notgood", "nogood", "notok", "nogo", "unacceptable"),
        *("scratch", "scratches", "scratched", "crack", "cracks", "cracked", "dent", "dents", "contamination"),
        *("defekt", "defekte", "anomalie", "anomalien", "fehler", "fehlerhaft", "ausschuss", "schlecht"),
        *("malo", "malos", "mala", "malas", "defecto", "defectos", "defectuoso", "defectuosos", "defectuosa"),
        *("defectuosas", "rechazo", "rechazos", "rechazado", "rechazados", "anomalia", "anomalias", "anomalía"),
        *("anomalías",),
    )
)
_TEST = frozenset(("test", "tests", "testing", "prueba", "pruebas"))
_GOOD = frozenset(
    (
        *("good", "ok", "okay", "normal", "io", "gut", "bueno", "buenos", "buena", "buenas", "defectless"),
        *("nondefective", "nondefect"),
    )
)
_NOT = frozenset(("no", "not", "non", "without", "free", "nicht", "ohne", "sin", "kein", "keine"))
_WORD = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class Kind(Enum):
    """The kind of images in a folder, by its name."""

    GOOD = "good parts"
    DEFECTIVE = "defective parts"
    TEST = "test images"
    MASK = "masks or labels"


def is_left_out(name: str) -> bool:
    """Whether a folder with this name is hidden or belongs to the system, so that it has no images of parts.

    >>> is_left_out("@eaDir"), is_left_out(".Trash-1000"), is_left_out("lot 7")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _SYSTEM


def is_of_masks(name: str) -> bool:
    """Whether a folder with this name contains masks, even if it was named as a folder of parts.

    >>> is_of_masks("ground_truth"), is_of_masks("labels")
    (True, False)
    """
    return not _ONLY_MASK.isdisjoint(_words(name))


def kind_of(name: str) -> Kind | None:
    """The kind of images in a folder with this name; None if the name does not show it.

    >>> kind_of("NOK_2"), kind_of("GroundTruth"), kind_of("test_public"), kind_of("not good"), kind_of("no defects")
    (<Kind.DEFECTIVE: 'defective parts'>, <Kind.MASK: 'masks or labels'>, <Kind.TEST: 'test images'>, \
<Kind.DEFECTIVE: 'defective parts'>, <Kind.GOOD: 'good parts'>)
    """
    words = _words(name)
    is_negated = not _NOT.isdisjoint(words)
    if words & _MASK:
        return Kind.MASK
    if words & _DEFECTIVE:
        return Kind.GOOD if is_negated and not words & _GOOD else Kind.DEFECTIVE
    if words & _TEST:
        return Kind.TEST
    if words & _GOOD:
        return Kind.DEFECTIVE if is_negated else Kind.GOOD
    return None


def _words(name: str) -> set[str]:
    single = _WORD.findall(_HUMP.sub(" ", name).casefold())
    # "ground_truth" and "n.i.O." are one word each
    return {*single, "".join(single), *map("".join, itertools.pairwise(single))}
