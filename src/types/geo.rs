//! Geohash arithmetic: positions as 52-bit integers, distances on the sphere, and the cells that cover a search.

/// The earth's radius in metres, as Redis has it.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Latitudes that the Mercator projection can hold.
const MAX_LATITUDE: f64 = 85.051_128_78;
/// Bits of one coordinate.
const STEP: u32 = 26;
const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";

/// A position in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// From -180 to 180.
    pub longitude: f64,
    /// From -85.05112878 to 85.05112878.
    pub latitude: f64,
}

impl Position {
    /// Whether it can be encoded.
    pub fn is_valid(self) -> bool {
        self.longitude.abs() <= 180.0 && self.latitude.abs() <= MAX_LATITUDE
    }

    /// The 52 bits of the cell it lies in.
    pub fn encode(self) -> u64 {
        self.encode_within(MAX_LATITUDE, STEP)
    }

    fn encode_within(self, max_latitude: f64, step: u32) -> u64 {
        let cells = (1u64 << step) as f64;
        let offset = |value: f64, limit: f64| ((value + limit) / (2.0 * limit) * cells) as u32;
        interleave(offset(self.latitude, max_latitude), offset(self.longitude, 180.0))
    }

    /// The middle of a cell.
    pub fn decode(bits: u64) -> Self {
        let (latitude, longitude) = deinterleave(bits);
        let cells = (1u64 << STEP) as f64;
        let middle = |cell: u32, limit: f64| {
            let low = -limit + f64::from(cell) / cells * (2.0 * limit);
            let high = -limit + (f64::from(cell) + 1.0) / cells * (2.0 * limit);
            ((low + high) / 2.0).clamp(-limit, limit)
        };
        Self { longitude: middle(longitude, 180.0), latitude: middle(latitude, MAX_LATITUDE) }
    }

    /// The standard geohash text of a cell: 11 characters, the last of which has no bits left.
    pub fn geohash(bits: u64) -> [u8; 11] {
        let bits = Self::decode(bits).encode_within(90.0, STEP);
        std::array::from_fn(|index| match index {
            10 => ALPHABET[0],
            index => ALPHABET[(bits >> (52 - (index + 1) * 5) & 31) as usize],
        })
    }

    /// The distance in metres (haversine formula).
    pub fn distance(self, other: Self) -> f64 {
        let (latitude, other_latitude) = (self.latitude.to_radians(), other.latitude.to_radians());
        let v = ((other.longitude.to_radians() - self.longitude.to_radians()) / 2.0).sin();
        if v == 0.0 {
            return latitude_distance(self.latitude, other.latitude);
        }
        let u = ((other_latitude - latitude) / 2.0).sin();
        let a = u * u + latitude.cos() * other_latitude.cos() * v * v;
        2.0 * EARTH_RADIUS * a.sqrt().asin()
    }
}

fn latitude_distance(first: f64, second: f64) -> f64 {
    EARTH_RADIUS * (second.to_radians() - first.to_radians()).abs()
}

/// Puts the bits of `low` on even places and those of `high` on odd ones.
fn interleave(low: u32, high: u32) -> u64 {
    let spread = |value: u32| {
        let mut bits = u64::from(value);
        for (shift, mask) in [
            (16, 0x0000_FFFF_0000_FFFF),
            (8, 0x00FF_00FF_00FF_00FF),
            (4, 0x0F0F_0F0F_0F0F_0F0F),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ] {
            bits = (bits | bits << shift) & mask;
        }
        bits
    };
    spread(low) | spread(high) << 1
}

fn deinterleave(bits: u64) -> (u32, u32) {
    let gather = |bits: u64| {
        let mut value = bits & 0x5555_5555_5555_5555;
        for (shift, mask) in [
            (1, 0x3333_3333_3333_3333),
            (2, 0x0F0F_0F0F_0F0F_0F0F),
            (4, 0x00FF_00FF_00FF_00FF),
            (8, 0x0000_FFFF_0000_FFFF),
            (16, 0x0000_0000_FFFF_FFFF),
        ] {
            value = (value | value >> shift) & mask;
        }
        value as u32
    };
    (gather(bits), gather(bits >> 1))
}

