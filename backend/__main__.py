"""``python -m backend``: hands over to `backend.commands.main`."""

from backend.commands.main import main

if __name__ == "__main__":
    main()
