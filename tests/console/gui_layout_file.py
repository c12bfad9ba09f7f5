"""A layout of the existing GUI, drawn from its description: the keys and the enums that are integers."""

import copy
from typing import Any

RECT, CIRCLE, ANNULUS = 0, 1, 2


def roi_model(shape: int, role: int, x: float, y: float, **sizes: Any) -> dict[str, Any]:
    """A geometry as the GUI writes it: X, Y and CX, CY are the centre."""
    return {
        "Id": "3f2a",
        "Label": None,
        "Shape": shape,
        "Role": role,
        "AngleDeg": 0,
        "X": x,
        "Y": y,
        "Width": 0,
        "Height": 0,
        "CX": x,
        "CY": y,
        "R": 0,
        "RInner": 0,
        "BaseImgW": 640,
        "BaseImgH": 480,
    } | sizes


def config(slot: int, **changes: Any) -> dict[str, Any]:
    """Name and switches of a place."""
    return {
        "Index": slot,
        "DisplayName": f"Inspection {slot}",
        "Id": f"Inspection_{slot}",
        "Name": f"Inspection {slot}",
        "Enabled": False,
        "ModelKey": f"inspection-{slot}",
        "DatasetPath": f"C:\\Recipes\\Line\\Dataset\\Inspection_{slot}",
        "TrainMemoryFit": False,
        "ThresholdDefault": 0.5,
        "AnchorMaster": 1,
        "BaseImgW": 640,
        "BaseImgH": 480,
        "Threshold": 0.4217,
        "Shape": RECT,
    } | changes


_LAYOUT: dict[str, Any] = {
    "Master1Pattern": roi_model(RECT, 0, 100, 90, Width=60, Height=40),
    "Master1PatternImagePath": "C:\\Recipes\\Line\\Master\\front.png",
    "Master1Search": roi_model(RECT, 1, 100, 90, Width=180, Height=160),
    "Master2Pattern": roi_model(RECT, 2, 0, 0),
    "Master2Search": roi_model(RECT, 3, 0, 0),
    "Inspection1": roi_model(RECT, 4, 300.5, 200.25, Width=181, Height=120.5, AngleDeg=17),
    "Inspection2": roi_model(ANNULUS, 4, 420, 300, Width=160, Height=160, R=80, RInner=30.5),
    "Analyze": {"PosTolPx": 50, "AngTolDeg": 0.5, "ScaleLock": True, "RotRange": 10, "ThrM1": 85},
    "Ui": {"HeatmapOverlayOpacity": 0.6},
    "InspectionBaselinesByImage": {
        "a1b2": [roi_model(RECT, 4, 301, 201, Id="Inspection_1"), roi_model(ANNULUS, 4, 421, 300, Id="Inspection_2")]
    },
    "InspectionRois": [
        config(1, Name="Lid", Enabled=True),
        config(2, Name="Ring", Enabled=False, Shape=ANNULUS),
        config(3),
        config(4),
    ],
    "OfALaterVersion": {"answer": [4, 2]},
}


def gui_layout(**changes: Any) -> dict[str, Any]:
    """A whole layout with two ROIs, one of them switched off, and masters."""
    return copy.deepcopy(_LAYOUT) | changes
