"""Where the command ``geoloc`` starts."""

from geoloc_core.warm import hand_over


def main() -> None:
    """Hand the command over to a process that has the libraries loaded, if there is one, or run it."""
    hand_over()
    from geoloc_core.cli import main

    main()


if __name__ == "__main__":
    main()
