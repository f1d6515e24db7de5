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

"""What one child frame knows about its parent over time."""

from bisect import bisect_right
from dataclasses import dataclass

from tf2_py.exceptions import ExtrapolationException
from tf2_py.rigid import interpolate, Rigid


@dataclass(frozen=True)
class Sample:
    stamp_ns: int
    parent: str
    parent_from_child: Rigid


class StaticCache:
    """The newest sample, valid at all times."""

    stamps_ns: tuple[int, ...] = (0,)

    def __init__(self) -> None:
        self._sample: Sample | None = None

    @property
    def latest(self) -> Sample | None:
        """The sample, with the stamp 0, which the latest common time leaves out."""
        return self._sample

    def insert(self, sample: Sample) -> bool:
        self._sample = Sample(0, sample.parent, sample.parent_from_child)
        return True

    def get(self, stamp_ns: int) -> Sample:
        if self._sample is None:
            raise ExtrapolationException('')
        return self._sample

    def clear(self) -> None:
        """Keep the sample: a static transform outlives a clock that jumps."""


class TimeCache:
    """Samples of the last `cache_time_ns`, in the order of their stamps."""

    def __init__(self, cache_time_ns: int) -> None:
        self._cache_time_ns = cache_time_ns
        self._samples: list[Sample] = []
        self.stamps_ns: list[int] = []

    @property
    def latest(self) -> Sample | None:
        return self._samples[-1] if self._samples else None

    def insert(self, sample: Sample) -> bool:
        """Add a sample; refuse one that is older than the cache reaches back."""
        if self._samples:
            oldest_ns = self.stamps_ns[-1] - self._cache_time_ns
            # In the original, too, what is too old goes when the next sample comes.
            expired = next(i for i, stamp in enumerate(self.stamps_ns) if stamp >= oldest_ns)
            del self._samples[:expired], self.stamps_ns[:expired]
            if sample.stamp_ns < oldest_ns:
                return False
        index = bisect_right(self.stamps_ns, sample.stamp_ns)
        if sample not in self._samples[bisect_right(self.stamps_ns, sample.stamp_ns - 1):index]:
            self._samples.insert(index, sample)
            self.stamps_ns.insert(index, sample.stamp_ns)
        return True

    def get(self, stamp_ns: int) -> Sample:
        """Return the sample at a time, interpolated; 0 asks for the newest."""
        if not self._samples:
            raise ExtrapolationException('')
        first, last = self._samples[0], self._samples[-1]
        if stamp_ns in (0, last.stamp_ns):
            return last
        if stamp_ns == first.stamp_ns:
            return first
        _refuse_extrapolation(stamp_ns, self.stamps_ns)
        index = bisect_right(self.stamps_ns, stamp_ns)
        before, after = self._samples[index - 1], self._samples[index]
        if before.parent != after.parent:
            return before
        ratio = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)
        between = interpolate(before.parent_from_child, after.parent_from_child, ratio)
        return Sample(stamp_ns, before.parent, between)

    def clear(self) -> None:
        self._samples.clear()
        self.stamps_ns.clear()


def _refuse_extrapolation(stamp_ns: int, stamps_ns: list[int]) -> None:
    asked, first, last = (f'{ns / 1e9:.6f}' for ns in (stamp_ns, stamps_ns[0], stamps_ns[-1]))
    if len(stamps_ns) == 1:
        raise ExtrapolationException(
            f'Lookup would require extrapolation at time {asked}, '
            f'but only time {last} is in the buffer'
        )
    if stamp_ns > stamps_ns[-1]:
        raise ExtrapolationException(
            f'Lookup would require extrapolation into the future.  Requested time {asked} '
            f'but the latest data is at time {last}'
        )
    if stamp_ns < stamps_ns[0]:
        raise ExtrapolationException(
            f'Lookup would require extrapolation into the past.  Requested time {asked} '
            f'but the earliest data is at time {first}'
        )
