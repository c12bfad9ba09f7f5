"""Visual anomaly detection for inspection lines: PatchCore on a frozen DINOv2 ViT-S/14, served by FastAPI."""

__version__ = "1.0.0"
