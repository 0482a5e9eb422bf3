"""`python -m stream` is `fraudstream`."""

from stream.cli import main

if __name__ == "__main__":
    main()
