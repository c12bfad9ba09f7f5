"""``python -m backend``: hands over to `backend.commands.main`."""

import sys

if __name__ == "__main__":
    try:
        from backend.commands.main import main
    except KeyboardInterrupt:  # it takes a moment
        sys.exit(130)
    main()
