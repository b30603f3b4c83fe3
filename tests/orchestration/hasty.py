"""Dagster's daemon as a command, which looks every second what its sensors have to do, and not every five."""

from dagster._daemon import sensor
from dagster._daemon.cli import main

sensor.MIN_INTERVAL_LOOP_TIME = 1

if __name__ == "__main__":
    main()
