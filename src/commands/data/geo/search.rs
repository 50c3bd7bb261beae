//! Searches around a place: GEOSEARCH, and the GEORADIUS commands that it replaces.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, Begin, CommandResult, CommandSpec, DENYOOM, Find, GEO, KeySpec, MOVABLE_KEYS, READONLY, WRITE,
    data, keys,
};
use crate::engine::Keyspace;
use crate::engine::event;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::Value;
use crate::values::element::{Digits, Element};
use crate::values::geo::{Around, Point, Shape};
use crate::values::sorted_set::SortedSet;
use std::ops::ControlFlow;

use super::{place, point, unit, write_distance, write_point};

const STORED: &[KeySpec] = &[keys::one(1, Access::Overwrite, "update"), keys::one(2, Access::ReadOnly, "access")];
const RADIUS: &[KeySpec] = &[keys::one(1, Access::ReadOnly, "access"), behind("STORE", 6), behind("STOREDIST", 6)];
const RADIUS_BY_MEMBER: &[KeySpec] =
    &[keys::one(1, Access::ReadOnly, "access"), behind("STORE", 5), behind("STOREDIST", 5)];
const MAY_STORE: u64 = WRITE | DENYOOM | MOVABLE_KEYS;

pub const COMMANDS: &[CommandSpec] = &[
    data("georadius", AtLeast(6), MAY_STORE, GEO, RADIUS, georadius),
    data("georadius_ro", AtLeast(6), READONLY, GEO, keys::READ, georadius_ro),
    data("georadiusbymember", AtLeast(5), MAY_STORE, GEO, RADIUS_BY_MEMBER, georadiusbymember),
    data("georadiusbymember_ro", AtLeast(5), READONLY, GEO, keys::READ, georadiusbymember_ro),
    data("geosearch", AtLeast(7), READONLY, GEO, keys::READ, geosearch),
    data("geosearchstore", AtLeast(8), WRITE | DENYOOM, GEO, STORED, geosearchstore),
];

/// A key behind this word, which is looked for from an argument on.
const fn behind(word: &'static str, from: i8) -> KeySpec {
    let find = Find::Range { last: 0, step: 1, limit: 0 };
    KeySpec { access: Access::Overwrite, effects: "update", begin: Begin::Keyword(word, from), find, notes: "" }
}

/// Which command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// A centre and a radius at fixed places; STORE and STOREDIST name a key.
    Radius { by_member: bool, may_store: bool },
    /// Everything behind a word; STOREDIST is one.
    Search { stores: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    None,
    Nearest,
    Farthest,
}

/// A search as it was asked for. Centre and shape are missing while they have not been read, and where the centre is a
/// member of what is not there.
struct Search<'a> {
    center: Option<Point>,
    /// The centre is a member, be it there or not.
    by_member: bool,
    /// With what a unit has in metres.
    shape: Option<(Shape, f64)>,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    order: Order,
    /// At most so many; 0: all.
    count: usize,
    /// The first that are found do.
    any: bool,
    store: Option<&'a [u8]>,
    stores_distance: bool,
}

/// Room for so many is made before any is found.
const FOUND_AT_FIRST: usize = 64;

/// Something that was found.
#[derive(Clone, Copy)]
struct Found<'s> {
    member: Element<'s>,
    score: f64,
    distance: f64,
}

fn georadius(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    search(keyspace, arguments, Family::Radius { by_member: false, may_store: true }, reply)
}

fn georadius_ro(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    search(keyspace, arguments, Family::Radius { by_member: false, may_store: false }, reply)
}

fn georadiusbymember(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    search(keyspace, arguments, Family::Radius { by_member: true, may_store: true }, reply)
}

fn georadiusbymember_ro(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    search(keyspace, arguments, Family::Radius { by_member: true, may_store: false }, reply)
}

fn geosearch(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    search(keyspace, arguments, Family::Search { stores: false }, reply)
}

fn geosearchstore(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    search(keyspace, arguments, Family::Search { stores: true }, reply)
}

fn search(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    family: Family,
    reply: &mut ReplyWriter<'_>,
) -> CommandResult {
    let limits = keyspace.limits();
    let source = if family == (Family::Search { stores: true }) { 2 } else { 1 };
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(source))?;
    let search = Search::parse(arguments, family, sorted)?;
    let mut found = sorted.map_or_else(Vec::new, |sorted| search.find(sorted));
    search.sort(&mut found);
    let unit = search.shape.map_or(1.0, |(_, unit)| unit);
    let Some(key) = search.store else {
        search.write(&found, unit, reply);
        return Ok(());
    };
    let mut kept = SortedSet::new();
    for one in &found {
        let score = if search.stores_distance { one.distance / unit } else { one.score };
        kept.insert(one.member.bytes(&mut Digits::new()), score, &limits);
    }
    let event = match family {
        Family::Search { .. } => event::GEO_SEARCH_STORE,
        Family::Radius { .. } => event::GEO_RADIUS_STORE,
    };
    reply.count(keyspace.store(key, Value::SortedSet(kept), event));
    Ok(())
}

