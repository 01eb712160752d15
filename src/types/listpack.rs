//! Redis's listpack: a compact, sequential encoding of small lists.
