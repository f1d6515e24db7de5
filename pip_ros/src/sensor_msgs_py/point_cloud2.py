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

"""Read and write sensor_msgs/PointCloud2 with numpy."""

import array
from collections.abc import Sequence
import sys
from typing import Any

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

_DATATYPES: dict[int, np.dtype[Any]] = {
    PointField.INT8: np.dtype(np.int8),
    PointField.UINT8: np.dtype(np.uint8),
    PointField.INT16: np.dtype(np.int16),
    PointField.UINT16: np.dtype(np.uint16),
    PointField.INT32: np.dtype(np.int32),
    PointField.UINT32: np.dtype(np.uint32),
    PointField.FLOAT32: np.dtype(np.float32),
    PointField.FLOAT64: np.dtype(np.float64),
}


def dtype_from_fields(fields: Sequence[PointField], point_step: int | None = None) -> np.dtype:
    """
    Return the structured dtype of a cloud's points, of fields with a name and a count of one.

    `point_step` is the size of a point in bytes, padding included.
    """
    layout: Any = {
        'names': [field.name for field in fields],
        'formats': [_DATATYPES[field.datatype] for field in fields],
        'offsets': [field.offset for field in fields],
    }
    if point_step is not None:
        layout['itemsize'] = point_step
    return np.dtype(layout)


def read_points(cloud: PointCloud2) -> np.ndarray:
    """Return a cloud's points as a structured array, as a view on the message."""
    return np.ndarray(
        shape=(cloud.width * cloud.height,),
        dtype=dtype_from_fields(cloud.fields, point_step=cloud.point_step),
        buffer=cloud.data,
    )


def create_cloud(header: Header, fields: Sequence[PointField], points: np.ndarray) -> PointCloud2:
    """Return a cloud of a structured array (N,) with the type of the fields."""
    assert points.dtype == dtype_from_fields(fields), (
        'PointFields and structured NumPy array dtype do not match for all fields! '
        'Check their field order, names and types.'
    )
    cloud = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        is_dense=False,
        is_bigendian=sys.byteorder == 'big',
        fields=fields,
        point_step=points.dtype.itemsize,
        row_step=points.nbytes,
    )
    # An array.array passes the setter's check at once; anything else is checked byte by byte.
    cloud.data = array.array('B', points.tobytes())
    return cloud
