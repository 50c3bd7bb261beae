//! Places on the earth, kept as sorted sets whose scores are cells of a grid (see [`crate::values::geo`]).

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{Arity::*, CommandResult, CommandSpec, DENYOOM, GEO, READONLY, WRITE, data, keys};
use crate::engine::Keyspace;
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::geo::Point;
use crate::values::sorted_set::SortedSet;
use smallvec::SmallVec;

use super::sorted_set::{AddOptions, add};

pub mod search;

pub const COMMANDS: &[CommandSpec] = &[
    data("geoadd", AtLeast(5), WRITE | DENYOOM, GEO, keys::UPDATE, geoadd),
    data("geodist", AtLeast(4), READONLY, GEO, keys::READ, geodist),
    data("geohash", AtLeast(2), READONLY, GEO, keys::READ, geohash),
    data("geopos", AtLeast(2), READONLY, GEO, keys::READ, geopos),
];

/// A longitude and a latitude.
///
/// # Errors
/// Redis's own for what is no number, and for what is not on the map.
fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point, CommandError> {
    let point = Point { longitude: parse::float(longitude)?, latitude: parse::float(latitude)? };
    if point.is_on_map() {
        return Ok(point);
    }
    let Point { longitude, latitude } = point;
    Err(CommandError::Text(format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}").into()))
}

/// Metres of a unit.
fn unit(argument: &[u8]) -> Result<f64, CommandError> {
    match argument {
        _ if is(argument, "m") => Ok(1.0),
        _ if is(argument, "km") => Ok(1000.0),
        _ if is(argument, "ft") => Ok(0.3048),
        _ if is(argument, "mi") => Ok(1609.34),
        _ => Err(CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

/// Where a member is.
fn place(sorted: Option<&SortedSet>, member: &[u8]) -> Option<Point> {
    sorted?.score(member).map(Point::of_score)
}

/// Writes a distance, with four digits.
fn write_distance(reply: &mut ReplyWriter<'_>, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

/// Writes longitude and latitude, with up to seventeen digits.
fn write_point(reply: &mut ReplyWriter<'_>, point: &Point) {
    reply.array(2);
    for degrees in [point.longitude, point.latitude] {
        let text = format!("{degrees:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        reply.double_text(if text == "-0" { "0" } else { text });
    }
}

fn geoadd(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let mut options = AddOptions::default();
    let mut index = 2;
    while let Some(word) = arguments.get(index) {
        match word {
            _ if is(word, "nx") => options.if_absent = true,
            _ if is(word, "xx") => options.if_present = true,
            _ if is(word, "ch") => options.count_changed = true,
            _ => break,
        }
        index += 1;
    }
    let places = arguments.len() - index;
    if places == 0 || !places.is_multiple_of(3) || options.if_absent && options.if_present {
        return Err(CommandError::Syntax);
    }
    let pairs = (index..arguments.len())
        .step_by(3)
        .map(|index| Ok((point(arguments.at(index), arguments.at(index + 1))?.score(), arguments.at(index + 2))))
        .collect::<Result<SmallVec<[_; 8]>, CommandError>>()?;
    add(keyspace, arguments.at(1), &pairs, options, reply)
}

fn geodist(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let unit = match (arguments.get(4), arguments.len()) {
        (None, _) => 1.0,
        (Some(name), 5) => unit(name)?,
        _ => return Err(CommandError::Syntax),
    };
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    match place(sorted, arguments.at(2)).zip(place(sorted, arguments.at(3))) {
        Some((from, to)) => write_distance(reply, from.distance(&to) / unit),
        None => reply.null(),
    }
    Ok(())
}

fn geohash(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    reply.array(arguments.len() - 2);
    for member in arguments.from(2) {
        match place(sorted, member) {
            Some(point) => reply.bulk(&point.hash()),
            None => reply.null(),
        }
    }
    Ok(())
}

fn geopos(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    let sorted = keyspace.read_collection::<SortedSet>(arguments.at(1))?;
    reply.array(arguments.len() - 2);
    for member in arguments.from(2) {
        match place(sorted, member) {
            Some(point) => write_point(reply, &point),
            None => reply.null_array(),
        }
    }
    Ok(())
}
