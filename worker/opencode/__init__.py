"""OpenCode's server in a workspace: there for whoever uses it, and gone when nobody does.

``server`` starts and ends it, ``relay`` holds its well-known port, ``client`` speaks to it.
"""
