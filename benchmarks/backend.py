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

"""
Our mapanything backend against the package's own way, on the same input, in one run.

(a) `after_forward`: raw outputs to PointCloud2, against the package's post-processing, its mask
    and `create_cloud`.
(b) `sliding_window`: windows of 8 keyframes that gain 1, 2 or 4, against `preprocess_inputs` and
    `infer` each time.
(c) `load`: loading a checkpoint, time and peak resident memory, each in a process of its own.
(d) `photos_to_ply`: 34 photos to one coloured PLY, against `load_images`, `infer` and Open3D.

Weights are random: times do not depend on them. Where the package is not installed nothing is
measured, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import os
from pathlib import Path
import platform
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import PointField
from sensor_msgs_py.point_cloud2 import create_cloud
from std_msgs.msg import Header
import torch

from benchmarks import scene
from mapanything_ros.core.backends.mapanything.backend import MapAnythingBackend
from mapanything_ros.core.backends.mapanything.checkpoint import find_checkpoint
from mapanything_ros.core.backends.mapanything.input import ModelInput
from mapanything_ros.core.backends.mapanything.loading import (
    import_torchvision,
    load_model,
    local_dinov2,
)
from mapanything_ros.core.backends.mapanything.output import ModelOutput
from mapanything_ros.core.backends.mapanything.requirements import missing_requirements
from mapanything_ros.core.config import Config, from_values, InferConfig
from mapanything_ros.core.datatypes import Keyframe
from mapanything_ros.core.map.export import write_cloud
from mapanything_ros.core.map.packing import pack_points, unpack
from mapanything_ros.core.map.voxel_map import PointCloud
from mapanything_ros.ros.conversions import to_cloud

VIEWS = (1, 4, 8, 16, 34)
WINDOW = 8
GAINS = (1, 2, 4)
WINDOWS = 6
PHOTOS = 34
FIELDS = [
    PointField(name=name, offset=offset, datatype=kind, count=1)
    for name, offset, kind in (
        ('x', 0, PointField.FLOAT32), ('y', 4, PointField.FLOAT32), ('z', 8, PointField.FLOAT32),
        ('rgb', 12, PointField.UINT32))]

Timings = dict[str, float]


def run(output: Path, device: torch.device, configuration: Path) -> None:
    """Measure everything, print ratios and write them as JSON."""
    missing = missing_requirements()
    if missing:
        print(f'backend: not measured; {"; ".join(missing)} (make model)')
        return
    import_torchvision()
    figures: dict[str, Any] = {
        'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else (
            f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores'),
        'torch': torch.__version__,
        'model': configuration.stem,
    }
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), configuration)
        print(f'{"backend":28} {"package":>10} {"ours":>10} {"ratio":>7}')
        figures['after_forward'] = {
            str(count): after_forward(count, device) for count in VIEWS}
        figures['sliding_window'] = sliding_windows(Path(folder), device)
        figures['load'] = load_times(Path(folder), device)
        figures['photos_to_ply'] = photos_to_ply(Path(folder), device)
    output.write_text(json.dumps(figures, indent=1) + '\n')
    print(f'wrote {output}')


def write_random_checkpoint(folder: Path, configuration: Path) -> None:
    """Write a checkpoint of an architecture with random weights, in a process of its own."""
    code = (
        'import sys; from benchmarks.random_checkpoint import write; '
        'write(sys.argv[1], sys.argv[2])')
    subprocess.run([sys.executable, '-c', code, str(folder), str(configuration)], check=True)


def compare(
    name: str, package: Callable[[], object], ours: Callable[[], object], device: torch.device,
    repeats: int = 7,
) -> Timings:
    """Time both in turn, after one run of each; return the medians and their ratio."""
    times: dict[str, list[float]] = {'package': [], 'ours': []}
    for repeat in range(repeats + 1):
        for label, call in (('package', package), ('ours', ours)):
            seconds = timed(call, device)
            if repeat:
                times[label].append(seconds)
    return report(name, *(float(np.median(times[label])) for label in ('package', 'ours')))


def timed(call: Callable[[], object], device: torch.device) -> float:
    start_s = time.perf_counter()
    call()
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return time.perf_counter() - start_s


def report(name: str, package_s: float, ours_s: float) -> Timings:
    ratio = package_s / ours_s
    print(f'{name:28} {1e3 * package_s:8.1f}ms {1e3 * ours_s:8.1f}ms {ratio:6.1f}x', flush=True)
    return {'package_s': package_s, 'ours_s': ours_s, 'ratio': ratio}


# (a)


def after_forward(count: int, device: torch.device) -> Timings:
    raw = [on(scene.raw_output(index), device) for index in range(count)]
    inputs = [on(scene.model_input(index), device) for index in range(count)]
    views = ModelInput(518, device).prepare([scene.keyframe(index) for index in range(count)])
    output = ModelOutput(InferConfig())
    header = Header(frame_id='map')

    def ours() -> None:
        for view in output.window(raw, views).views:
            to_cloud(pack_points(view, view.world_from_camera), header)

    return compare(
        f'after forward, {count} views', lambda: package_clouds(package_output(raw, inputs)),
        ours, device)


def package_output(raw: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> Any:
    from mapanything.utils.inference import postprocess_model_outputs_for_inference

    return postprocess_model_outputs_for_inference([dict(one) for one in raw], inputs)


def package_clouds(outputs: Any) -> None:
    """Make the messages as the package's demos and ROS' own helper have it."""
    for output in outputs:
        cloud = cloud_of(output)
        points = np.empty(len(cloud), [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('rgb', '<u4')])
        points['x'], points['y'], points['z'] = cloud.xyz.T
        red, green, blue = cloud.rgb.astype(np.uint32).T
        points['rgb'] = red << 16 | green << 8 | blue
        create_cloud(Header(frame_id='map'), FIELDS, points)


def cloud_of(output: dict[str, torch.Tensor]) -> PointCloud:
    mask = output['mask'][0, ..., 0].cpu().numpy()
    rgb = output['img_no_norm'][0].cpu().numpy()[mask]
    return PointCloud(output['pts3d'][0].cpu().numpy()[mask], (rgb * 255).astype(np.uint8))


def on(values: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in values.items()}


# (b)


def sliding_windows(folder: Path, device: torch.device) -> dict[str, Timings]:
    backend = make_backend(folder, device, WINDOW)
    model = load_model(find_checkpoint(str(folder)), device)
    figures = {}
    for gain in GAINS:
        windows = [
            [scene.keyframe(gain * step + index) for index in range(WINDOW)]
            for step in range(WINDOWS)]
        for window in windows:  # rendered before anything is timed
            assert all(keyframe.rgb.any() for keyframe in window)
        package, ours = [], []
        for step, window in enumerate(windows):
            package_s = timed(lambda w=window: infer(model, w, device), device)
            ours_s = timed(lambda w=window: backend.infer(w), device)
            if step:  # the first window has nothing to reuse
                package.append(package_s)
                ours.append(ours_s)
        figures[str(gain)] = report(
            f'window of {WINDOW}, {gain} new', float(np.median(package)), float(np.median(ours)))
    return figures


def infer(model: Any, keyframes: list[Keyframe], device: torch.device) -> Any:
    """Call the package as its README does, on the inputs that our backend is given."""
    from mapanything.utils.image import preprocess_inputs

    views = preprocess_inputs([
        {'img': keyframe.rgb, 'intrinsics': keyframe.intrinsics.astype(np.float32)}
        for keyframe in keyframes if keyframe.intrinsics is not None])
    # On the CPU mixed precision is slower.
    return model.infer(views, use_amp=device.type == 'cuda')


def make_backend(folder: Path, device: torch.device, window: int) -> MapAnythingBackend:
    config: Config = from_values(Config, {
        'mapanything.weights': str(folder), 'device': device.type, 'window.size': window})
    return MapAnythingBackend(config, device)


# (c)


def load_times(folder: Path, device: torch.device) -> dict[str, Any]:
    figures = {}
    for name in ('package', 'ours'):
        code = (
            f'from benchmarks.backend import measure_load; '
            f'measure_load({name!r}, {str(folder)!r}, {device.type!r})')
        done = subprocess.run(
            [sys.executable, '-c', code], check=True, stdout=subprocess.PIPE, text=True)
        figures[name] = json.loads(done.stdout.splitlines()[-1])
    timings = report('load', figures['package']['seconds'], figures['ours']['seconds'])
    memory = {f'{name}_peak_mib': figures[name]['peak_mib'] for name in figures}
    print(f'{"  peak memory of the process":28} {memory["package_peak_mib"]:7.0f}MiB '
          f'{memory["ours_peak_mib"]:7.0f}MiB')
    return {**timings, **memory}


def measure_load(name: str, folder: str, device: str) -> None:
    """Load once and print what it took; libraries are imported before."""
    import_torchvision()
    from mapanything.models import MapAnything

    start_s = time.perf_counter()
    if name == 'ours':
        load_model(find_checkpoint(folder), torch.device(device))
    else:
        # The package would ask github.com, and the answer's time is not its fault.
        with local_dinov2():
            MapAnything.from_pretrained(folder, strict=True).to(device)
    seconds = time.perf_counter() - start_s
    print(json.dumps({'seconds': seconds, 'peak_mib': peak_mib()}))


def peak_mib() -> float:
    """Return the peak resident memory of this program alone; rusage's is its parent's, too."""
    status = Path('/proc/self/status').read_text()
    return int(status.split('VmHWM:')[1].split()[0]) / 1024


# (d)


def photos_to_ply(folder: Path, device: torch.device) -> Timings:
    backend = make_backend(folder, device, PHOTOS)
    model = load_model(find_checkpoint(str(folder)), device)
    photos = folder / 'photos'
    photos.mkdir()
    for index in range(PHOTOS):
        cv2.imwrite(str(photos / f'{index:02}.jpg'), scene.photo(index)[..., ::-1])

    def package() -> None:
        from mapanything.utils.image import load_images

        outputs = model.infer(load_images(str(photos)), use_amp=device.type == 'cuda')
        clouds = [cloud_of(output) for output in outputs]
        write_cloud(folder / 'package.ply', joined(clouds))

    def ours() -> None:
        keyframes = [
            Keyframe(index, index, 'camera', cv2.imread(str(path))[..., ::-1].copy())
            for index, path in enumerate(sorted(photos.iterdir()))]
        window = backend.infer(keyframes)
        clouds = [unpack(pack_points(view, view.world_from_camera)) for view in window.views]
        write_cloud(folder / 'ours.ply', joined(clouds))

    return compare(f'{PHOTOS} photos to a PLY', package, ours, device, repeats=1)


def joined(clouds: list[PointCloud]) -> PointCloud:
    return PointCloud(
        np.concatenate([cloud.xyz for cloud in clouds]),
        np.concatenate([cloud.rgb for cloud in clouds]))
