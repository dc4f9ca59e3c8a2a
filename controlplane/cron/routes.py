"""The procedures of cron."""

from controlplane.cron.service import Cron
from controlplane.procedures import Group
from protocol.cron import AddJob, Job, JobRef, JobRun, JobRuns, Jobs, ListJobs, ReadHistory

group = Group("cron", Cron)


@group.procedure("add")
async def add(cron: Cron, wanted: AddJob) -> Job:
    """Add a job, which wakes the assistant when it runs. CONFLICT where one of its name is still to run."""
    return cron.add(wanted)


@group.procedure("list")
async def list_(cron: Cron, wanted: ListJobs) -> Jobs:
    """The jobs, those that run next first."""
    return cron.list(wanted)


@group.procedure("remove")
async def remove(cron: Cron, wanted: JobRef) -> Job:
    """Remove a job. Its history stays for a while."""
    return cron.remove(wanted)


@group.procedure("run")
async def run(cron: Cron, wanted: JobRef) -> JobRun:
    """Run a job now, and wait for its end. When it is due stays."""
    return await cron.run(wanted)


@group.procedure("history")
async def history(cron: Cron, wanted: ReadHistory) -> JobRuns:
    """Runs, the newest first, of a job (also of one that is gone) or of all."""
    return cron.history(wanted)
