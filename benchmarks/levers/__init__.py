"""What raises accuracy: every lever on and off beside the service's defaults, on folders in MVTec layout."""
