"""The kinds of text tower, a module each, named by ``kind`` in params.yaml; ``pooling`` is as of the image towers."""
