"""The bucket of the store: make it, save it to a folder, load it from one.

The store is named as for boto3 (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ...), the bucket by ``GEOLOC_BUCKET``.
What is copied takes the place of what has its name; nothing is deleted.
"""

import os
import sys
from pathlib import Path

import s3fs
from fsspec.generic import rsync

USAGE = "usage: store.py make | save FOLDER | load FOLDER"


def main(words: list[str]) -> None:
    """Do what is asked."""
    bucket = f"s3://{os.environ.get('GEOLOC_BUCKET', 'geoloc')}"
    match words:
        case ["make"]:
            s3fs.S3FileSystem().makedirs(bucket, exist_ok=True)
        case ["save", folder]:
            Path(folder).mkdir(parents=True, exist_ok=True)
            _copy(bucket, Path(folder).resolve().as_uri())
        case ["load", folder]:
            s3fs.S3FileSystem().makedirs(bucket, exist_ok=True)
            _copy(Path(folder).resolve().as_uri(), bucket)
        case _:
            sys.exit(USAGE)


def _copy(source: str, target: str) -> None:
    rsync(source, target, update_cond="always")


if __name__ == "__main__":
    main(sys.argv[1:])
