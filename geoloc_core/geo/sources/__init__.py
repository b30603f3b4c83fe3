"""Where boundaries come from: one module per source, named by ``boundaries.kind`` in params.yaml."""
