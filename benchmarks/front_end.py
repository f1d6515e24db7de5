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
What an image costs before it is a keyframe: rate, CPU share and memory of the real node.

The node runs alone on one core, the camera on the other. The rate is the highest of a ladder (up
to 800) at which 99 % of the images arrive, or what arrives at the first step where they do not;
the CPU share is the node's, of one core, at 30 images a second. Windows are refused by a backend
that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import cv2
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_ros import TransformBroadcaster
import torch

from mapanything_ros.offline.node_process import private_domain
from mapanything_ros.ros.conversions import to_camera_info, to_image
from mapanything_ros.ros.transforms import to_header, to_ns, to_transform

LADDER_HZ = (30, 60, 100, 150, 200, 300, 400, 600, 800)
STEP_S = 2.0
STEADY_HZ = 30.0
STEADY_S = 5.0
# Images in flight arrive within this.
SETTLE_NS = 300_000_000
# Frames between keyframes where one in ten becomes one; the camera moves this far a frame.
PERIOD = 10
STEP_M = 0.02
PICTURES = 40
SIZES = {'640x480': (640, 480), '1920x1080': (1920, 1080)}


@dataclass(frozen=True)
class Case:
    """One camera and one way to select keyframes; ``keyframes`` says that one in ten is one."""

    size: str
    transport: str
    selection: str
    keyframes: bool


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    images_per_s: float
    cpu_share_at_30_hz: float
    keyframes_per_image: float


def run(output: Path, images: int) -> None:
    """Measure all cases and the memory, print a table and write the figures as JSON."""
    cases = [
        Case(size, transport, selection, keyframes)
        for size in SIZES for transport in ('compressed', 'raw')
        for selection in ('odometry', 'flow') for keyframes in (False, True)]
    print(f'{"front end":10} {"":10} {"":9} {"keyframes":>9} {"images/s":>9} {"CPU at 30/s":>12}')
    results = []
    with private_domain():
        for case in cases:
            figures = measure(case)
            results.append({**asdict(case), **asdict(figures)})
            print(
                f'{case.size:10} {case.transport:10} {case.selection:9} '
                f'{"1 in 10" if case.keyframes else "none":>9} {figures.images_per_s:9.0f} '
                f'{figures.cpu_share_at_30_hz:12.1%}', flush=True)
        memory = measure_memory(images)
    for count, mib in memory.items():
        print(f'resident memory after {count:>6} images: {mib:.0f} MiB')
    output.write_text(json.dumps({
        'cpus': os.cpu_count(), 'front_end': results, 'resident_mib': memory}, indent=1))
    print(f'wrote {output}')


def measure(case: Case) -> Figures:
    """Climb the ladder until images are lost, then measure the CPU share at a steady rate."""
    with camera_and_node(case) as (camera, process):
        best_hz, before = 0.0, camera.counts()
        start = dict(before)
        for rate_hz in LADDER_HZ:
            sent, elapsed_s = camera.play(rate_hz, STEP_S)
            after = camera.counts()
            arrived = after['images'] - before['images']
            before = after
            if arrived < 0.99 * sent or sent / elapsed_s < 0.95 * rate_hz:
                best_hz = max(best_hz, arrived / elapsed_s)
                break
            best_hz = arrived / elapsed_s
        share = (after['keyframes'] - start['keyframes']) / (after['images'] - start['images'])
        cpu_s = cpu_seconds(process.pid)
        _, elapsed_s = camera.play(STEADY_HZ, STEADY_S)
        return Figures(best_hz, (cpu_seconds(process.pid) - cpu_s) / elapsed_s, share)


def measure_memory(images: int) -> dict[int, float]:
    """Return the node's resident memory in MiB after a tenth of the images and after all."""
    with camera_and_node(Case('640x480', 'compressed', 'flow', True)) as (camera, process):
        memory = {}
        for count in (images // 10, images):
            while (seen := camera.counts()['images']) < count:
                camera.play(150, min(STEP_S, max(0.1, (count - seen) / 150)))
            memory[count] = resident_mib(process.pid)
        return memory


@contextmanager
def camera_and_node(case: Case) -> Iterator[tuple[Camera, subprocess.Popen[bytes]]]:
    """Start the node on the last core and the camera on the first."""
    rclpy.init()
    os.sched_setaffinity(0, {0})
    parameters = {
        'device': 'cpu', 'image_transport': case.transport, 'tf.base_frame': 'base_link',
        'tf.odom_frame': 'odom' if case.selection == 'odometry' else '',
        'pose_source': 'tf' if case.selection == 'odometry' else 'none',
        'tf.mode': 'none', 'keyframes.min_translation_m': STEP_M * (PERIOD - 0.5),
        'keyframes.min_parallax': (PERIOD - 0.5) * Camera.SHIFT_SHARE,
    }
    arguments = [part for name, value in parameters.items() for part in (
        '-p', f'{name}:={json.dumps(value)}')]
    process = subprocess.Popen(
        [sys.executable, '-m', 'benchmarks.front_end_node', '--ros-args', *arguments],
        stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1}))
    camera = Camera(case)
    try:
        camera.wait_for_node(30.0)
        yield camera, process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        camera.destroy_node()
        rclpy.shutdown()


