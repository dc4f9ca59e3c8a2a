"""What crosses a process boundary: the structs that the control plane, its clients and the workers exchange.

Fields are snake_case here and camelCase on the wire. A field that may be absent has the default ``None`` and is left
out of the JSON when it is absent. Only modules whose values another process parses belong here.
"""
