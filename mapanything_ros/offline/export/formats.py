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

"""The kinds of files that a finished map can be written as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mapanything_ros.core.errors import InputError
from mapanything_ros.core.libraries import require_libraries
from mapanything_ros.core.map.export import write_cloud
from mapanything_ros.offline.export.clouds import write_las, write_xyz
from mapanything_ros.offline.export.colmap_model import write_colmap
from mapanything_ros.offline.export.finish import Finished
from mapanything_ros.offline.export.meshes import SUFFIXES, write_mesh
from mapanything_ros.offline.report.recording import write_recording


class Format(NamedTuple):
    """The file or folder that a format has in the folder of results, and what writes it."""

    name: str
    write: Callable[[Path, Finished], None]


def _write_mesh(path: Path, made: Finished) -> None:
    write_mesh(path, made.mesh)


def _write_bag(path: Path, made: Finished) -> None:
    # Imported here: it alone needs ROS's messages.
    from mapanything_ros.offline.export.outputs_bag import write_bag

    write_bag(path, made.keyframes, made.config)


FORMATS: dict[str, Format] = {
    'pcd': Format('map.pcd', lambda path, made: write_cloud(path, made.cloud, made.normals)),
    'xyz': Format('map.xyz', lambda path, made: write_xyz(path, made.cloud, made.normals)),
    'las': Format('map.las', lambda path, made: write_las(path, made.cloud)),
    'laz': Format('map.laz', lambda path, made: write_las(path, made.cloud)),
    'colmap': Format(
        'colmap', lambda path, made: write_colmap(path, made.keyframes, made.cloud)),
    'bag': Format('bag', _write_bag),
    'rrd': Format('map.rrd', lambda path, made: write_recording(
        path, made.keyframes, made.cloud, made.voxel_m)),
    **{f'mesh{suffix}': Format(f'mesh{suffix}', _write_mesh) for suffix in SUFFIXES},
}


# The libraries of requirements/ that a format alone needs, and the file that brings them.
LIBRARIES = {
    'las': (('laspy', 'lazrs'), 'offline'), 'laz': (('laspy', 'lazrs'), 'offline'),
    'colmap': (('pycolmap',), 'colmap')}


def check_formats(names: Sequence[str]) -> None:
    """Raise MissingLibraryError where a format cannot be written here: before hours of work."""
    for name in names:
        if name in LIBRARIES:
            modules, requirements = LIBRARIES[name]
            require_libraries(modules, f'the format {name}', requirements)


def parse_formats(text: str) -> tuple[str, ...]:
    """Read names with commas between them; raise InputError with all names for a wrong one."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(',') if name.strip()))
    for name in names:
        if name not in FORMATS:
            raise InputError(f'{name!r} is no format: choose among {", ".join(FORMATS)}')
    return names


def write_formats(
    folder: Path, names: Sequence[str], made: Finished,
    stage: Callable[[str], None] = lambda name: None,
) -> list[Path]:
    """Write formats by name, each whole or not at all; raise ExportError where one fails."""
    paths = []
    for name in names:
        stage(name)
        paths.append(folder / FORMATS[name].name)
        FORMATS[name].write(paths[-1], made)
    return paths
