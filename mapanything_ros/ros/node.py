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

"""The lifecycle node: it wires topics, services and timers to the parts that do the work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import wraps
import os
from pathlib import Path
import signal
import sys
import time
import traceback
from typing import Any

from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu
from std_srvs.srv import SetBool, Trigger
from tf2_ros import TransformListener

from mapanything_ros.core.backends.backend import create_backend
from mapanything_ros.core.device import give_back
from mapanything_ros.core.errors import (
    BackendUnavailableError,
    ConfigError,
    ExportError,
    GpuLostError,
    InputError,
    MissingLibraryError,
)
from mapanything_ros.core.reconstructor import Reconstructor
from mapanything_ros.ros.core_log import CoreLog
from mapanything_ros.ros.diagnostics import Diagnostics, judge, RECENT_S
from mapanything_ros.ros.frames import FrameAssembler
from mapanything_ros.ros.input import info_topic, Input, transport_topic
from mapanything_ros.ros.mapper import Mapper
from mapanything_ros.ros.parameters import check_change, declare_parameters, read_config
from mapanything_ros.ros.publishers import Publishers
from mapanything_ros.ros.reporter import PERIOD_S, Reporter
from mapanything_ros.ros.tf_output import TfOutput
from mapanything_ros.ros.ticker import Ticker
from mapanything_ros.ros.tree_buffer import TreeBuffer
from mapanything_ros.ros.worker import Worker

# How often images that wait for their transform are looked at again.
RETRY_S = 0.02
DIAGNOSTICS_S = 1.0
# A clock that is set back by less is mended (NTP, two players of /clock), not a bag that begins
# again. tf2's own buffers draw the line there, too.
CLOCK_JUMP = Duration(seconds=-1)
# Exit codes: what would come again at the next start, and what a new process mends (sysexits.h).
CANNOT_START = 1
GPU_LOST = os.EX_TEMPFAIL


# Whether a service did what it was asked for, and a sentence.
Outcome = tuple[bool, str]
Transition = Callable[['MapAnythingNode', LifecycleState], TransitionCallbackReturn]


def logged(transition: Transition) -> Transition:
    """Log what goes wrong in a transition; rclpy turns it into an error without a word."""
    @wraps(transition)
    def call(node: MapAnythingNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception:
            node.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.ERROR
    return call


class MapAnythingNode(LifecycleNode):
    """
    Maps what a camera sees.

    Configure loads the backend and advertises, activate subscribes, deactivate keeps the map,
    cleanup gives everything back. Callbacks convert and call; windows run in the worker's thread.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__('mapanything', **kwargs)
        declare_parameters(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._wall = Clock(clock_type=ClockType.STEADY_TIME)
        self._worker: Worker | None = None
        # What configure took, and how to give it back.
        self._taken = ExitStack()
        # Why the GPU is of no use to this process any more.
        self.gpu_lost = ''
        # They answer late: they must not keep other callbacks waiting, nor go before that.
        late = ReentrantCallbackGroup()
        for name, callback in (
            ('~/reconstruct', self._on_reconstruct), ('~/save', self._on_save),
            ('~/reset', self._on_reset),
        ):
            self.create_service(Trigger, name, self._late(callback), callback_group=late)
        # What deactivate destroys; the image comes first.
        self._inputs: list[Input] = []
        self._imu: Input | None = None
        self._clocks: list[Timer] = []
        self._tf_ticker: Ticker | None = None

    @property
    def autostart(self) -> bool:
        """Say whether to configure and activate without being told to."""
        return bool(self.get_parameter('autostart').value)

    # Transitions

    @logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the backend; fail, with the reason logged, where it cannot run."""
        with ExitStack() as taken:
            reporter = Reporter(self.get_logger())
            core_log = CoreLog(self.get_logger(), reporter)
            taken.callback(core_log.close)
            try:
                config = read_config(self)
                backend = create_backend(config)
                reconstructor = Reconstructor(config, backend)
            except GpuLostError as error:
                self._on_gpu_lost(str(error))
                return TransitionCallbackReturn.FAILURE
            except (ConfigError, BackendUnavailableError, MissingLibraryError) as error:
                self.get_logger().error(f'cannot configure: {error}')
                return TransitionCallbackReturn.FAILURE
            taken.callback(self._forget_backend)
            self._config, self._backend, self._reporter = config, backend, reporter
            self._buffer = TreeBuffer()
            listener = TransformListener(self._buffer, self)
            taken.callback(listener.unregister)
            self._reconstructor = reconstructor
            self._assembler = FrameAssembler(config, self._buffer, self._reporter)
            outputs = Publishers(self, config.tf)
            taken.callback(outputs.destroy, self)
            self._tf_output = TfOutput(self, config, self._buffer, self._reporter)
            taken.callback(self._tf_output.destroy)
            self._mapper = Mapper(
                config, self._reconstructor, outputs, self._tf_output, self._reporter,
                self.get_logger(), self.get_clock(), self._on_gpu_lost)
            self._diagnostics = Diagnostics(self, config.backend)
            taken.callback(self._diagnostics.destroy)
            self._paused = False
            self._images = 0
            self._image_s = time.monotonic()
            jump = self.get_clock().create_jump_callback(
                JumpThreshold(
                    min_forward=None, min_backward=CLOCK_JUMP, on_clock_change=False),
                post_callback=self._guarded(self._on_clock_jump))
            taken.callback(jump.unregister)
            taken.callback(self.destroy_service, self.create_service(
                SetBool, '~/pause', self._on_pause))
            taken.callback(
                self.destroy_timer, self._every(DIAGNOSTICS_S, self._on_report_timer))
            self._saver = ThreadPoolExecutor(1, 'mapanything_saver')
            taken.callback(self._saver.shutdown)
            self._worker = Worker(self._mapper.infer, self._mapper.idle)
            taken.callback(self._stop_worker)
            self._worker.start()
            taken.callback(self._unsubscribe)
            self._taken = taken.pop_all()
        self.get_logger().info(
            f'backend: {backend.name} on {config.device}; poses: '
            f'{"odometry" if config.pose_source == "tf" else "from the images"}; depth input: '
            f'{"yes" if config.use_depth else "no"}; tf: {config.tf_mode}')
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        config = self._config
        if config.image_transport == 'compressed':
            self._subscribe(
                CompressedImage, transport_topic(self, 'image', 'compressed'), self._on_image)
        else:
            self._subscribe(Image, 'image', self._on_image)
        if config.use_camera_info:
            self._subscribe(CameraInfo, 'camera_info', self._assembler.add_camera_info)
        if config.use_depth:
            if config.depth_transport == 'compressedDepth':
                self._subscribe(
                    CompressedImage, transport_topic(self, 'depth', 'compressedDepth'),
                    self._assembler.add_depth)
            else:
                self._subscribe(Image, 'depth', self._assembler.add_depth)
            self._subscribe(
                CameraInfo, info_topic(self, 'depth'), self._assembler.add_depth_camera_info)
        if config.odometry_source == 'topic':
            self._subscribe(Odometry, 'odometry', self._on_odometry)
        self._clocks = [
            self._every(RETRY_S, self._retry),
        ]
        self._image_s = time.monotonic()
        self._tf_output.active = True
        # Other nodes wait for it in vain while a callback takes its time.
        self._tf_ticker = Ticker(1.0 / config.tf.rate_hz, self._guarded(self._on_tf_tick))
        self._tf_ticker.start()
        done = super().on_activate(state)
        if self._worker:
            # What a window that was in flight at deactivation has changed.
            self._worker.finish(self._guarded(self._mapper.publish_map))
        return done

    @logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; a window in flight still goes into the map, but is not published."""
        self._unsubscribe()
        self._tf_output.active = False
        return super().on_deactivate(state)

    @logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Wait for the window in flight, then give everything back."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Do as cleanup does."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    @logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to unconfigured after a transition that broke, for another try."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def release(self) -> None:
        """Stop the worker and give back all that configure and activate took."""
        self._taken.close()

    def _stop_worker(self) -> None:
        if self._worker is not None:
            self._worker.stop()
        self._worker = None

    def _forget_backend(self) -> None:
        for name in ('_mapper', '_reconstructor', '_backend'):
            vars(self).pop(name, None)
        give_back()

    def _on_gpu_lost(self, reason: str) -> None:
        # Said first: whoever sees the flag ends the process.
        self.get_logger().fatal(f'{reason}; this process ends')
        self.gpu_lost = reason

    # Input

    def _subscribe(self, kind: type, topic: str, callback: Callable[[Any], None]) -> None:
        self._inputs.append(Input(self, kind, topic, self._guarded(callback)))

    def _unsubscribe(self) -> None:
        for source in self._inputs:
            source.destroy()
        for timer in self._clocks:
            self.destroy_timer(timer)
        if self._tf_ticker:
            self._tf_ticker.stop()
        self._inputs, self._clocks, self._tf_ticker = [], [], None
        self._imu = None

    def _every(self, period_s: float, callback: Callable[[], None]) -> Timer:
        """Call back by the wall, so that a /clock that stands still is noticed."""
        return self.create_timer(period_s, self._guarded(callback), clock=self._wall)

    def _guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """Keep the node alive whatever a message does."""
        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:
                self.get_logger().error(traceback.format_exc(), throttle_duration_sec=PERIOD_S)
                self._reporter.warn('internal', f'a message could not be handled: {error!r}')
        return call

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._images += 1
        self._image_s = time.monotonic()
        if self._paused:
            return
        if self._assembler.add_image(message, self.get_clock().now().nanoseconds):
            self._buffer.clear()
            self._restart('the images are older than before, as when a bag starts again')
        self._drain()

    def _on_odometry(self, message: Odometry) -> None:
        self._assembler.odometry.add(message)
        self._mapper.take_frames(self._assembler.odometry.tf)

    def _retry(self) -> None:
        self._listen_to_imu()
        for source in self._inputs:
            source.adapt()
        self._drain()

    def _listen_to_imu(self) -> None:
        """Listen until the map has begun: each message costs the executor a millisecond."""
        if self._reconstructor.wants_up == (self._imu is not None):
            return
        if self._imu is None:
            self._assembler.level.reset()
            self._subscribe(Imu, 'imu', self._assembler.level.add)
            self._imu = self._inputs[-1]
        else:
            self._inputs.remove(self._imu)
            self._imu.destroy()
            self._imu = None

    def _drain(self) -> None:
        for frame in self._assembler.frames():
            try:
                decision = self._reconstructor.add(frame)
            except InputError as error:
                self._reporter.warn('image', str(error))
                continue
            self._tf_output.follow(frame.stamp_ns, decision)
            if decision.accepted and self._worker:
                self._worker.wake()

    def _on_clock_jump(self, jump: TimeJump) -> None:
        self._buffer.clear()
        self._assembler.odometry.clear()
        self._assembler.reset()
        self._restart(f'the clock jumped back by {-jump.delta.nanoseconds * 1e-9:.3f} s')

    def _restart(self, reason: str) -> Future:
        """Forget what came in at once, and the map when nobody is at it; return when it is."""
        self.get_logger().warning(f'the map starts again: {reason}')
        self._reconstructor.restart()
        assert self._worker is not None, 'it comes before what calls this, and goes after'
        return _begun(self._worker.finish, self._clear)

    def _clear(self) -> Outcome:
        self._mapper.clear()
        return True, 'map, path and keyframes are forgotten'

    # Services

    def _late(self, answer: Callable[[], Awaitable[Outcome]]) -> Callable[[Any, Any], Any]:
        """Make a service of what says, some time, whether it succeeded, and a sentence."""
        async def call(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            outcome = False, 'the node is not configured'
            try:
                if self._worker:
                    outcome = await answer()
            except Exception as error:
                self.get_logger().error(traceback.format_exc())
                outcome = False, f'it failed: {error!r}'
            response.success, response.message = outcome
            return response
        return call

    async def _on_reset(self) -> Outcome:
        self._assembler.reset()
        outcome: Outcome = await self._restart('asked for by ~/reset')
        return outcome

    async def _on_save(self) -> Outcome:
        outcome: Outcome = await _begun(self._saver.submit, self._save)
        return outcome

    def _save(self) -> Outcome:
        try:
            paths = self._reconstructor.save(_folder(self._config.output.directory))
        except ExportError as error:
            self.get_logger().error(f'cannot save: {error}')
            return False, str(error)
        return True, 'wrote ' + ', '.join(str(path) for path in paths)

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._paused = request.data
        response.success = True
        response.message = 'paused: images are ignored' if self._paused else 'mapping goes on'
        return response

    async def _on_reconstruct(self) -> Outcome:
        answer = Future()
        progress = self._mapper.progress
        windows = progress.windows
        if self._worker:
            self._worker.request(answer)
        sentence: str = await answer
        return progress.windows > windows, sentence

    # Timers

    def _on_tf_tick(self) -> None:
        self._tf_output.tick(self.get_clock().now().nanoseconds)

    def _on_report_timer(self) -> None:
        if time.monotonic() - self._image_s > RECENT_S:
            self._reconstructor.rest()
        if self._worker:
            # Somebody may listen to the map only now, or its time may have come.
            self._worker.wake()
        # Before the judgement: a warning that is counted is judged, too.
        warnings = {f'warnings_{kind}': n for kind, n in sorted(self._reporter.counts.items())}
        progress = self._mapper.progress
        scale = progress.scale
        state = self._state_machine.current_state[1]
        level, message = judge(
            clock_ns=self.get_clock().now().nanoseconds,
            state='paused' if self._paused and state == 'active' else state,
            topic=self._inputs[0].topic if self._inputs else '',
            publishers=self.count_publishers(self._inputs[0].topic) if self._inputs else 0,
            image_age_s=time.monotonic() - self._image_s, problem=self._reporter.latest,
            problem_age_s=self._reporter.age_s(), windows=progress.windows,
            metric=scale is None or scale.metric)
        self._diagnostics.publish(level, message, {
            'state': state,
            'backend': self._config.backend,
            'device': self._config.device,
            'images': self._images,
            'images_without_depth': self._assembler.without_depth,
            **self._reconstructor.statistics(),
            **progress.values(),
            **self._backend.statistics(),
            **warnings,
            'last_problem': self._reporter.latest,
        })

    # Parameters

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        return check_change(self, changes, configured=self._worker is not None)


def _begun(
    submit: Callable[[Callable[[], None]], object], work: Callable[[], Outcome],
) -> Future:
    """Have another thread do a piece of work; return what becomes of it."""
    done = Future()

    def job() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    submit(job)
    return done


def _folder(name: str) -> Path:
    """Return the folder of a name, which may begin with ~; raise ExportError if it is none."""
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise ExportError(f'output.directory is {name!r}, but nobody here has such a name: give '
                          'a folder') from error


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; return CANNOT_START or GPU_LOST where that is so."""
    # rclpy's own handlers would take the context away from the window in flight.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        node = MapAnythingNode()
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f'mapanything_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return CANNOT_START
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    code = 0
    try:
        if node.autostart and not _started(node):
            code = CANNOT_START
        while not code and not node.gpu_lost and rclpy.ok():
            # Python sees a signal only between two waits.
            executor.spin_once(timeout_sec=0.5)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.release()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    if node.gpu_lost:
        # Not through what still holds memory of the GPU: giving that back aborts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(GPU_LOST)
    return code


def _started(node: MapAnythingNode) -> bool:
    good = TransitionCallbackReturn.SUCCESS
    return node.trigger_configure() == good and node.trigger_activate() == good


if __name__ == '__main__':
    sys.exit(main())