impl<'a> Search<'a> {
    /// Reads a request, in part from the sorted set in which it searches.
    ///
    /// # Errors
    /// Redis's own, in its order.
    fn parse(arguments: Arguments<'a>, family: Family, sorted: Option<&SortedSet>) -> Result<Search<'a>, CommandError> {
        let mut search = Search {
            center: None,
            by_member: false,
            shape: None,
            with_distance: false,
            with_hash: false,
            with_point: false,
            order: Order::None,
            count: 0,
            any: false,
            store: None,
            stores_distance: false,
        };
        let first = match family {
            Family::Radius { by_member: false, .. } => {
                search.center = Some(point(arguments.at(2), arguments.at(3))?);
                search.shape = Some(circle(arguments.at(4), arguments.at(5))?);
                6
            }
            Family::Radius { by_member: true, .. } => {
                // Where there is no key the radius is not even looked at.
                if sorted.is_some() {
                    search.center = Some(member_place(sorted, arguments.at(2))?);
                    search.shape = Some(circle(arguments.at(3), arguments.at(4))?);
                }
                5
            }
            Family::Search { stores: false } => 2,
            Family::Search { stores: true } => {
                search.store = Some(arguments.at(1));
                3
            }
        };
        search.parse_words(arguments, first, family, sorted)?;
        search.check(arguments, first, family)?;
        Ok(search)
    }

    fn parse_words(
        &mut self,
        arguments: Arguments<'a>,
        first: usize,
        family: Family,
        sorted: Option<&SortedSet>,
    ) -> CommandResult {
        let mut rest = arguments.from(first);
        while let Some(word) = rest.next() {
            match word {
                _ if is(word, "withdist") => self.with_distance = true,
                _ if is(word, "withhash") => self.with_hash = true,
                _ if is(word, "withcoord") => self.with_point = true,
                _ if is(word, "any") => self.any = true,
                _ if is(word, "asc") => self.order = Order::Nearest,
                _ if is(word, "desc") => self.order = Order::Farthest,
                _ if is(word, "count") && rest.len() >= 1 => {
                    let count = parse::integer(rest.next().unwrap_or_default())?;
                    let count = usize::try_from(count).ok().filter(|count| *count > 0);
                    self.count = count.ok_or(CommandError::text("ERR COUNT must be > 0"))?;
                }
                _ => match family {
                    Family::Radius { may_store: true, .. } if rest.len() >= 1 && is(word, "store") => {
                        (self.store, self.stores_distance) = (rest.next(), false);
                    }
                    Family::Radius { may_store: true, .. } if rest.len() >= 1 && is(word, "storedist") => {
                        (self.store, self.stores_distance) = (rest.next(), true);
                    }
                    Family::Radius { .. } => return Err(CommandError::Syntax),
                    Family::Search { stores } => self.parse_search_word(word, stores, &mut rest, sorted)?,
                },
            }
        }
        Ok(())
    }

    /// A word that only GEOSEARCH and GEOSEARCHSTORE have.
    fn parse_search_word(
        &mut self,
        word: &[u8],
        stores: bool,
        rest: &mut impl ExactSizeIterator<Item = &'a [u8]>,
        sorted: Option<&SortedSet>,
    ) -> CommandResult {
        let left = rest.len();
        let mut next = || rest.next().unwrap_or_default();
        let by_point = self.center.is_some() && !self.by_member;
        match word {
            _ if left >= 1 && !by_point && is(word, "frommember") => {
                let member = next();
                if sorted.is_some() {
                    self.center = Some(member_place(sorted, member)?);
                }
                self.by_member = true;
            }
            _ if left >= 2 && !self.by_member && is(word, "fromlonlat") => self.center = Some(point(next(), next())?),
            _ if left >= 2 && !self.is_box() && is(word, "byradius") => self.shape = Some(circle(next(), next())?),
            _ if left >= 3 && !self.is_circle() && is(word, "bybox") => {
                self.shape = Some(rectangle(next(), next(), next())?);
            }
            _ if stores && is(word, "storedist") => self.stores_distance = true,
            _ => return Err(CommandError::Syntax),
        }
        Ok(())
    }

    fn is_box(&self) -> bool {
        matches!(self.shape, Some((Shape::Box { .. }, _)))
    }

    fn is_circle(&self) -> bool {
        matches!(self.shape, Some((Shape::Circle { .. }, _)))
    }

    /// What goes together.
    fn check(&self, arguments: Arguments<'_>, first: usize, family: Family) -> CommandResult {
        let is_search = matches!(family, Family::Search { .. });
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_point) {
            return Err(CommandError::text(match is_search {
                true => "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
                false => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
            }));
        }
        let exactly_one = |of: &str| {
            let name = arguments.at(0);
            CommandError::Bytes([b"ERR exactly one of ", of.as_bytes(), b" can be specified for ", name].concat())
        };
        if is_search && !self.by_member && self.center.is_none() {
            return Err(exactly_one("FROMMEMBER or FROMLONLAT"));
        }
        if is_search && self.shape.is_none() {
            return Err(exactly_one("BYRADIUS and BYBOX"));
        }
        if self.any && self.count == 0 {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        // The key behind the first STORE or STOREDIST is locked. Redis takes the last of several.
        let is_locked = |key: &[u8]| {
            ["store", "storedist"].iter().any(|word| {
                let at = (first..arguments.len()).find(|index| is(arguments.at(*index), word));
                at.and_then(|at| arguments.get(at + 1)) == Some(key)
            })
        };
        match self.store {
            Some(key) if !is_search && !is_locked(key) => Err(CommandError::Syntax),
            _ => Ok(()),
        }
    }

    /// What lies within, cell by cell and there in the order of the scores.
    fn find<'s>(&self, sorted: &'s SortedSet) -> Vec<Found<'s>> {
        let (Some(center), Some((shape, _))) = (self.center, self.shape) else { return Vec::new() };
        let most = if self.any { self.count } else { usize::MAX };
        let around = Around::new(shape, center);
        let mut found = Vec::with_capacity(sorted.len().min(FOUND_AT_FIRST));
        _ = sorted.visit_runs(&shape.scores(&center), |member, score| {
            if found.len() >= most {
                return ControlFlow::Break(());
            }
            if let Some(distance) = around.distance(&Point::of_score(score)) {
                found.push(Found { member, score, distance });
            }
            ControlFlow::Continue(())
        });
        found
    }

    /// Brings what was found into order, and leaves as many as are wanted: the nearest, if nothing else was said.
    fn sort(&self, found: &mut Vec<Found<'_>>) {
        let wanted = if self.count == 0 { found.len() } else { self.count.min(found.len()) };
        if self.order != Order::None || self.count != 0 && !self.any {
            // By distance, and where that is the same in the order in which they were found. What is moved is small.
            let mut order: Vec<(f64, u32)> = found.iter().zip(0..).map(|(one, index)| (one.distance, index)).collect();
            let is_farthest = self.order == Order::Farthest;
            let compare = |left: &(f64, u32), right: &(f64, u32)| {
                let by_distance = left.0.total_cmp(&right.0);
                let by_distance = if is_farthest { by_distance.reverse() } else { by_distance };
                by_distance.then(left.1.cmp(&right.1))
            };
            if wanted < order.len() {
                order.select_nth_unstable_by(wanted, compare);
                order.truncate(wanted);
            }
            order.sort_unstable_by(compare);
            *found = order.iter().map(|(_, index)| found[*index as usize]).collect();
        }
        found.truncate(wanted);
    }

    fn write(&self, found: &[Found<'_>], unit: f64, reply: &mut ReplyWriter<'_>) {
        let options = [self.with_distance, self.with_hash, self.with_point].into_iter().filter(|is_wanted| *is_wanted);
        let options = options.count();
        reply.array(found.len());
        for one in found {
            if options > 0 {
                reply.array(options + 1);
            }
            reply.bulk(one.member.bytes(&mut Digits::new()));
            if self.with_distance {
                write_distance(reply, one.distance / unit);
            }
            if self.with_hash {
                reply.integer(one.score as i64);
            }
            if self.with_point {
                write_point(reply, &Point::of_score(one.score));
            }
        }
    }
}

