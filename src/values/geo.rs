//! Places on the earth: their scores in a sorted set, distances, and which scores a search has to look at.
//!
//! A place is a cell of a grid: 26 bits of longitude and 26 of latitude, interleaved, are an integer that a score holds
//! exactly. A coarser grid has fewer bits, and each of its cells is a run of scores: a search picks a grid whose cells are
//! about as large as what it looks for, and looks at the cell of its centre and the eight around it.

use smallvec::SmallVec;
use std::f64::consts::PI;

/// What longitudes are between, in degrees.
pub const LONGITUDE_MAX: f64 = 180.0;
/// What latitudes are between: where the map of Mercator becomes a square.
pub const LATITUDE_MAX: f64 = 85.051_128_78;

const RADIUS_M: f64 = 6_372_797.560_856;
/// Half of the equator, on the map of Mercator.
const MERCATOR_MAX_M: f64 = 20_037_726.37;
const FINEST: u32 = 26;
const DEGREE: f64 = PI / 180.0;

/// A place, in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub longitude: f64,
    pub latitude: f64,
}

/// What a search looks for around its centre, in metres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
}

/// A shape around a centre, with what all distances from there have in common.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    shape: Shape,
    center: Point,
    /// Of the latitude.
    cosine: f64,
}

/// A cell of the grid with 2^`bits` columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    column: u32,
    row: u32,
    bits: u32,
}

/// Where a cell, or a search, ends.
#[derive(Debug, Clone, Copy)]
struct Edges {
    west: f64,
    east: f64,
    south: f64,
    north: f64,
}

impl Point {
    /// Whether the grid has a cell for it.
    pub fn is_on_map(&self) -> bool {
        (-LONGITUDE_MAX..=LONGITUDE_MAX).contains(&self.longitude)
            && (-LATITUDE_MAX..=LATITUDE_MAX).contains(&self.latitude)
    }

    /// The score that stands for the place (GEOADD).
    pub fn score(&self) -> f64 {
        Cell::of(self, FINEST, LATITUDE_MAX).number() as f64
    }