/// The area of a search, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// All within a distance.
    Circle {
        /// The distance.
        radius: f64,
    },
    /// All within a rectangle around the middle.
    Rectangle {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
}

impl Shape {
    /// The distance from the middle, if the position lies inside.
    pub fn distance(&self, middle: Position, position: Position) -> Option<f64> {
        match *self {
            Self::Circle { radius } => Some(middle.distance(position)).filter(|distance| *distance <= radius),
            Self::Rectangle { width, height } => {
                if latitude_distance(position.latitude, middle.latitude) > height / 2.0 {
                    return None;
                }
                let beside = Position { longitude: middle.longitude, latitude: position.latitude };
                (position.distance(beside) <= width / 2.0).then(|| middle.distance(position))
            }
        }
    }

    /// Ranges of encoded positions, from the first included to the last excluded, that hold all inside.
    pub fn cover(&self, middle: Position) -> Vec<(u64, u64)> {
        let (half_width, half_height) = match *self {
            Self::Circle { radius } => (radius, radius),
            Self::Rectangle { width, height } => (width / 2.0, height / 2.0),
        };
        let high = (half_height / EARTH_RADIUS).to_degrees();
        let farthest = middle.latitude.abs() + high;
        // Towards a pole the circles of latitude shrink to nothing.
        let wide = if farthest >= 89.0 {
            360.0
        } else {
            (half_width / EARTH_RADIUS).to_degrees() / farthest.to_radians().cos() * 1.01
        };
        let fits = |step: &u32| {
            let cells = (1u64 << step) as f64;
            2.0 * MAX_LATITUDE / cells >= high && 360.0 / cells >= wide
        };
        // Four cells, one for each quarter of the world, hold everything.
        let step = (2..=STEP).rev().find(fits).unwrap_or(1);
        // The cell of the middle comes first, then its neighbours: around the date line they go on at the other side.
        let (latitude, longitude) = deinterleave(middle.encode_within(MAX_LATITUDE, step));
        let cells = 1i64 << step;
        let mut ranges = Vec::with_capacity(9);
        for (north, east) in NEIGHBOURS {
            let (row, column) =
                (i64::from(latitude) + north, (i64::from(longitude) + east).rem_euclid(cells));
            if (0..cells).contains(&row) {
                let (cell, shift) = (interleave(row as u32, column as u32), 2 * (STEP - step));
                let range = (cell << shift, (cell + 1) << shift);
                if !ranges.contains(&range) {
                    ranges.push(range);
                }
            }
        }
        ranges
    }
}

/// A cell and those around it, by steps to the north and to the east.
const NEIGHBOURS: [(i64, i64); 9] =
    [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_palermo_and_catania() {
        let palermo = Position { longitude: 13.361389, latitude: 38.115556 };
        let catania = Position { longitude: 15.087269, latitude: 37.502669 };
        assert_eq!(palermo.encode(), 3_479_099_956_230_698);
        assert_eq!(&Position::geohash(palermo.encode()), b"sqc8b49rny0");
        let distance = Position::decode(palermo.encode()).distance(Position::decode(catania.encode()));
        assert_eq!(format!("{distance:.4}"), "166274.1516");
    }

    proptest! {
        #[test]
        fn a_cover_leaves_nothing_out(lon in -180.0f64..180.0, lat in -85.0f64..85.0, dlon in -10.0f64..10.0,
            dlat in -10.0f64..10.0, radius in 1.0f64..3_000_000.0, circle in any::<bool>()) {
            let middle = Position { longitude: lon, latitude: lat };
            let mut longitude = lon + dlon;
            if longitude > 180.0 { longitude -= 360.0 }
            if longitude < -180.0 { longitude += 360.0 }
            let position = Position { longitude, latitude: (lat + dlat).clamp(-85.0, 85.0) };
            let shape = if circle { Shape::Circle { radius } } else { Shape::Rectangle { width: radius, height: radius / 2.0 } };
            if shape.distance(middle, position).is_some() {
                let bits = position.encode();
                prop_assert!(shape.cover(middle).iter().any(|(from, to)| (*from..*to).contains(&bits)));
            }
        }
    }
}