class Camera(Node):
    """Publishes prepared pictures with odometry; listens to what the node says it received."""

    # How far the picture moves a frame, as a share of its width.
    SHIFT_SHARE = 0.006

    def __init__(self, case: Case) -> None:
        super().__init__('camera')
        self._case = case
        self._pictures = pictures(case)
        self._number = 0
        kind = CompressedImage if case.transport == 'compressed' else Image
        topic = 'image/compressed' if case.transport == 'compressed' else 'image'
        reliable = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
        self._images = self.create_publisher(kind, topic, reliable)
        self._info = self.create_publisher(CameraInfo, 'camera_info', reliable)
        self._tf = TransformBroadcaster(self)
        self._status: dict[str, str] = {}
        self._reported_ns = 0
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def wait_for_node(self, timeout_s: float) -> None:
        """Wait until the node listens."""
        deadline = time.monotonic() + timeout_s
        while not self._images.get_subscription_count() or not self._status:
            rclpy.spin_once(self, timeout_sec=0.1)
            if time.monotonic() > deadline:
                raise TimeoutError('the node did not start')

    def play(self, rate_hz: float, duration_s: float) -> tuple[int, float]:
        """Publish at a rate; return how many images were sent, in how many seconds."""
        count, start_s = int(rate_hz * duration_s), time.monotonic()
        for index in range(count):
            left_s = start_s + index / rate_hz - time.monotonic()
            if left_s > 0:
                time.sleep(left_s)
            self._send()
        return count, time.monotonic() - start_s

    def counts(self) -> dict[str, int]:
        """Return the node's images and keyframes once it has handled what was sent."""
        asked_ns = time.time_ns()
        while self._reported_ns < asked_ns + SETTLE_NS:
            rclpy.spin_once(self, timeout_sec=0.1)
        return {name: int(self._status[name]) for name in ('images', 'keyframes')}

    def _send(self) -> None:
        case, self._number = self._case, self._number + 1
        header = to_header(time.time_ns(), 'camera')
        if self._number % 30 == 1:
            width, height = SIZES[case.size]
            k = np.array([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
            self._info.publish(to_camera_info(k, width, height, header))
        self._tf.sendTransform(self._transforms(header))
        picture = self._pictures[ping_pong(self._number) if case.keyframes else 0]
        picture.header = header
        self._images.publish(picture)

    def _transforms(self, header: object) -> list[TransformStamped]:
        moved = np.eye(4)
        moved[0, 3] = STEP_M * self._number * self._case.keyframes
        odometry = to_transform(moved, header, 'base_link')
        odometry.header.frame_id = 'odom'
        mounting = to_transform(np.eye(4), header, 'camera')
        mounting.header.frame_id = 'base_link'
        return [odometry, mounting]

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self._reported_ns = to_ns(message.header.stamp)
        self._status = {item.key: item.value for item in message.status[0].values}


def ping_pong(number: int) -> int:
    """Walk through the pictures to and fro."""
    step = number % (2 * PICTURES - 2)
    return min(step, 2 * PICTURES - 2 - step)


def pictures(case: Case) -> list[Image] | list[CompressedImage]:
    """Prepare messages of a textured plane that moves sideways."""
    width, height = SIZES[case.size]
    step = round(Camera.SHIFT_SHARE * width)
    texture = np.random.default_rng(0).integers(
        0, 256, (height // 4, (width + PICTURES * step) // 4 + 1, 3), np.uint8)
    texture = cv2.resize(texture, (width + PICTURES * step, height), interpolation=cv2.INTER_CUBIC)
    views = [np.ascontiguousarray(texture[:, i * step:i * step + width]) for i in range(PICTURES)]
    header = to_header(0, '')
    if case.transport == 'raw':
        return [to_image(torch.from_numpy(view), 'bgr8', header) for view in views]
    return [
        CompressedImage(format='jpeg', data=cv2.imencode('.jpg', view)[1].tobytes())
        for view in views]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process used, all its threads (proc(5))."""
    values = Path(f'/proc/{pid}/stat').read_text().rpartition(') ')[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf('SC_CLK_TCK')


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process (proc(5))."""
    pages = int(Path(f'/proc/{pid}/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20
