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

"""Play a bag through the real node over DDS, and show what comes out and how good it is."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import signal
import sys

import numpy as np

from mapanything_ros.cli.sample import SampleError, write_sample
from mapanything_ros.core.config import MapConfig, WindowConfig
from mapanything_ros.core.errors import MapAnythingRosError
from mapanything_ros.offline.assessment import Assessment, Run
from mapanything_ros.offline.bag import Bag
from mapanything_ros.offline.mapping_run import map_bag, Recorded
from mapanything_ros.offline.node_process import DemoError
from mapanything_ros.offline.pictures import (
    ColouredMap,
    draw_keyframes,
    draw_top,
    draw_view,
    KeyframePicture,
)
from mapanything_ros.offline.recorder import PublishedKeyframe
from mapanything_ros.offline.summary import summarize, table
from mapanything_ros.offline.truth import choose_topics, Topics

RESULTS = (
    'map.ply', 'trajectory.tum', 'summary.json', 'map_top.png', 'map_view.png', 'keyframes.png',
    'node.log')
OWN_PARAMETERS = (
    'use_sim_time', 'image_transport', 'use_depth', 'depth_transport', 'pose_source',
    'tf.odom_frame', 'tf.base_frame', 'output.directory')
STRIP = 6


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; return 0 if a map came out."""
    options = _parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _demonstrate(options)
    except (MapAnythingRosError, SampleError, OSError) as error:
        print(f'demo: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='demo', description='Play a ROS 2 bag through the mapping node and write the map, '
        'the trajectory, pictures and, where the bag holds the truth, errors.')
    add = parser.add_argument
    add('--bag', type=Path, metavar='FOLDER', help='the bag (default: a rendered sample room)')
    add('--output', type=Path, default=Path('out/demo'), metavar='FOLDER',
        help='where results go (default: %(default)s)')
    add('--rate', type=float, default=0.4,
        help='speed of the bag, 1 as recorded (default: %(default)s, for two cores)')
    add('--no-odometry', action='store_true', help="keep the bag's /tf from the node")
    add('--use-depth', action='store_true', help='give the node the depth as well')
    add('--image-topic', default='', metavar='T', help='default: found by type')
    add('--camera-info-topic', default='', metavar='T', help='default: beside the image')
    add('--depth-topic', default='', metavar='T', help='default: found by type and name')
    add('--odom-frame', default='odom', metavar='F', help='default: %(default)s')
    add('--base-frame', default='base_link', metavar='F', help='default: %(default)s')
    add('--set', action='append', default=[], metavar='NAME=VALUE', dest='extra',
        help='another parameter of the node; may be repeated')
    options = parser.parse_args(arguments)
    if not options.rate > 0:
        parser.error('--rate must be above 0')
    for item in options.extra:
        name, equals, _ = item.partition('=')
        if not equals:
            parser.error(f'--set {item}: it needs NAME=VALUE')
        if name in OWN_PARAMETERS:
            parser.error(f'--set {name}: the demo sets it from its other options')
    return options


def _demonstrate(options: argparse.Namespace) -> None:
    path = options.bag or _sample(options.output.parent / 'sample')
    with Bag(path) as bag:
        topics = choose_topics(
            bag, options.image_topic, options.camera_info_topic, options.depth_topic)
        parameters = _parameters(options, topics, bag)
        for name in RESULTS:  # of an earlier run
            (options.output / name).unlink(missing_ok=True)
        _introduce(path, topics, parameters)
        recorded = map_bag(
            bag, topics, parameters, output=options.output, rate=options.rate,
            with_tf=not options.no_odometry, window=_window(parameters), say=_say)
    _report(options, path, topics, parameters, recorded)


def _sample(folder: Path) -> Path:
    if not folder.exists():
        print(f'Rendering the sample to {folder} (once) ...', flush=True)
        write_sample(folder)
    return folder