/// Where a member is that must be there.
fn member_place(sorted: Option<&SortedSet>, member: &[u8]) -> Result<Point, CommandError> {
    place(sorted, member).ok_or(CommandError::text("ERR could not decode requested zset member"))
}

/// A radius with its unit.
fn circle(radius: &[u8], name: &[u8]) -> Result<(Shape, f64), CommandError> {
    let radius = number(radius, "ERR need numeric radius")?;
    if radius < 0.0 {
        return Err(CommandError::text("ERR radius cannot be negative"));
    }
    let unit = unit(name)?;
    Ok((Shape::Circle { radius: radius * unit }, unit))
}

/// Width and height with their unit.
fn rectangle(width: &[u8], height: &[u8], name: &[u8]) -> Result<(Shape, f64), CommandError> {
    let (width, height) = (number(width, "ERR need numeric width")?, number(height, "ERR need numeric height")?);
    if width < 0.0 || height < 0.0 {
        return Err(CommandError::text("ERR height or width cannot be negative"));
    }
    let unit = unit(name)?;
    Ok((Shape::Box { width: width * unit, height: height * unit }, unit))
}

fn number(argument: &[u8], error: &'static str) -> Result<f64, CommandError> {
    crate::base::number::parse_double(argument).ok_or(CommandError::text(error))
}
