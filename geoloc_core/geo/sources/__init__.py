"""Where boundaries come from: one module per source, named by ``boundaries.kind`` in params.yaml.

Each has ``Options``, ``files(options, root)``, the user's own files that it reads, and ``read(options, root)``.
"""