    /// The middle of the cell for which a score stands. Any score stands for one.
    pub fn of_score(score: f64) -> Point {
        let (column, row) = deinterleave(integer(score));
        let edges = Cell { column, row, bits: FINEST }.edges();
        Point {
            longitude: ((edges.west + edges.east) / 2.0).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: ((edges.south + edges.north) / 2.0).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// The eleven characters of its geohash (GEOHASH), which is of a grid that reaches the poles. Its 52 bits are ten
    /// characters and a bit; the last one is always 0.
    pub fn hash(&self) -> [u8; 11] {
        const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
        let number = Cell::of(self, FINEST, 90.0).number();
        let mut text = [b'0'; 11];
        for (index, byte) in text.iter_mut().take(10).enumerate() {
            *byte = ALPHABET[(number >> (47 - index * 5)) as usize & 31];
        }
        text
    }

    /// Metres to another place, on a sphere (GEODIST).
    pub fn distance(&self, other: &Point) -> f64 {
        self.distance_along((self.latitude * DEGREE).cos(), other)
    }

    /// The same, where the cosine of this latitude is known.
    #[inline]
    fn distance_along(&self, cosine: f64, other: &Point) -> f64 {
        let across = ((other.longitude * DEGREE - self.longitude * DEGREE) / 2.0).sin();
        if across == 0.0 {
            return self.distance_north(other);
        }
        let (south, north) = (self.latitude * DEGREE, other.latitude * DEGREE);
        let along = ((north - south) / 2.0).sin();
        // The order in which Redis multiplies: STOREDIST shows all digits.
        let haversine = along * along + cosine * north.cos() * across * across;
        2.0 * RADIUS_M * haversine.sqrt().asin()
    }

    /// Metres between the parallels of two places.
    fn distance_north(&self, other: &Point) -> f64 {
        RADIUS_M * (other.latitude * DEGREE - self.latitude * DEGREE).abs()
    }
}

impl Around {
    pub fn new(shape: Shape, center: Point) -> Around {
        Around { shape, center, cosine: (center.latitude * DEGREE).cos() }
    }

    /// The distance of a place from the centre, where it is within.
    #[inline]
    pub fn distance(&self, place: &Point) -> Option<f64> {
        match self.shape {
            Shape::Circle { radius } => {
                // Nothing is nearer than its parallel. A thousandth more than is needed for what rounding may do.
                if self.center.distance_north(place) > radius * 1.001 + 1.0 {
                    return None;
                }
                let distance = self.center.distance_along(self.cosine, place);
                // What is no number is within, as in Redis.
                if distance > radius { None } else { Some(distance) }
            }
            Shape::Box { width, height } => {
                let beside = Point { longitude: self.center.longitude, latitude: place.latitude };
                let is_outside =
                    place.distance_north(&self.center) > height / 2.0 || place.distance(&beside) > width / 2.0;
                if is_outside { None } else { Some(self.center.distance_along(self.cosine, place)) }
            }
        }
    }
}

impl Shape {
    /// The scores of all places that may be within the shape: runs, from the first score to the one behind the last, in the
    /// order in which Redis looks at them.
    pub fn scores(&self, center: &Point) -> SmallVec<[(f64, f64); 9]> {
        let bounds = self.edges(center);
        let mut bits = self.bits(center.latitude);
        let mut cell = Cell::of(center, bits, LATITUDE_MAX);
        if bits > 1 && !cell.reaches(&bounds) {
            bits -= 1;
            cell = Cell::of(center, bits, LATITUDE_MAX);
        }
        let mut cells: SmallVec<[Cell; 9]> = SmallVec::new();
        for (east, north) in [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)] {
            let neighbor = cell.moved(east, north);
            // In the coarsest grid those around are the same on both sides.
            if (bits < 2 || !cell.covers(&bounds, east, north)) && cells.last() != Some(&neighbor) {
                cells.push(neighbor);
            }
        }
        cells.iter().map(Cell::scores).collect()
    }

    /// Bits of the grid whose cells are about as large as the shape. Meridians come together towards the poles.
    fn bits(&self, latitude: f64) -> u32 {
        let mut radius = match *self {
            Shape::Circle { radius } => radius,
            Shape::Box { width, height } => ((width / 2.0).powi(2) + (height / 2.0).powi(2)).sqrt(),
        };
        if radius == 0.0 {
            return FINEST;
        }
        let mut bits = -1i32;
        while radius < MERCATOR_MAX_M {
            radius *= 2.0;
            bits += 1;
        }
        bits -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
        bits.clamp(1, FINEST as i32) as u32
    }

    /// The shape's outermost meridians and parallels; the first where it is widest, towards the nearer pole.
    fn edges(&self, center: &Point) -> Edges {
        let (width, height) = match *self {
            Shape::Circle { radius } => (radius, radius),
            Shape::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let along = height / RADIUS_M / DEGREE;
        let widest = if center.latitude < 0.0 { center.latitude - along } else { center.latitude + along };
        let across = width / RADIUS_M / (widest * DEGREE).cos() / DEGREE;
        Edges {
            west: center.longitude - across,
            east: center.longitude + across,
            south: center.latitude - along,
            north: center.latitude + along,
        }
    }
}

impl Cell {
    /// The cell of a place, in a grid that reaches this latitude.
    fn of(point: &Point, bits: u32, latitude_max: f64) -> Cell {
        let count = f64::from(1u32 << bits);
        let place = |value: f64, most: f64| ((value + most) / (2.0 * most) * count) as u32;
        Cell { column: place(point.longitude, LONGITUDE_MAX), row: place(point.latitude, latitude_max), bits }
    }

    /// Its number in the order of its grid: bits of column and row in turn, that of the column first.
    fn number(&self) -> u64 {
        spread(self.column) << 1 | spread(self.row)
    }

    /// The first score of what lies in it, and the one behind the last.
    fn scores(&self) -> (f64, f64) {
        let shift = 2 * (FINEST - self.bits);
        ((self.number() << shift) as f64, ((self.number() + 1) << shift) as f64)
    }

    fn edges(&self) -> Edges {
        let count = f64::from(1u32 << self.bits);
        let edge = |index: f64, most: f64| -most + index / count * (2.0 * most);
        let (column, row) = (f64::from(self.column), f64::from(self.row));
        Edges {
            west: edge(column, LONGITUDE_MAX),
            east: edge(column + 1.0, LONGITUDE_MAX),
            south: edge(row, LATITUDE_MAX),
            north: edge(row + 1.0, LATITUDE_MAX),
        }
    }

    /// The cell so many columns and rows away; the grid has no ends.
    fn moved(&self, east: i32, north: i32) -> Cell {
        let mask = (1u32 << self.bits) - 1;
        let moved = |index: u32, by: i32| if by == 0 { index } else { index.wrapping_add_signed(by) & mask };
        Cell { column: moved(self.column, east), row: moved(self.row, north), bits: self.bits }
    }

    /// Whether the cells around it reach as far as these bounds. What is no number is no bound.
    fn reaches(&self, bounds: &Edges) -> bool {
        let is_short = self.moved(0, 1).edges().north < bounds.north
            || self.moved(0, -1).edges().south > bounds.south
            || self.moved(1, 0).edges().east < bounds.east
            || self.moved(-1, 0).edges().west > bounds.west;
        !is_short
    }

    /// Whether it goes beyond the bounds itself in one of these directions, so that nothing is to be found there.
    fn covers(&self, bounds: &Edges, east: i32, north: i32) -> bool {
        let edges = self.edges();
        north < 0 && edges.south < bounds.south
            || north > 0 && edges.north > bounds.north
            || east < 0 && edges.west < bounds.west
            || east > 0 && edges.east > bounds.east
    }
}

/// Puts a zero in front of each bit.
fn spread(bits: u32) -> u64 {
    let mut spread = u64::from(bits);
    for (shift, mask) in [
        (16, 0x0000_ffff_0000_ffff),
        (8, 0x00ff_00ff_00ff_00ff),
        (4, 0x0f0f_0f0f_0f0f_0f0f),
        (2, 0x3333_3333_3333_3333),
        (1, 0x5555_5555_5555_5555u64),
    ] {
        spread = (spread | spread << shift) & mask;
    }
    spread
}

/// Column and row of an interleaved number.
fn deinterleave(number: u64) -> (u32, u32) {
    let gather = |bits: u64| {
        let mut gathered = bits & 0x5555_5555_5555_5555;
        for (shift, mask) in [
            (1, 0x3333_3333_3333_3333),
            (2, 0x0f0f_0f0f_0f0f_0f0f),
            (4, 0x00ff_00ff_00ff_00ff),
            (8, 0x0000_ffff_0000_ffff),
            (16, 0x0000_0000_ffff_ffff),
        ] {
            gathered = (gathered | gathered >> shift) & mask;
        }
        gathered as u32
    };
    (gather(number >> 1), gather(number))
}

/// A score as an integer of 64 bits, where it is none as the processors on which Redis runs convert it (ZADD puts any score
/// where GEOPOS may look).
fn integer(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    let signed = |value: f64| if (-HALF..HALF).contains(&value) { value as i64 } else { i64::MIN };
    if score < HALF { signed(score) as u64 } else { signed(score - HALF) as u64 ^ 1 << 63 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PALERMO: Point = Point { longitude: 13.361389, latitude: 38.115556 };
    const CATANIA: Point = Point { longitude: 15.087269, latitude: 37.502669 };

    #[test]
    fn scores_hashes_and_distances_are_those_of_redis() {
        assert_eq!(PALERMO.score(), 3_479_099_956_230_698.0);
        assert_eq!(CATANIA.score(), 3_479_447_370_796_909.0);
        let (palermo, catania) = (Point::of_score(PALERMO.score()), Point::of_score(CATANIA.score()));
        assert_eq!(
            format!("{:.17} {:.17}", palermo.longitude, palermo.latitude),
            "13.36138933897018433 38.11555639549629859"
        );
        assert_eq!(format!("{:.4}", palermo.distance(&catania)), "166274.1516");
        assert_eq!((&palermo.hash(), &catania.hash()), (b"sqc8b49rny0", b"sqdtr74hyu0"));
    }

    #[test]
    fn a_score_that_is_no_place_stands_for_one() {
        for (score, bits) in
            [(-1.5, u64::MAX), (f64::INFINITY, 0), (f64::NEG_INFINITY, 1 << 63), (1e19, 10_000_000_000_000_000_000)]
        {
            assert_eq!(integer(score), bits, "{score}");
            assert!(Point::of_score(score).is_on_map());
        }
    }

    fn point() -> impl Strategy<Value = Point> {
        (-180.0..180.0f64, -85.0..85.0f64).prop_map(|(longitude, latitude)| Point { longitude, latitude })
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let length = || (0.0..7.0f64).prop_map(|digits| 10f64.powf(digits));
        prop_oneof![
            length().prop_map(|radius| Shape::Circle { radius }),
            (length(), length()).prop_map(|(width, height)| Shape::Box { width, height }),
        ]
    }

    proptest! {
        #[test]
        fn a_score_is_a_cell_around_its_place(point in point()) {
            let found = Point::of_score(point.score());
            prop_assert!((found.longitude - point.longitude).abs() <= 180.0 / f64::from(1 << FINEST));
            prop_assert!((found.latitude - point.latitude).abs() <= LATITUDE_MAX / f64::from(1 << FINEST));
            prop_assert_eq!(found.score(), point.score());
        }

        /// Where the earth is not round the corner: Redis too misses places over the poles, and beyond the date line in
        /// the coarsest grids.
        #[test]
        fn a_search_looks_at_all_that_is_within(
            center in (-100.0..100.0f64, -60.0..60.0f64),
            away in (-1.0..1.0f64, -1.0..1.0f64),
            shape in shape(),
        ) {
            let center = Point { longitude: center.0, latitude: center.1 };
            let bounds = shape.edges(&center);
            prop_assume!(bounds.east - bounds.west < 100.0 && bounds.north < 80.0 && bounds.south > -80.0);
            let place = Point {
                longitude: center.longitude + away.0 * (bounds.east - center.longitude),
                latitude: center.latitude + away.1 * (bounds.north - center.latitude),
            };
            if Around::new(shape, center).distance(&Point::of_score(place.score())).is_some() {
                let score = place.score();
                let runs = shape.scores(&center);
                prop_assert_eq!(runs.iter().filter(|run| (run.0..run.1).contains(&score)).count(), 1, "{:?}", runs);
            }
        }
    }
}
