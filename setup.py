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

from glob import glob

from setuptools import find_packages, setup

PACKAGE = 'mapanything_ros'

setup(
    name=PACKAGE,
    version='0.1.0',
    description="Turns a robot's camera into a metric 3D map with MapAnything or COLMAP.",
    license='Apache-2.0',
    maintainer='The mapanything_ros Authors',
    maintainer_email='maintainers@example.org',
    python_requires='>=3.10',
    # What the tests run on; nobody has tried Lyrical's 3.14.
    classifiers=[f'Programming Language :: Python :: {version}'
                 for version in ('3.10', '3.11', '3.12')],
    install_requires=['setuptools'],
    extras_require={'rerun': ['rerun-sdk>=0.26']},
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={f'{PACKAGE}.offline.report': ['page.css', 'page.js']},
    zip_safe=True,
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        (f'share/{PACKAGE}/config', glob('config/*.*')),
        (f'share/{PACKAGE}/config/cameras', glob('config/cameras/*')),
        (f'share/{PACKAGE}/launch', glob('launch/*')),
    ],
    entry_points={
        'console_scripts': [
            'mapanything_node = mapanything_ros.cli.commands:mapanything_node',
            'demo = mapanything_ros.cli.commands:demo',
            'evaluate = mapanything_ros.cli.commands:evaluate',
            'reconstruct = mapanything_ros.cli.commands:reconstruct',
            'sample = mapanything_ros.cli.commands:sample',
            'weights = mapanything_ros.cli.weights:main',
        ],
    },
)
