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
from collections import namedtuple
from collections.abc import Iterable, Sequence
import sys
from typing import Any

import numpy as np
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

DUMMY_FIELD_PREFIX = 'unnamed_field'

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


def dtype_from_fields(fields: Iterable[PointField], point_step: int | None = None) -> np.dtype:
    """
    Return the structured dtype of a cloud's points.

    A field with a count above one becomes name_0, name_1, ...; one without a name becomes
    `unnamed_field_<index>`. `point_step` is the size of a point in bytes, padding included.
    """
    names: list[str] = []
    offsets: list[int] = []
    formats: list[str] = []
    for index, field in enumerate(fields):
        assert field.count > 0, "Can't process fields with count = 0."
        datatype = _DATATYPES[field.datatype]
        name = field.name or f'{DUMMY_FIELD_PREFIX}_{index}'
        for part in range(field.count):
            part_name = f'{name}_{part}' if field.count > 1 else name
            assert part_name not in names, 'Duplicate field names are not allowed!'
            names.append(part_name)
            offsets.append(field.offset + part * datatype.itemsize)
            formats.append(datatype.str)
    layout: Any = {'names': names, 'formats': formats, 'offsets': offsets}
    if point_step is not None:
        layout['itemsize'] = point_step
    return np.dtype(layout)


def read_points(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """
    Return a cloud's points as a structured array, as a view on the message where possible.

    `uvs` are indices into the points. An organized cloud comes back as (width, height), as the
    original has it.
    """
    assert isinstance(cloud, PointCloud2), 'Cloud is not a sensor_msgs.msg.PointCloud2'
    points = np.ndarray(
        shape=(cloud.width * cloud.height,),
        dtype=dtype_from_fields(cloud.fields, point_step=cloud.point_step),
        buffer=cloud.data,
    )
    names = points.dtype.names or ()
    if field_names is not None:
        assert all(name in names for name in field_names), (
            'Requests field is not in the fields of the PointCloud!'
        )
        points = points[list(field_names)]
    if cloud.is_bigendian != (sys.byteorder == 'big'):
        points = points.byteswap()
    if skip_nans and not cloud.is_dense:
        has_nan = np.zeros(len(points), dtype=bool)
        for name in points.dtype.names or ():
            has_nan |= np.isnan(points[name])
        points = points[~has_nan]
    if uvs is not None:
        points = points[uvs if isinstance(uvs, np.ndarray) else np.fromiter(uvs, int)]
    if reshape_organized_cloud and cloud.height > 1:
        points = points.reshape(cloud.width, cloud.height)
    return points


def read_points_numpy(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
    reshape_organized_cloud: bool = False,
) -> np.ndarray:
    """Return a cloud's points as a plain array with one column a field; they share one type."""
    datatypes = {
        field.datatype
        for field in cloud.fields
        if field_names is None or field.name in field_names
    }
    assert len(datatypes) <= 1, (
        'All fields need to have the same datatype. Use `read_points()` otherwise.'
    )
    return structured_to_unstructured(
        read_points(cloud, field_names, skip_nans, uvs, reshape_organized_cloud)
    )


def read_points_list(
    cloud: PointCloud2,
    field_names: Sequence[str] | None = None,
    skip_nans: bool = False,
    uvs: Iterable[int] | None = None,
) -> list[Any]:
    """Return a cloud's points as a list of named tuples."""
    assert isinstance(cloud, PointCloud2), 'cloud is not a sensor_msgs.msg.PointCloud2'
    if field_names is None:
        field_names = [field.name for field in cloud.fields]
    point_type = namedtuple('Point', field_names)  # type: ignore[misc]
    return [point_type._make(point) for point in read_points(cloud, field_names, skip_nans, uvs)]


def create_cloud(
    header: Header,
    fields: Sequence[PointField],
    points: Any,
    point_step: int | None = None,
) -> PointCloud2:
    """
    Return a cloud of a structured array, of a plain one, or of an iterable of points.

    Points in two dimensions make an organized cloud, read as (width, height) as in the original.
    """
    dtype = dtype_from_fields(fields, point_step)
    if not isinstance(points, np.ndarray):
        points = np.array(list(map(tuple, points)), dtype=dtype)
    elif points.dtype.names is None:
        assert all(fields[0].datatype == field.datatype for field in fields[1:]), (
            'All fields need to have the same datatype. Pass a structured NumPy array '
            'with multiple dtypes otherwise.'
        )
        points = unstructured_to_structured(points, dtype=dtype)
    else:
        assert points.dtype == dtype, (
            'PointFields and structured NumPy array dtype do not match for all fields! '
            'Check their field order, names and types.'
        )
    assert points.ndim <= 2, (
        'Too many dimensions for organized cloud! '
        'Points can only be organized in max. two dimensional space'
    )
    width = points.shape[0]
    cloud = PointCloud2(
        header=header,
        height=points.shape[1] if points.ndim == 2 else 1,
        width=width,
        is_dense=False,
        is_bigendian=sys.byteorder == 'big',
        fields=fields,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * width,
    )
    # An array.array passes the setter's check at once; anything else is checked byte by byte.
    cloud.data = array.array('B', points.tobytes())
    return cloud


def create_cloud_xyz32(header: Header, points: Any) -> PointCloud2:
    """Return a cloud of float32 fields x, y and z in metres."""
    fields = [
        PointField(name=name, offset=4 * index, datatype=PointField.FLOAT32, count=1)
        for index, name in enumerate('xyz')
    ]
    return create_cloud(header, fields, points)
