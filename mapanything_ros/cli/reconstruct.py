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

"""Make a map of a bag, of photos or of a video, offline: nothing is dropped."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys
import time

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.config import Config, to_values
from mapanything_ros.core.device import torch_device
from mapanything_ros.core.errors import InputError, MapAnythingRosError
from mapanything_ros.core.map.export import write_cloud, write_tum
from mapanything_ros.offline.calibration import parse_calibration
from mapanything_ros.offline.depth_images import write_depth_images
from mapanything_ros.offline.export.finish import finish, Finished, Finishing, MESHES
from mapanything_ros.offline.export.formats import (
    check_formats,
    FORMATS,
    parse_formats,
    write_formats,
)
from mapanything_ros.offline.export.known_size import USAGE
from mapanything_ros.offline.notices import Notices
from mapanything_ros.offline.parameters import load_config
from mapanything_ros.offline.progress_bar import ProgressBar, say
from mapanything_ros.offline.reconstruction import Reconstruction
from mapanything_ros.offline.reconstruction_summary import summarize, write_summary
from mapanything_ros.offline.report.report import check_report, write_report
from mapanything_ros.offline.result_folder import ResultFolder, SUMMARY
from mapanything_ros.offline.source import open_source, Source, TopicNames
from mapanything_ros.offline.stop import Stop
from mapanything_ros.offline.window_cache import CachedBackend

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Reconstruct; return 0 for a complete map, 1 for none or a part, 130 after Ctrl-C.

    A part of a map, of a recording that breaks off or after Ctrl-C, is saved and says so.
    """
    options = _parse(arguments)
    try:
        return _reconstruct(options)
    except (MapAnythingRosError, OSError) as error:
        print(f'reconstruct: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('reconstruct: stopped', file=sys.stderr)
        return INTERRUPTED


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='reconstruct', description=__doc__)
    add = parser.add_argument
    add('source', type=Path, nargs='+', metavar='SOURCE',
        help='a ROS 2 bag (folder, .mcap or .db3), a folder of photos, photos, or a video')
    add('--output', type=Path, required=True, metavar='FOLDER', help='where results go')
    add('--overwrite', action='store_true', help='replace the results in FOLDER')
    add('--resume', action='store_true', help='go on where an earlier run was cut off')
    results = parser.add_argument_group('results, besides map.ply, trajectory.tum and depth')
    add = results.add_argument
    add('--formats', type=_formats, default=(), metavar='LIST',
        help=f'more files, with commas between: {", ".join(FORMATS)}')
    add('--no-report', action='store_false', dest='report',
        help='write no report.html and no pictures')
    add('--icp', action='store_true', help='register keyframes by their surfaces, if that helps')
    add('--scale-reference', default='', metavar='WHAT', help=f'a known size: {USAGE}')
    add('--outliers', action='store_true', help='remove points that lie apart from others')
    add('--voxel', type=float, default=0.0, metavar='M',
        help='thin the cloud to one point in a cube of this edge')
    add('--normals', action='store_true', help='add normals to the clouds')
    add('--mesh', default=MESHES[0], choices=MESHES,
        help='how meshes are made (default: %(default)s)')
    parameters = parser.add_argument_group('parameters, those of the node')
    add = parameters.add_argument
    add('--params', type=Path, metavar='FILE', help="the node's parameter file")
    add('--set', action='append', default=[], metavar='NAME=VALUE', dest='settings',
        help='one parameter; may be repeated')
    add('--backend', metavar='NAME', help='short for --set backend=NAME')
    add('--device', metavar='NAME', help='short for --set device=NAME')
    add('--odom-frame', metavar='FRAME',
        help="use the bag's odometry: short for --set pose_source=tf --set tf.odom_frame=FRAME")
    add('--base-frame', metavar='FRAME',
        help='level the map by how the camera is mounted: short for --set tf.base_frame=FRAME')
    recording = parser.add_argument_group('what is read')
    add = recording.add_argument
    add('--image-topic', default='', metavar='T', help='default: found by type')
    add('--camera-info-topic', default='', metavar='T', help='default: beside the image')
    add('--depth-topic', default='', metavar='T',
        help='with --set use_depth=true; default: found by type and name')
    add('--imu-topic', default='', metavar='T',
        help='with --set use_imu=true; default: found by type')
    add('--odometry-topic', default='', metavar='T',
        help='with --set odometry_source=topic; default: found by type')
    add('--intrinsics', default='none', metavar='WHAT',
        help='of photos and video, as they are upright: none, exif, fx,fy,cx,cy in pixels, or the '
        "YAML file of ROS's camera_calibration (default: %(default)s)")
    return parser.parse_args(arguments)


