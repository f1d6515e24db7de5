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

"""The scale of the map, as window after window tells it."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

from mapanything_ros.core.scale import Evidence

# Evidence farther than this from the map's scale, in standard deviations, contradicts it.
GATE = 4.0
# How much odometry's own scale changes from window to window (log), on other ground say.
ODOMETRY_DRIFT = 0.005


@dataclass(frozen=True)
class Fused:
    """
    The factor of a window, and its standard deviation (log).

    ``conflict`` says that an anchor was refused, ``outvotes`` that an anchor refuses the map.
    """

    factor: float
    sigma: float
    conflict: bool = False
    outvotes: bool = False


@dataclass(frozen=True)
class Measured:
    """
    What is known of a window's scale: by the map, by the source of scale, by odometry.

    ``bridged`` says that the map's part is by odometry alone, for want of shared pixels.
    """

    chain: Evidence | None
    anchor: Evidence | None
    odometry: Evidence | None
    bridged: bool = False


class MapScale:
    """
    How sure the map's scale is, who contradicts it, and how odometry's lengths relate to it.

    ``metric`` says whether the map is in metres.
    """

    def __init__(self) -> None:
        """Know nothing: there is no map yet."""
        self.metric = False
        self._sigma = math.inf
        self._map_per_odometry: Fused | None = None
        self._agreed = 0
        self._contradictions: list[float] = []

    def bridged(self, odometry: Evidence | None) -> Evidence | None:
        """Return what odometry says of a window in the map's scale; None where it cannot."""
        if odometry is None or self._map_per_odometry is None:
            return None
        known = self._map_per_odometry
        return replace(
            odometry, source='map', factor=odometry.factor * known.factor,
            sigma=math.hypot(odometry.sigma, known.sigma))

    def fuse(self, measured: Measured) -> Fused | None:
        """Return the window's factor; None where nothing tells it."""
        return fuse(measured.chain, self._sigma, measured.anchor)

    def outvoted(self, measured: Measured) -> bool:
        """
        Take note of an anchor that contradicts the map; say whether the map is wrong.

        It is where more anchors that agree have contradicted it than have made it.
        """
        assert measured.chain is not None and measured.anchor is not None
        ratio = math.log(measured.anchor.factor / measured.chain.factor)
        self._contradictions.append(ratio)
        reach = GATE * math.sqrt(2.0) * measured.anchor.sigma
        return sum(abs(other - ratio) <= reach for other in self._contradictions) > self._agreed

    def remember(self, measured: Measured, fused: Fused, metric: bool) -> None:
        """Take in the scale of a window that has been placed."""
        self.metric = metric
        self._sigma = fused.sigma
        self._agreed += measured.anchor is not None and not fused.conflict
        if measured.odometry is None or not metric:
            return
        known = None
        if self._map_per_odometry is not None:
            # The scale of the map has moved, by this much.
            moved = fused.factor / measured.chain.factor if measured.chain else 1.0
            known = Evidence('map', self._map_per_odometry.factor * moved, 0.0, ODOMETRY_DRIFT)
        self._map_per_odometry = fuse(
            known, self._map_per_odometry.sigma if self._map_per_odometry else math.inf,
            replace(measured.odometry, factor=fused.factor / measured.odometry.factor))


def fuse(
    chain: Evidence | None, chain_sigma: float, anchor: Evidence | None,
) -> Fused | None:
    """
    Combine what the map and an anchor say of a window's scale; None where neither says anything.

    ``chain`` compares the window with the map, whose own scale is certain to ``chain_sigma``.
    The two are weighted by their variances (a Kalman filter of the scale's logarithm, one step a
    window). An anchor that contradicts the map is refused: it would bend the map, and a map that
    was anchored all along is more likely right. Where the map's own scale is not known at all
    (``chain_sigma`` infinite) the anchor alone counts.
    """
    if anchor is not None and (chain is None or math.isinf(chain_sigma)):
        return Fused(anchor.factor, anchor.sigma)
    if chain is None:
        return None
    prior = Fused(chain.factor, math.hypot(chain.sigma, chain_sigma))
    if anchor is None:
        return prior
    innovation = math.log(anchor.factor / prior.factor)
    if abs(innovation) > GATE * math.hypot(prior.sigma, anchor.sigma):
        return replace(prior, conflict=True)
    gain = prior.sigma ** 2 / (prior.sigma ** 2 + anchor.sigma ** 2)
    return Fused(
        prior.factor * math.exp(gain * innovation), math.sqrt(1.0 - gain) * prior.sigma)
