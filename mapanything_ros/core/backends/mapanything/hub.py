# Copyright 2026 The mapanything_ros Authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Downloads MapAnything's weights from the Hugging Face hub; nothing that runs does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import errno
from pathlib import Path

from mapanything_ros.core.backends.mapanything.checkpoint import (
    APACHE,
    CONFIG,
    NEEDED,
    NON_COMMERCIAL,
)
from mapanything_ros.core.errors import MapAnythingRosError

# The model card names the licence, wherever the folder is carried.
FETCHED = [*NEEDED, 'README.md', 'LICENSE*']
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


class FetchError(MapAnythingRosError):
    """Weights cannot be fetched."""


def size_at_hub(name: str) -> int:
    """Return how much there is to fetch, in bytes; raise FetchError if it is no MapAnything."""
    with _hub_errors(name):
        from huggingface_hub import HfApi
        from huggingface_hub.utils import filter_repo_objects

        files = HfApi().model_info(name, files_metadata=True).siblings or []
        sizes = {file.rfilename: file.size or 0 for file in files}
        wanted = list(filter_repo_objects(sizes, allow_patterns=FETCHED))
    if CONFIG not in wanted or not any(file.endswith('.safetensors') for file in wanted):
        raise FetchError(f'{name} has no {CONFIG} or no safetensors, so it is no MapAnything: '
                         f'give {APACHE} or {NON_COMMERCIAL}')
    return sum(sizes[file] for file in wanted)


def download(name: str, folder: Path | None, again: bool = False) -> Path:
    """
    Fetch what is not there yet, or everything again, and return where it is.

    The client takes a file that is there for whole. Where the hub does not answer it returns what
    the folder holds, so the hub is to be asked before. Raises FetchError.
    """
    with _hub_errors(name):
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(
            name, local_dir=folder, allow_patterns=FETCHED, force_download=again))


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn what the hub's client raises into a FetchError."""
    try:
        yield
    except ImportError as error:
        raise FetchError(f'{error}: pip install huggingface_hub') from error
    except Exception as error:  # of httpx, requests or Rust, by the version of the client
        raise FetchError(_reason(error, name)) from error


def _reason(error: Exception, name: str) -> str:
    """Say in a sentence why a download failed, and what to do."""
    from huggingface_hub.utils import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    text = (str(error).splitlines() or [''])[0]
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT) or 'No space left' in str(error):
        return ('the disk is full: make room, or give --folder on another disk, and run this '
                'again; it goes on from here')
    if code in NOT_WRITABLE or (isinstance(error, OSError) and error.filename):
        return f'the weights cannot be written ({text}): give --folder a place where you may write'
    if isinstance(error, GatedRepoError):
        return (f'{name} is not open to all: ask for access at https://huggingface.co/{name} and '
                'log in (hf auth login)')
    if isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        return (f'the hub has no {name}: give {APACHE} or {NON_COMMERCIAL}, or log in if it is '
                'private (hf auth login)')
    if isinstance(error, OfflineModeIsEnabled):
        return 'HF_HUB_OFFLINE is set: unset it to fetch'
    if isinstance(error, HfHubHTTPError):
        return f'the hub refuses ({text}): run this again later'
    return (f'the hub cannot be reached ({type(error).__name__}: {text}): run this again, on a '
            'machine with network; it goes on from here')
