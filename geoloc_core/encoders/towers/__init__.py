"""The kinds of image tower, a module each, named by ``kind`` in params.yaml.

How a tower sums a photo up is its ``pooling``, in one vocabulary: ``projection`` (into the space that CLIP shares with
texts), ``class`` (the class token, which is what is projected), ``mean`` (of all tokens, or positions), ``max`` (of all
positions) or ``tokens`` (all of them, as they are).
"""
