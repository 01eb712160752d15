//! Geohash arithmetic, as Redis's geo commands use it.
