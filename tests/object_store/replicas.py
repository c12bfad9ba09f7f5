"""A replica without its network: the stores that the use cases ask, over one place in an object store."""

from pathlib import Path
from unittest.mock import patch

from backend.disk.judgements import Judgement, NewJudgement
from backend.object_store.address import read_address
from backend.object_store.bucket import Bucket
from backend.object_store.catalog import Catalog
from backend.object_store.datasets import ObjectDatasetStore
from backend.object_store.drift import ObjectDriftFiles
from backend.object_store.judgements import ObjectJudgementFiles
from backend.object_store.layouts import ObjectLayoutStore
from backend.object_store.local_copy import LocalCopy
from backend.object_store.mirror import Mirror
from backend.object_store.models import ObjectModelHeaders, ObjectModelStore
from backend.object_store.recipes import ObjectRecipeStore
from backend.object_store.runs import ObjectRunBoard
from backend.object_store.units import model_unit
from tests.factories import KEY, calibration_of


class Replica:
    """The stores of one process.

    Args:
        url: of the place that it shares with others.
        folder: for its local copy.
        endpoint: of the store, as it reaches it.
        fresh_s, most: ``MODELS_FRESH_S`` and ``HISTORY``.
    """

    def __init__(self, url: str, folder: Path, endpoint: str, fresh_s: float = 0.0, most: int = 100) -> None:
        with patch.dict("os.environ", {"AWS_ENDPOINT_URL": endpoint}):
            self.bucket = Bucket(read_address(url, insecure=False))
        self.mirror = Mirror(self.bucket, LocalCopy(folder), fresh_s)
        self.catalog = Catalog(self.mirror, folder / "catalog")
        self.models = ObjectModelStore(self.mirror, self.catalog, 5, 1.0)
        self.headers = ObjectModelHeaders(self.mirror, 1.0)
        self.recipes = ObjectRecipeStore(self.mirror)
        self.datasets = ObjectDatasetStore(self.mirror, self.catalog)
        self.layouts = ObjectLayoutStore(self.mirror)
        self.drift = ObjectDriftFiles(self.mirror, self.catalog)
        self.judgements = ObjectJudgementFiles(self.mirror, most)
        self.runs = ObjectRunBoard(self.bucket)

    def close(self) -> None:
        self.mirror.close()

    def generation(self, key=KEY) -> int:
        """How often the models of a ROI were changed."""
        return self.mirror.look(model_unit(key), now=True).generation

    def calibrate(self, threshold: float, key=KEY) -> None:
        self.models.save_calibration(key, calibration_of(self.models.load(key), threshold))


def judgement(number, decision="ok", mark=None):
    """One judgement with its thumbnail."""
    found = Judgement(float(number), 0.25, 0.5, decision, 0.2, "memory", f"request-{number}")
    return NewJudgement(found, b"jpeg %d" % number, mark)