def _formats(text: str) -> tuple[str, ...]:
    try:
        return parse_formats(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _reconstruct(options: argparse.Namespace) -> int:
    start_s = time.monotonic()
    if options.report:
        check_report()
    check_formats(options.formats)
    notices, stop = Notices(say), Stop(say)
    finishing = Finishing(
        options.icp, options.scale_reference, options.outliers, options.voxel, options.normals,
        options.mesh)
    config = load_config(options.params, _settings(options))
    topics = TopicNames(
        options.image_topic, options.camera_info_topic, options.depth_topic, options.imu_topic,
        options.odometry_topic)
    source = open_source(
        options.source, config, topics, parse_calibration(options.intrinsics), notices)
    if config.odometry_source == 'topic':
        # Imported here: photos and videos need no ROS.
        from mapanything_ros.offline.bag_source import with_frames_of_odometry

        config = with_frames_of_odometry(config, options.source[0], topics)
    key = {'recording': source.fingerprint(), 'parameters': to_values(config)}
    folder = ResultFolder(
        options.output, key, overwrite=options.overwrite, resume=options.resume)
    try:
        _introduce(source, config)
        with stop.on_signals(), notices.of_the_core(), ProgressBar(source.total) as bar:
            backend = CachedBackend(
                create_backend(config), folder.state / 'windows', torch_device(config.device))
            made = Reconstruction(
                config, backend, source, folder.work, notices).run(stop, bar.show)
            finished = finish(made.cloud, made.keyframes, config, finishing, bar.stage)
            _write(finished, options.formats, folder.work, bar)
        summary = summarize(
            made, finished, source, notices, options.formats, time.monotonic() - start_s)
        write_summary(folder.work / SUMMARY, summary)
        if options.report:
            write_report(folder.work, folder.output.name)
    except BaseException:
        if folder.give_up():
            say('what is done so far counts again with --resume')
        raise
    folder.finish(made.ended == 'complete')
    notices.repeat()
    return _conclude(made.ended, finished, bool(summary['metric']), folder.output)


def _settings(options: argparse.Namespace) -> list[str]:
    """Return --set and what is short for it."""
    short = {
        'backend': options.backend, 'device': options.device,
        'pose_source': 'tf' if options.odom_frame else None,
        'tf.odom_frame': options.odom_frame, 'tf.base_frame': options.base_frame}
    return [f'{name}={value}' for name, value in short.items() if value] + options.settings


def _introduce(source: Source, config: Config) -> None:
    note = ', classical multi-view stereo. This is NOT MapAnything.'
    say(f'backend: {config.backend} on {config.device}' + (
        note if config.backend == 'colmap' else ''))
    say(f'{source.kind}: ' + ', '.join(
        f'{name} {value}' for name, value in source.inputs().items() if value is not None))


def _write(
    finished: Finished, formats: Sequence[str], folder: Path, bar: ProgressBar,
) -> None:
    bar.stage('map.ply')
    write_cloud(folder / 'map.ply', finished.cloud, finished.normals)
    write_tum(folder / 'trajectory.tum', finished.keyframes.trajectory())
    bar.stage('depth')
    write_depth_images(folder, finished.keyframes)
    finished.keyframes.close()
    write_formats(folder, formats, finished, bar.stage)


def _conclude(ended: str, finished: Finished, metric: bool, output: Path) -> int:
    unit = 'metres' if metric else (
        'units of unknown size: nothing told the scale (--scale-reference can)')
    for note in finished.notes:
        print(note)
    print(f'{output}: {len(finished.cloud)} points of {len(finished.keyframes)} keyframes, '
          f'in {unit}')
    if ended == 'complete':
        return 0
    print(f'reconstruct: this is a part: {ended}' + (
        '; --resume goes on' if ended == 'interrupted' else ''), file=sys.stderr)
    return INTERRUPTED if ended == 'interrupted' else 1


if __name__ == '__main__':
    sys.exit(main())
