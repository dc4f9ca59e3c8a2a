"""What coding agents say by their own hooks: that a session rests, and why.

The hooks are set system-wide (``images/worker/hooks``), beside a person's own and in their stead never. What they say
lands as a file in a spool, also while no worker runs; the worker tells of it until the control plane has taken it.
"""
