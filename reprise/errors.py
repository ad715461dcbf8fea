"""The exceptions that a person is meant to read.

RepriseError
├── ConfigError                a config file, a key or a `key=value` override is wrong
├── StoppedRunError            a run was stopped from outside; the same command goes on
├── InputError                 a person named something that cannot be used, such as an address
├── WorkersLostError           workers of a run failed more often than its config allows
└── StorageError               a file or a folder is missing, refused, damaged or full
    ├── DamagedDataError       stored data is missing, cut short or no longer what was written
    └── TransientStorageError  a disk or a store does not answer now; trying again may help
"""

from __future__ import annotations


class RepriseError(Exception):
    """Bad input or bad configuration. The message is one line: what is wrong and what to do.

    Commands print `str(error)` without a traceback and exit with status 2. Any other exception that escapes
    is a bug.
    """


class ConfigError(RepriseError):
    """A config file, one of its keys, or a `key=value` override is wrong."""


class StoppedRunError(RepriseError):
    """A run was stopped from outside, such as by the death of Ray. The same command goes on.

    Commands print it and exit with status 75.
    """


class InputError(RepriseError):
    """A person named something that cannot be used, such as an address of an unknown kind."""


class WorkersLostError(RepriseError):
    """Workers of a run failed more often than its config allows; the message has the last failure."""


class StorageError(RepriseError):
    """A file or a folder, local or on S3, is missing, refused, damaged or full."""


class TransientStorageError(StorageError):
    """The disk or the store does not answer now. The same request may succeed later."""


class DamagedDataError(StorageError):
    """Stored data is missing, cut short or no longer what was written. Only writing it again helps."""
