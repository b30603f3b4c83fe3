"""Where the output of a Dagster step goes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestration.compat import CapturedLogContext, LocalComputeLogManager
from orchestration.terminal import output_to


class FileLogs(LocalComputeLogManager):
    """Keeps the output of steps in files for the UI, and prints none of it on the terminal."""

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Mapping[str, Any]) -> "FileLogs":
        """Make it from ``dagster.yaml``."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        """Send both output streams to the step's files until the block ends."""
        out, err = (Path(self.get_captured_local_path(log_key, kind)) for kind in ("out", "err"))
        with output_to(out, err):
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()
