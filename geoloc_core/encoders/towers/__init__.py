"""The kinds of image tower: one module per library, named by ``kind`` in params.yaml."""
