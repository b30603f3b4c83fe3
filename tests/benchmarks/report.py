"""What the benchmarks print: rows of Markdown tables, and the machine they ran on."""

import os
import platform


def row(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def machine() -> str:
    with open("/proc/cpuinfo") as lines:
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return f"{os.cpu_count()} cores, {name or platform.processor()}, Python {platform.python_version()}"
