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

"""The world around a node under test: what its camera sees, and what it says, over DDS."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from helpers import (
    BASE_FROM_CAMERA,
    camera_info,
    camera_on_path,
    ExactBackend,
    FRAME,
    header,
    image,
    ODOM_FROM_WORLD,
    Seen,
    stamp_of,
    transform,
    view_room,
)
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Path
import numpy as np
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import SetBool, Trigger
from tf2_msgs.msg import TFMessage

from mapanything_ros.ros.node import MapAnythingNode

DEADLINE_S = 30.0
CAMERA_FROM_BASE = np.linalg.inv(BASE_FROM_CAMERA)
STEP_NS = 100_000_000
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
KEYFRAME_TOPICS = {
    'image': Image, 'camera_info': CameraInfo, 'depth': Image, 'confidence': Image,
    'points': PointCloud2}
OUTPUTS = {
    **{f'~/keyframe/{name}': kind for name, kind in KEYFRAME_TOPICS.items()},
    '~/points': PointCloud2, '~/map': PointCloud2, '~/map_updates': PointCloud2, '~/path': Path,
    '~/pose': PoseStamped, '/diagnostics': DiagnosticArray}
# Every other image becomes a keyframe with the camera on the path, and every keyframe a window.
QUICK = {
    'device': 'cpu',
    'keyframes.min_translation_m': 0.05, 'keyframes.min_parallax': 0.005,
    'keyframes.min_sharpness': 0.0, 'window.size': 2, 'window.overlap': 1, 'map.period_s': 0.0,
    'map.full_period_s': 0.0, 'map.min_views': 1, 'tf.timeout_s': 0.4}
ODOMETRY = {'pose_source': 'tf', 'tf.odom_frame': 'odom', 'tf.base_frame': 'base'}


class Robot:
    """
    Runs the node in a thread, in its own participant, and talks to it as other nodes would.

    ``remappings`` hold for both, which then share a namespace.
    The stamps of ``see`` rise from a minute ago, with all nine digits in use.
    """

    def __init__(
        self, context: Context, peer_context: Context, backend: ExactBackend,
        parameters: dict[str, Any], activate: bool = True,
        reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE,
        remappings: Sequence[str] = (),
    ) -> None:
        rules = ['--ros-args', *(part for rule in remappings for part in ('-r', rule))]
        self._sensors = QoSProfile(depth=10, reliability=reliability)
        self.backend = backend
        self.parameters = {**QUICK, **parameters}
        self.node = MapAnythingNode(context=context, cli_args=rules, parameter_overrides=[
            Parameter(name, value=value) for name, value in self.parameters.items()])
        self.crash: BaseException | None = None
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.peer = Node('peer', context=peer_context, cli_args=rules)
        self._peer_executor = SingleThreadedExecutor(context=peer_context)
        self._peer_executor.add_node(self.peer)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self.next_ns = time.time_ns() - 60 * 10**9 + 123_456_789
        self.index = 0
        # Intrinsics, size and distortion, where they are not those of view_room.
        self.camera: dict[str, Any] = {}
        self.encode: Callable[[Seen], Image | CompressedImage] = lambda seen: image(
            seen.rgb, 'rgb8', seen.stamp_ns)
        self._advertise()
        if activate:
            self.node.trigger_configure()
            self.node.trigger_activate()
        self._ended = Event()
        self._thread = Thread(target=self._spin)
        self._thread.start()
        self.wait_for_connections(activate)

    def _advertise(self) -> None:
        create = self.peer.create_publisher
        self.images = create(Image, 'image', self._sensors)
        self.compressed = create(CompressedImage, 'image/compressed', self._sensors)
        self.infos = create(CameraInfo, 'camera_info', self._sensors)
        self.depths = create(Image, 'depth', self._sensors)
        self.tf = create(TFMessage, '/tf', 100)
        self.tf_static = create(TFMessage, '/tf_static', LATCHED)
        self.clock = create(Clock, '/clock', 10)
        for topic, kind in OUTPUTS.items():
            self.listen(kind, topic, connected=False)

    def listen(
        self, kind: type, topic: str, qos: QoSProfile | None = None, connected: bool = True,
    ) -> None:
        """Keep what comes on a topic; ``~`` is the node's own name space."""
        if qos is None:
            qos = LATCHED if topic in ('~/map', '~/path') else QoSProfile(depth=100)
        subscription = self.peer.create_subscription(
            kind, topic.replace('~', 'mapanything'), self.heard[topic].append, qos)
        if connected:
            self.wait_for(subscription.get_publisher_count, topic)

    def deafen(self, topic: str) -> None:
        """Listen to a topic of the node no more, and wait until the node knows."""
        name = self.peer.resolve_topic_name(topic.replace('~', 'mapanything'))
        for subscription in [s for s in self.peer.subscriptions if s.topic_name == name]:
            self.peer.destroy_subscription(subscription)
        self.wait_for(lambda: self.node.count_subscribers(name) == 0, topic)

    def _spin(self) -> None:
        try:
            while not self._ended.is_set():
                self._executor.spin_once()
        except ExternalShutdownException:
            pass
        except BaseException as error:
            self.crash = error

    def close(self) -> None:
        """End everything; fail where the node died or the backend was given nonsense."""
        self.backend.free.set()
        # Not by shutdown(), which can leave the thread asleep (see spinning).
        self._executor.create_task(self._ended.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), 'the node hangs'
        self._executor.shutdown()
        self.node.release()
        self.node.destroy_node()
        # Which rclpy leaves to the garbage collector: until then others in this domain see it.
        self.node._state_machine.destroy_when_not_in_use()
        self.peer.destroy_node()
        self._peer_executor.shutdown()
        assert self.crash is None, f'the node died: {self.crash!r}'
        assert not self.backend.broken, self.backend.broken

    # Waiting

    def wait_for(self, condition: Callable[[], Any], what: str = '') -> Any:
        """Handle what comes over DDS until the condition holds; return its value."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            assert self.crash is None, f'the node died: {self.crash!r}'
            assert time.monotonic() < deadline, (
                f'{what or "it"} did not come; the node says {self.status()}')
            self._peer_executor.spin_once(timeout_sec=0.02)
        return value

    def wait_for_connections(self, activate: bool = True) -> None:
        """Wait until both sides know each other, since inputs are sent once, best effort."""
        if self.parameters.get('use_sim_time'):
            self.wait_for(self.clock.get_subscription_count, 'the node')
        if not activate:
            return
        inputs = {publisher.topic_name: publisher for publisher in (
            self.images, self.compressed, self.infos, self.depths, self.tf, self.tf_static)}

        def connected() -> bool:
            """Say whether both sides know it; a subscription that adapts its QoS comes anew."""
            try:
                heard = [s for s in self.node.subscriptions if s.topic_name in inputs]
                return all(
                    s.get_publisher_count() and inputs[s.topic_name].get_subscription_count()
                    for s in heard)
            except InvalidHandle:
                return False

        self.wait_for(connected, 'the inputs')
        senders = {publisher.topic_name: publisher for publisher in self.node.publishers}
        for output in self.peer.subscriptions:
            if '/mapanything/' in output.topic_name:
                self.wait_for(output.get_publisher_count, output.topic_name)
                # What is sent before the node, too, knows of the other side is lost.
                self.wait_for(
                    senders[output.topic_name].get_subscription_count, output.topic_name)

    def call(self, kind: type, name: str, request: Any = None) -> Any:
        """Call a service of the node and return its answer."""
        future = self.ask(kind, name, request)
        self.wait_for(future.done, f'an answer of {name}')
        return future.result()

    def ask(self, kind: type, name: str, request: Any = None) -> Any:
        """Call a service of the node; return the future of its answer."""
        client = self.peer.create_client(kind, f'/mapanything/{name}')
        self.wait_for(client.service_is_ready, name)
        # An answer is lost where the node does not know the client yet.
        self.wait_for(lambda: 'peer' in self.node.get_node_names() and client.srv_name in dict(
            self.node.get_client_names_and_types_by_node('peer', '/')), name)
        return client.call_async(kind.Request() if request is None else request)

    def trigger(self, name: str) -> Trigger.Response:
        return self.call(Trigger, name)

    def pause(self, yes: bool) -> SetBool.Response:
        return self.call(SetBool, 'pause', SetBool.Request(data=yes))

    def change_state(self, label: str) -> bool:
        request = ChangeState.Request()
        request.transition.label = label
        return bool(self.call(ChangeState, 'change_state', request).success)

    def status(self) -> dict[str, str]:
        """Return the newest values of the diagnostics, with level and message."""
        if not self.heard['/diagnostics']:
            return {}
        status = self.heard['/diagnostics'][-1].status[0]
        values = {item.key: item.value for item in status.values}
        return {**values, 'level': status.level, 'message': status.message}

    def warnings(self, kind: str) -> int:
        return int(self.status().get(f'warnings_{kind}', 0))

    @contextmanager
    def warned(self, kind: str, *words: str) -> Iterator[None]:
        """Check that the diagnostics warn, in a sentence with these words, of what is done."""
        before = self.warnings(kind)
        yield
        self.wait_for(lambda: self.warnings(kind) > before, f'a warning {kind}')
        status = self.status()
        assert status['level'] == DiagnosticStatus.WARN
        for word in words:
            assert word in status['message'], status['message']

    # Inputs

    def mount(self) -> None:
        """Say where on the robot the camera is, and wait until the node knows."""
        self.tf_static.publish(TFMessage(
            transforms=[transform(BASE_FROM_CAMERA, header(1, 'base'), FRAME)]))
        self.wait_for(lambda: FRAME in self.node._buffer.all_frames_as_string(), 'the mounting')

    def move(self, stamp_ns: int, odom_from_base: np.ndarray) -> None:
        """Say where odometry believes the robot to be."""
        self.tf.publish(TFMessage(
            transforms=[transform(odom_from_base, header(stamp_ns, 'odom'), 'base')]))

    def move_to(self, seen: Seen, odom_from_world: np.ndarray = ODOM_FROM_WORLD) -> None:
        """Say that odometry has the robot where it looked from."""
        self.move(seen.stamp_ns, odom_from_world @ seen.world_from_camera @ CAMERA_FROM_BASE)

    def tick(self, now_ns: int) -> None:
        """Set /clock, and wait until the node has heard it."""
        self.clock.publish(Clock(clock=header(now_ns).stamp))
        self.wait_for(lambda: self.node.get_clock().now().nanoseconds == now_ns, '/clock')

    def next_stamp(self) -> int:
        self.next_ns += STEP_NS
        return self.next_ns

    def look(self, stamp_ns: int | None = None, **camera: Any) -> Seen:
        """Move on along the path and look, but send nothing yet."""
        pose = camera_on_path(self.index)
        self.index += 1
        rgb, depth_m = view_room(pose, **{**self.camera, **camera})
        seen = Seen(self.next_stamp() if stamp_ns is None else stamp_ns, pose, rgb, depth_m)
        self.backend.seen[seen.stamp_ns] = seen
        return seen

    def see(self, odom_from_world: np.ndarray = ODOM_FROM_WORLD) -> Seen:
        """Move on along the path and send all that belongs to an image there."""
        seen = self.look()
        self.send(seen, odom_from_world=odom_from_world)
        return seen

    def explore(self, count: int, anew: bool = False) -> list[Seen]:
        """See and send, each time when the node has mapped what came before (and it can)."""
        all_seen: list[Seen] = []
        for _ in range(count):
            known = self.keyframes_taken()
            all_seen.append(self.see())
            self.wait_for(lambda known=known: self.keyframes_taken() > known, 'a keyframe')
            if all_seen[1:] or known and not anew:
                self.keyframe(all_seen[-1].stamp_ns)
        return all_seen

    def keyframes_taken(self) -> int:
        """Return how many keyframes the node has taken in, mapped or not."""
        return int(self.node._reconstructor.statistics()['keyframes'])

    def send(
        self, seen: Seen, message: Image | CompressedImage | None = None,
        depth: Image | None = None, odom_from_world: np.ndarray = ODOM_FROM_WORLD,
    ) -> None:
        """Send clock, odometry and depth, where they are used, and the image."""
        if self.parameters.get('use_sim_time'):
            self.tick(seen.stamp_ns)
        if self.parameters.get('tf.odom_frame'):
            self.move_to(seen, odom_from_world)
        if self.parameters.get('use_depth'):
            self.depths.publish(depth or image(seen.depth_m, '32FC1', seen.stamp_ns))
        if message is None:
            message = self.encode(seen)
        (self.images if isinstance(message, Image) else self.compressed).publish(message)

    def calibrate(self, message: CameraInfo | None = None) -> None:
        """Send a calibration and wait until the node has it."""
        known = self.node._assembler._info
        self.infos.publish(camera_info() if message is None else message)
        self.wait_for(lambda: self.node._assembler._info is not known, 'camera_info')

    # Outputs

    def keyframe(self, stamp_ns: int) -> dict[str, Any]:
        """Wait for the whole set of messages of one keyframe."""
        def complete() -> dict[str, Any] | None:
            found = {
                name: [m for m in self.heard[f'~/keyframe/{name}'] if stamp_of(m) == stamp_ns]
                for name in KEYFRAME_TOPICS}
            return found if all(found.values()) else None
        found = self.wait_for(complete, f'keyframe {stamp_ns}')
        assert all(len(messages) == 1 for messages in found.values()), 'one set per keyframe'
        return {name: messages[0] for name, messages in found.items()}

    def path(self, length: int) -> Path:
        """Wait for a path with this many poses."""
        return self.wait_for(
            lambda: next((p for p in self.heard['~/path'][::-1] if len(p.poses) == length), None),
            f'a path of {length}')

    def wait_for_empty_map(self) -> None:
        """Wait until the map and the path are published empty, and forget those before."""
        self.wait_for(lambda: not self.newest('~/path').poses, 'an empty path')
        self.wait_for(lambda: self.newest('~/map').width == 0, 'an empty map')
        for topic in ('~/path', '~/map'):
            del self.heard[topic][:-1]

    def newest(self, topic: str) -> Any:
        return self.wait_for(lambda: self.heard[topic] and self.heard[topic][-1], topic)
