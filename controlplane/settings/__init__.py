"""Every setting, its default, and where its value came from: ``config.json``, then ``PERRY_*``, the later wins.

The struct is the list: help, documentation and validation follow from it. Nobody else reads the environment.
A name on the file's path ``ssh.bind`` is ``PERRY_SSH_BIND`` in the environment. Files of the original Perry load:
its keys that have no meaning here any more are accepted and listed as ignored.
"""

from controlplane.settings.loading import Loaded, checked, leaves, load, parsed, variable
from controlplane.settings.tree import Settings, SshSettings, WorkspaceSettings
from protocol.folders import config_folder

__all__ = [
    "Loaded",
    "Settings",
    "SshSettings",
    "WorkspaceSettings",
    "checked",
    "config_folder",
    "leaves",
    "load",
    "parsed",
    "variable",
]