def _parameters(
    options: argparse.Namespace, topics: Topics, bag: Bag,
) -> dict[str, object]:
    """Return the node's parameters."""
    if not options.no_odometry and '/tf' not in bag.topics:
        raise DemoError('the bag has no /tf, so no odometry: run with --no-odometry')
    if options.use_depth and topics.depth is None:
        raise DemoError('the bag has no depth images: run without --use-depth')
    return {
        'backend': 'colmap',
        'device': 'cpu',
        'use_sim_time': True,
        'image_transport': 'compressed' if topics.compressed else 'raw',
        'use_depth': options.use_depth,
        'depth_transport': 'compressedDepth' if topics.depth_compressed else 'raw',
        'pose_source': 'none' if options.no_odometry else 'tf',
        'tf.odom_frame': '' if options.no_odometry else options.odom_frame,
        'tf.base_frame': options.base_frame if bag.topics.keys() & {'/tf', '/tf_static'} else '',
        'output.directory': str(options.output.resolve()),
        **dict(item.split('=', 1) for item in options.extra),
    }


def _introduce(bag: Path, topics: Topics, parameters: Mapping[str, object]) -> None:
    backend = parameters['backend']
    print(f'Backend: {backend}' + (
        ', classical multi-view stereo. This is NOT MapAnything.' if backend == 'colmap' else ''))
    odometry = 'odometry from /tf' if parameters['pose_source'] == 'tf' else 'no odometry'
    depth = f'depth from {topics.depth}' if parameters['use_depth'] and topics.depth else (
        'no depth')
    print(f'Inputs: {topics.image}, {odometry}, {depth}')
    print(f'Bag: {bag}', flush=True)


def _window(parameters: Mapping[str, object]) -> WindowConfig:
    """Return the node's window, as far as ``--set`` has not left it at its default."""
    given = {name: int(str(parameters[f'window.{name}'])) for name in ('size', 'overlap')
             if f'window.{name}' in parameters}
    return WindowConfig(**given)


def _say(line: str) -> None:
    print(f'  {line}', flush=True)


def _report(
    options: argparse.Namespace, bag: Path, topics: Topics, parameters: Mapping[str, object],
    recorded: Recorded,
) -> None:
    """Evaluate, draw, and print."""
    import open3d

    cloud = open3d.io.read_point_cloud(options.output / 'map.ply')
    points, trajectory = np.asarray(cloud.points), recorded.trajectory
    if not len(points):
        raise DemoError(f'the map has no points; see {options.output / "node.log"}')
    metric = recorded.diagnostics.get('scale_source') != 'none'
    run = Run(
        bag=bag, source='recorded bag' if options.bag else 'rendered sample', topics=topics,
        odom_frame=options.odom_frame, odometry_used=not options.no_odometry,
        rectified=str(parameters.get('rectified', False)).lower() == 'true', metric=metric)
    summary = summarize(
        Assessment(run, recorded.keyframes, trajectory, points), recorded.diagnostics,
        seconds=recorded.seconds, waited_s=recorded.waited_s, rate=options.rate,
        depth_used=options.use_depth, images_played=recorded.images_played)
    (options.output / 'summary.json').write_text(json.dumps(summary, indent=2) + '\n')

    voxel_m = float(str(parameters.get('map.voxel_m', MapConfig().voxel_m)))
    unit = 'm' if metric else 'map units'
    world = ColouredMap(
        points, np.rint(np.asarray(cloud.colors) * 255).astype(np.uint8), voxel_m,
        trajectory.poses, unit)
    label = f'{bag.name}: {len(points)} points, backend {summary["backend"]}'
    draw_top(options.output / 'map_top.png', world, f'{label}, from above')
    draw_view(options.output / 'map_view.png', world, f'{label}, opened towards the viewer')
    draw_keyframes(
        options.output / 'keyframes.png', _strip(recorded.keyframes),
        f'{bag.name}: keyframes as published', unit)
    print(f'\n{table(summary)}\n')
    for name in RESULTS:
        print(f'  {options.output / name}')


def _strip(keyframes: Sequence[PublishedKeyframe]) -> list[KeyframePicture]:
    chosen = np.unique(np.linspace(0, len(keyframes) - 1, STRIP).round().astype(int))
    return [
        KeyframePicture(
            f't = {(keyframes[i].stamp_ns - keyframes[0].stamp_ns) * 1e-9:.1f} s',
            keyframes[i].rgb, keyframes[i].depth_m, keyframes[i].confidence)
        for i in chosen]


if __name__ == '__main__':
    sys.exit(main())
