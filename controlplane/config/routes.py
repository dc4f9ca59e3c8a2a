"""The procedures of the settings."""

from controlplane.config.service import Configuration
from controlplane.procedures import Group
from protocol.config import Config, ConfigChange, SetConfig, UnsetConfig

group = Group("config", Configuration)


@group.procedure("get")
async def get_config(configuration: Configuration) -> Config:
    """Every setting, and where its value comes from."""
    return configuration.get()


@group.procedure("set")
async def set_config(configuration: Configuration, wanted: SetConfig) -> ConfigChange:
    """Put one value into config.json."""
    return configuration.set(wanted.key, wanted.value)


@group.procedure("unset")
async def unset_config(configuration: Configuration, wanted: UnsetConfig) -> ConfigChange:
    """Take one value out of config.json, so that its default counts."""
    return configuration.unset(wanted.key)
