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

"""The tree of frames: what came over /tf and /tf_static, and lookups in it."""

from collections.abc import Iterator
import math
import threading
from typing import Any

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.logging import get_logger

from tf2_py.exceptions import (
    ConnectivityException,
    ExtrapolationException,
    InvalidArgumentException,
    LookupException,
    TransformException,
)
from tf2_py.rigid import canonical, compose, IDENTITY, invert, Rigid
from tf2_py.time_cache import Sample, StaticCache, TimeCache

MAX_GRAPH_DEPTH = 1000
DEFAULT_CACHE_TIME = Duration(seconds=10)


class BufferCore:
    """
    Hold transforms for a while and answer lookups between any two frames of a tree.

    Times are `rclpy.time.Time` or `builtin_interfaces.msg.Time`; zero means the latest time at
    which every transform on the way is known. Safe to use from several threads.
    """

    def __init__(self, cache_time: Any = DEFAULT_CACHE_TIME) -> None:
        self._cache_time_ns = _nanoseconds(cache_time)
        self._lock = threading.RLock()
        # Every frame ever named; None for one that was only seen as a parent.
        self._frames: dict[str, StaticCache | TimeCache | None] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform; one that makes no sense is logged and ignored, as in the original."""
        self._insert(transform, authority, is_static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform that is valid at all times."""
        self._insert(transform, authority, is_static=True)

    def clear(self) -> None:
        """Forget all transforms but the static ones; the frames stay known."""
        with self._lock:
            for cache in self._frames.values():
                if cache is not None:
                    cache.clear()

    def lookup_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> TransformStamped:
        """Return target_from_source at a time; raise a TransformException where there is none."""
        with self._lock:
            transform, stamp_ns = self._lookup(target_frame, source_frame, _nanoseconds(time))
        return _to_message(transform, target_frame, source_frame, stamp_ns)

    def can_transform_core(
        self, target_frame: str, source_frame: str, time: Any
    ) -> tuple[bool, str]:
        """Return whether a lookup would succeed, and if not, why."""
        if target_frame == source_frame:
            return True, ''
        with self._lock:
            reason = self._reason_against(target_frame=target_frame, source_frame=source_frame)
            if reason is not None:
                return False, reason
            try:
                self._walk(target_frame, source_frame, _nanoseconds(time))
            except TransformException as error:
                return False, str(error)
        return True, ''

    def all_frames_as_string(self) -> str:
        """Return one sentence for each frame that has a parent."""
        with self._lock:
            return ''.join(
                f'Frame {child} exists with parent {_parent(cache)}.\n'
                for child, cache in self._frames.items()
                if cache is not None
            )

    def _insert(self, message: TransformStamped, authority: str, is_static: bool) -> None:
        parent = message.header.frame_id.removeprefix('/')
        child = message.child_frame_id.removeprefix('/')
        transform = _from_message(message)
        reason = _reason_to_ignore(parent, child, transform)
        if reason is not None:
            get_logger('tf2').error(f'{reason} (authority "{authority}")')
            return
        sample = Sample(_nanoseconds(message.header.stamp), parent, transform)
        with self._lock:
            cache = self._frames.get(child)
            if cache is None or isinstance(cache, StaticCache) != is_static:
                cache = StaticCache() if is_static else TimeCache(self._cache_time_ns)
                self._frames[child] = cache
            self._frames.setdefault(parent, None)
            accepted = cache.insert(sample)
        if not accepted:
            get_logger('tf2').warning(
                f'TF_OLD_DATA ignoring data from the past for frame {child} at time '
                f'{sample.stamp_ns / 1e9:.6f} according to authority {authority}'
            )

    def _validate(self, argument: str, frame: str) -> None:
        if not frame:
            raise InvalidArgumentException(
                f'Invalid argument "" passed to {argument} - in tf2 frame_ids cannot be empty'
            )
        if frame.startswith('/'):
            raise InvalidArgumentException(
                f'Invalid argument "{frame}" passed to {argument} - '
                "in tf2 frame_ids cannot start with a '/'"
            )
        if frame not in self._frames:
            raise LookupException(f'"{frame}" passed to {argument} does not exist. ')

    def _reason_against(self, **frames: str) -> str | None:
        for argument, frame in frames.items():
            if not frame:
                reason = 'in tf2 frame_ids cannot be empty'
            elif frame.startswith('/'):
                reason = "in tf2 frame_ids cannot start with a '/'"
            elif frame not in self._frames:
                reason = 'frame does not exist'
            else:
                continue
            return (
                f'Invalid frame ID "{frame}" passed to canTransform argument {argument} - {reason}'
            )
        return None

    def _lookup(self, target: str, source: str, stamp_ns: int) -> tuple[Rigid, int]:
        if target == source:
            return IDENTITY, stamp_ns or self._latest_stamp(target)
        self._validate('lookupTransform argument target_frame', target)
        self._validate('lookupTransform argument source_frame', source)
        return self._walk(target, source, stamp_ns)

    def _walk(self, target: str, source: str, stamp_ns: int) -> tuple[Rigid, int]:
        """Climb from the source to its root, then from the target until the two paths meet."""
        if target == source:
            return IDENTITY, stamp_ns
        if stamp_ns == 0:
            stamp_ns = self._latest_common_time(target, source)

        suffix = f', when looking up transform from frame [{source}] to frame [{target}]'
        frame, top_from_source, gap = source, IDENTITY, None
        for _ in self._steps():
            cache = self._frames[frame]
            if cache is None:
                break
            try:
                sample = cache.get(stamp_ns)
            except ExtrapolationException as error:
                gap = error  # no error yet: the target may be below this frame
                break
            if frame == target:
                return top_from_source, stamp_ns
            top_from_source = compose(sample.parent_from_child, top_from_source)
            frame = sample.parent

        top, frame, top_from_target = frame, target, IDENTITY
        for _ in self._steps():
            cache = self._frames[frame]
            if frame == top or cache is None:
                break
            try:
                sample = cache.get(stamp_ns)
            except ExtrapolationException as error:
                raise ExtrapolationException(f'{error}{suffix}') from error
            if frame == source:
                return invert(top_from_target), stamp_ns
            top_from_target = compose(sample.parent_from_child, top_from_target)
            frame = sample.parent

        if frame == top:
            return compose(invert(top_from_target), top_from_source), stamp_ns
        if gap is not None:
            raise ExtrapolationException(f'{gap}{suffix}')
        raise _not_connected(target, source)

    def _latest_common_time(self, target: str, source: str) -> int:
        """Return the newest time that all transforms on the way share; 0 if all are static."""
        if target == source:
            return self._latest_stamp(target)
        above_source: list[tuple[str, int]] = []
        for parent, stamp_ns in self._latest_above(source):
            above_source.append((parent, stamp_ns))
            if parent == target:
                return _earliest(stamp for _, stamp in above_source)
        above_target: list[int] = []
        for parent, stamp_ns in self._latest_above(target):
            above_target.append(stamp_ns)
            if parent == source:
                return _earliest(above_target)
            parents = [frame for frame, _ in above_source]
            if parent in parents:
                below_common = above_source[:parents.index(parent) + 1]
                return _earliest(above_target + [stamp for _, stamp in below_common])
        raise _not_connected(target, source)

    def _latest_stamp(self, frame: str) -> int:
        cache = self._frames.get(frame)
        return 0 if cache is None or cache.latest is None else cache.latest.stamp_ns

    def _latest_above(self, frame: str) -> Iterator[tuple[str, int]]:
        for _ in self._steps():
            cache = self._frames[frame]
            if cache is None or cache.latest is None:
                return
            frame = cache.latest.parent
            yield frame, cache.latest.stamp_ns

    def _steps(self) -> Iterator[int]:
        yield from range(MAX_GRAPH_DEPTH)
        raise LookupException(
            f'The tf tree is invalid because it contains a loop.\n{self.all_frames_as_string()}\n'
        )


