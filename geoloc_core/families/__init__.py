"""The published model families, a module each.

A family's module has ``Options`` (a variant's block in ``params.yaml``, which says what it ``needs``), ``fit`` (from
data to a trained model) and ``load`` (from a folder to the same model). Nothing else knows a family's name.
"""
