"""How things look: a module per kind of thing, all drawing on one canvas through one camera."""