def _parent(cache: StaticCache | TimeCache) -> str:
    return 'NO_PARENT' if cache.latest is None else cache.latest.parent


def _earliest(stamps_ns: Any) -> int:
    return min((stamp for stamp in stamps_ns if stamp != 0), default=0)


def _nanoseconds(time: Any) -> int:
    if hasattr(time, 'nanosec'):
        return time.sec * 1_000_000_000 + time.nanosec
    if hasattr(time, 'nanoseconds'):
        return time.nanoseconds
    raise TypeError('time must have sec and nanosec, or nanoseconds.')


def _not_connected(target: str, source: str) -> ConnectivityException:
    return ConnectivityException(
        f"Could not find a connection between '{target}' and '{source}' because they are not part "
        'of the same tree.Tf has two or more unconnected trees.'
    )


def _reason_to_ignore(parent: str, child: str, transform: Rigid) -> str | None:
    if parent == child:
        return f'TF_SELF_TRANSFORM: Ignoring transform of "{child}" to itself'
    if not child:
        return f'TF_NO_CHILD_FRAME_ID: Ignoring transform without child_frame_id in "{parent}"'
    if not parent:
        return f'TF_NO_FRAME_ID: Ignoring transform of "{child}" without frame_id'
    if any(math.isnan(number) for part in transform for number in part):
        return f'TF_NAN_INPUT: Ignoring transform of "{child}" because of a nan value {transform}'
    return None


def _from_message(message: TransformStamped) -> Rigid:
    rotation, translation = message.transform.rotation, message.transform.translation
    return Rigid(
        canonical((rotation.x, rotation.y, rotation.z, rotation.w)),
        (translation.x, translation.y, translation.z),
    )


def _to_message(transform: Rigid, target: str, source: str, stamp_ns: int) -> TransformStamped:
    message = TransformStamped()
    message.header.frame_id = target
    message.child_frame_id = source
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    rotation, translation = message.transform.rotation, message.transform.translation
    rotation.x, rotation.y, rotation.z, rotation.w = canonical(transform.quat_xyzw)
    translation.x, translation.y, translation.z = transform.translation_m
    return message
