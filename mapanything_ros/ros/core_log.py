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

"""What the core says through Python's logging, in the node's log and diagnostics."""

from __future__ import annotations

import logging

from rclpy.impl.rcutils_logger import RcutilsLogger

from mapanything_ros.ros.reporter import Reporter

CORE = 'mapanything_ros'


class CoreLog(logging.Handler):
    """Hands the core's records on until it is closed; the reporter counts the warnings."""

    def __init__(self, logger: RcutilsLogger, reporter: Reporter) -> None:
        super().__init__(logging.INFO)
        self._logger = logger
        self._reporter = reporter
        logging.getLogger(CORE).setLevel(logging.INFO)
        logging.getLogger(CORE).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        if record.levelno >= logging.WARNING:
            self._reporter.warn('backend', record.getMessage(), str(record.msg))
        else:
            self._logger.info(record.getMessage())

    def close(self) -> None:
        """Stop handing on."""
        logging.getLogger(CORE).removeHandler(self)
        super().close()
