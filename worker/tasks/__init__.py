"""Tasks inside a workspace: agents that work while nobody watches.

Each task has a folder of its own (:mod:`.record`) and a process of its own (:mod:`.runner`), which outlives the worker:
a worker that is killed or replaced finds its tasks again, and what has ended meanwhile.
"""
