"""A module per published layout, named as its ``kind``.

Each has ``Options``, a :class:`geoloc_core.corpora.photo.SourceOptions`, and
``read(options, raw) -> geoloc_core.corpora.photo.Source``, which reads a corpus' raw folder.
"""
