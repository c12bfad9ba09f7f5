"""`inspect`: from folders of images to verdicts and one page, in one command."""
