"""A module per published layout, named as its ``kind``.

Each has

- ``Options``, a :class:`geoloc_core.corpora.photo.SourceOptions`;
- ``read(options, raw) -> geoloc_core.corpora.photo.Source``, which reads a corpus' raw folder;
- ``PLAN``, a :class:`geoloc_core.corpora.simulated.Plan`, and ``write(simulation, folder, options)``, which lay
  rendered photos out in the same layout.
"""
