"""The built-in demo world: photos rendered from facts that vary by place as they do on Earth.

Read it in this order: ``gazetteer`` (where people are), ``terrain`` and ``climate`` (the land), ``culture`` (what
people built on it), ``sun`` (the moment), ``scenes`` (what a photo shows), ``people`` (who took it), ``photo`` (all of
it for one photo), ``render`` and ``paint/`` (the picture), ``words`` (captions and clues), ``shots`` (the picture
with all that a corpus could publish of it).
Nothing in it is a real photo.
"""
