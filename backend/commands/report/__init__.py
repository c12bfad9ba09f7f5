"""Pages of scored images that commands write: one file that opens offline."""
