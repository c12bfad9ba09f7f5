"""A hint for missing models: the contents of the models folder, because it may be the wrong one, or an id misspelt."""

from urllib.parse import unquote

from backend.commands.console import some
from backend.common.config import Settings
from backend.disk.layout import MEMORY_FILE


def what_is_fitted(settings: Settings) -> str:
    """The ROIs without a recipe that have a model there, in a few words."""
    if settings.models_url is not None:
        return "MODELS_URL names the object store that was asked"
    folder = settings.models_dir.resolve()
    if not folder.is_dir():
        return f"{folder} does not exist"
    fitted = sorted(folder.glob(f"*/*/{MEMORY_FILE}"))
    rois = [f"{unquote(path.parent.parent.name)} {unquote(path.parent.name)}" for path in fitted]
    return f"{folder} has {some(rois) if rois else 'no model yet'}"
