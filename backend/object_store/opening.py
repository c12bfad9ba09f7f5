"""Opening a place in an object store: at the start, this checks whether the store can keep models at all."""

import atexit
from dataclasses import dataclass

from backend.common.config import Settings
from backend.common.errors import ConfigError
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
from backend.object_store.probe import probe
from backend.object_store.recipes import ObjectRecipeStore
from backend.object_store.runs import ObjectRunBoard


@dataclass(frozen=True)
class ObjectStores:
    """All stores in a place of an object store; see `backend.service.stores.Stores`."""

    bucket: Bucket
    catalog: Catalog
    models: ObjectModelStore
    headers: ObjectModelHeaders
    recipes: ObjectRecipeStore
    datasets: ObjectDatasetStore
    layouts: ObjectLayoutStore
    runs: ObjectRunBoard
    drift: ObjectDriftFiles
    judgements: ObjectJudgementFiles


def open_bucket(url: str, *, insecure: bool) -> Bucket:
    """A place in an object store that passed the check.

    Args:
        url: ``s3://bucket/prefix``.
        insecure: see `read_address`.

    Raises:
        ConfigError: the URL cannot be used, or the store cannot keep models.
        StoreUnavailable: it does not answer, or refuses.
    """
    bucket = Bucket(read_address(url, insecure=insecure))
    probe(bucket)
    return bucket


def open_object_stores(settings: Settings) -> ObjectStores:
    """The stores in ``MODELS_URL``; raises as `open_bucket`."""
    if settings.models_url is None:
        raise ConfigError("MODELS_URL is not set")
    bucket = open_bucket(settings.models_url, insecure=settings.models_url_insecure)
    copy = LocalCopy()
    mirror = Mirror(bucket, copy, settings.models_fresh_s)
    atexit.register(mirror.close)
    catalog = Catalog(mirror, copy.beside("catalog"))
    return ObjectStores(
        bucket,
        catalog,
        ObjectModelStore(mirror, catalog, settings.keep_versions, settings.blur_sigma),
        ObjectModelHeaders(mirror, settings.blur_sigma),
        ObjectRecipeStore(mirror),
        ObjectDatasetStore(mirror, catalog),
        ObjectLayoutStore(mirror),
        ObjectRunBoard(bucket),
        ObjectDriftFiles(mirror, catalog),
        ObjectJudgementFiles(mirror, settings.history),
    )
