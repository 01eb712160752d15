//! Positions on the earth, kept in sorted sets by their geohash.

use super::arguments::{Options, float, integer_in};
use super::keys::{KeySpec, Keys, access::*, key_after, key_at};
use super::routing::Rewriting;
use super::spec::Arity::AtLeast;
use super::spec::{CommandSpec, Group, flag};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::geo::{Position, Shape};
use crate::types::listpack::NumBuf;
use crate::types::number::LongDouble;
use crate::types::sorted_set::{Bounds, Limits, ScoreBound, SortedSet};

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const LOOK: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const RADIUS_KEYS: &[KeySpec] =
    &[key_at(1, RO | ACCESS), key_after("store", 6, OW | UPDATE), key_after("storedist", 6, OW | UPDATE)];
const MEMBER_KEYS: &[KeySpec] =
    &[key_at(1, RO | ACCESS), key_after("store", 5, OW | UPDATE), key_after("storedist", 5, OW | UPDATE)];
const SEARCH_COST: &str = "O(N+log(M)): the members near by and those inside";
/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("geoadd", Group::Geo, AtLeast(5), geoadd).write().keys(&[key_at(1, RW | UPDATE)]).doc(
        "Adds positions.",
        "3.2.0",
        "O(log(N)) per position",
        "key [condition<NX | XX>@6.2.0] [CH=change@6.2.0] data(longitude:double \
            latitude:double member)...",
    ),
    CommandSpec::data("geodist", Group::Geo, AtLeast(4), geodist).readonly().keys(LOOK).doc(
        "Returns the distance of two members.",
        "3.2.0",
        "O(1)",
        "key member1 member2 [unit<M | KM | FT | MI>]",
    ),
    CommandSpec::data("geohash", Group::Geo, AtLeast(2), geohash).readonly().keys(LOOK).doc(
        "Returns members' geohashes.",
        "3.2.0",
        "O(1) per member",
        "key [member...]",
    ),
    CommandSpec::data("geopos", Group::Geo, AtLeast(2), geopos)
        .rewriting(Rewriting::InnerNullArrays)
        .readonly()
        .keys(LOOK)
        .doc("Returns members' positions.", "3.2.0", "O(1) per member", "key [member...]"),
    CommandSpec::data("geosearch", Group::Geo, AtLeast(7), geosearch).readonly().keys(READ).doc(
        "Finds members in an area.",
        "6.2.0",
        SEARCH_COST,
        "key from<FROMMEMBER member | FROMLONLAT fromlonlat(longitude:double \
            latitude:double)> by<circle(BYRADIUS radius:double unit<M | KM | FT | MI>) | \
            box(BYBOX width:double height:double unit<M | KM | FT | MI>)> [order<ASC | DESC>] \
            [count-block(COUNT count:integer [ANY])] [WITHCOORD] [WITHDIST] [WITHHASH]",
    ),
    CommandSpec::data("geosearchstore", Group::Geo, AtLeast(8), geosearchstore)
        .write()
        .keys(&[key_at(1, OW | UPDATE), key_at(2, RO | ACCESS)])
        .doc(
            "Stores members in an area.",
            "6.2.0",
            SEARCH_COST,
            "destination:key source:key from<FROMMEMBER member | FROMLONLAT \
            fromlonlat(longitude:double latitude:double)> by<circle(BYRADIUS radius:double \
            unit<M | KM | FT | MI>) | box(BYBOX width:double height:double unit<M | KM | FT | \
            MI>)> [order<ASC | DESC>] [count-block(COUNT count:integer [ANY])] [STOREDIST]",
        ),
    CommandSpec::data("georadius", Group::Geo, AtLeast(6), georadius)
        .write()
        .with(flag::MOVABLEKEYS)
        .keys(RADIUS_KEYS)
        .get_keys(radius_keys)
        .doc(
            "Finds members around a position; use GEOSEARCH.",
            "3.2.0",
            SEARCH_COST,
            "key longitude:double latitude:double radius:double unit<M | KM | FT | MI> \
            [WITHCOORD] [WITHDIST] [WITHHASH] [count-block(COUNT count:integer [ANY@6.2.0])] \
            [order<ASC | DESC>] [store<STORE storekey:key'key' | STOREDIST \
            storedistkey:key'key'>]",
        )
        .deprecated("6.2.0", "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument"),
    CommandSpec::data("georadius_ro", Group::Geo, AtLeast(6), georadius_ro)
        .readonly()
        .keys(READ)
        .doc(
            "Finds members around a position; use GEOSEARCH.",
            "3.2.10",
            SEARCH_COST,
            "key longitude:double latitude:double radius:double unit<M | KM | FT | MI> \
            [WITHCOORD] [WITHDIST] [WITHHASH] [count-block(COUNT count:integer [ANY@6.2.0])] \
            [order<ASC | DESC>]",
        )
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` argument"),
    CommandSpec::data("georadiusbymember", Group::Geo, AtLeast(5), georadiusbymember)
        .write()
        .with(flag::MOVABLEKEYS)
        .keys(MEMBER_KEYS)
        .get_keys(member_keys)
        .doc(
            "Finds members around another; use GEOSEARCH.",
            "3.2.0",
            SEARCH_COST,
            "key member radius:double unit<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
            [count-block(COUNT count:integer [ANY])] [order<ASC | DESC>] [store<STORE \
            storekey:key'key' | STOREDIST storedistkey:key'key'>]",
        )
        .deprecated(
            "6.2.0",
            "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
        ),
    CommandSpec::data("georadiusbymember_ro", Group::Geo, AtLeast(5), georadiusbymember_ro)
        .readonly()
        .keys(READ)
        .doc(
            "Finds members around another; use GEOSEARCH.",
            "3.2.10",
            SEARCH_COST,
            "key member radius:double unit<M | KM | FT | MI> [WITHCOORD] [WITHDIST] [WITHHASH] \
            [count-block(COUNT count:integer [ANY])] [order<ASC | DESC>]",
        )
        .deprecated("6.2.0", "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments"),
];

fn radius_keys(args: Args<'_>, keys: &mut Keys) {
    stored_keys(args, 5, keys);
}

fn member_keys(args: Args<'_>, keys: &mut Keys) {
    stored_keys(args, 4, keys);
}

/// The first argument, and the last of those that follow STORE or STOREDIST: that one counts.
fn stored_keys(args: Args<'_>, first: usize, keys: &mut Keys) {
    keys.push((1, RO | ACCESS));
    let mut stored = None;
    let mut index = first;
    while index + 1 < args.len() {
        if args.is(index, "store") || args.is(index, "storedist") {
            stored = Some(index + 1);
            index += 1;
        }
        index += 1;
    }
    keys.extend(stored.map(|index| (index, OW | UPDATE)));
}

/// Metres in a unit.
fn unit(argument: &[u8]) -> Result<f64, ReplyError> {
    match argument.to_ascii_lowercase().as_slice() {
        b"m" => Ok(1.0),
        b"km" => Ok(1000.0),
        b"ft" => Ok(0.3048),
        b"mi" => Ok(1609.34),
        _ => Err(ReplyError::fixed("ERR unsupported unit provided. please use M, KM, FT, MI")),
    }
}

fn position(longitude: &[u8], latitude: &[u8]) -> Result<Position, ReplyError> {
    let position = Position { longitude: float(longitude)?, latitude: float(latitude)? };
    if position.is_valid() {
        return Ok(position);
    }
    Err(ReplyError::new(format!(
        "ERR invalid longitude,latitude pair {:.6},{:.6}",
        position.longitude, position.latitude
    )))
}

fn limits(view: &View<'_>) -> Limits {
    let settings = view.settings();
    Limits {
        entries: settings.int(Id::ZsetMaxListpackEntries) as usize,
        value: settings.int(Id::ZsetMaxListpackValue) as usize,
    }
}

fn geoadd(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (mut if_absent, mut if_present, mut counts_changes) = (false, false, false);
    let mut options = Options::new(args, 2);
    loop {
        if options.take("nx") {
            if_absent = true;
        } else if options.take("xx") {
            if_present = true;
        } else if options.take("ch") {
            counts_changes = true;
        } else {
            break;
        }
    }
    if !options.remaining().is_multiple_of(3) || options.is_done() || if_absent && if_present {
        return Err(ReplyError::SYNTAX);
    }
    let triples = args.skip(args.len() - options.remaining());
    let positions = (0..triples.len()).step_by(3).map(|at| position(triples.at(at), triples.at(at + 1)));
    let positions = positions.collect::<Result<Vec<_>, _>>()?;
    let limits = limits(view);
    let (added, changed) = view.upsert(args.at(1), Event::sorted_set("zadd"), |set: &mut SortedSet| {
        let (mut added, mut changed) = (0, 0);
        for (index, position) in positions.iter().enumerate() {
            let (member, score) = (triples.at(index * 3 + 2), position.encode() as f64);
            let old = set.score(member);
            if old.is_some() && if_absent || old.is_none() && if_present || old == Some(score) {
                continue;
            }
            set.insert(member, score, &limits);
            if old.is_none() { added += 1 } else { changed += 1 }
        }
        ((added, changed), added + changed > 0)
    })?;
    reply.count(if counts_changes { added + changed } else { added });
    Ok(())
}

fn member_position(set: Option<&SortedSet>, member: &[u8]) -> Option<Position> {
    set?.score(member).map(|score| Position::decode(score as u64))
}

fn write_distance(reply: &mut Reply<'_>, distance: f64) {
    reply.bulk(format!("{distance:.4}").as_bytes());
}

fn write_coordinate(reply: &mut Reply<'_>, degrees: f64) {
    let text = LongDouble::from_f64(degrees).to_text();
    if reply.is_resp3() {
        reply.raw(b",");
        reply.raw(&text);
        reply.raw(b"\r\n");
    } else {
        reply.bulk(&text);
    }
}

fn geodist(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let metres = match args.len() {
        4 => 1.0,
        5 => unit(args.at(4))?,
        _ => return Err(ReplyError::SYNTAX),
    };
    let set = view.get::<SortedSet>(args.at(1))?;
    match (member_position(set, args.at(2)), member_position(set, args.at(3))) {
        (Some(first), Some(second)) => write_distance(reply, first.distance(second) / metres),
        _ => reply.null(),
    }
    Ok(())
}

fn geohash(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let set = view.get::<SortedSet>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.skip(2).iter() {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply.bulk(&Position::geohash(score as u64)),
            None => reply.null(),
        }
    }
    Ok(())
}

fn geopos(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let set = view.get::<SortedSet>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.skip(2).iter() {
        match member_position(set, member) {
            Some(position) => {
                reply.array(2);
                write_coordinate(reply, position.longitude);
                write_coordinate(reply, position.latitude);
            }
            None => reply.null_array(),
        }
    }
    Ok(())
}

/// In which order results come.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Ascending,
    Descending,
}

/// Where a result goes.
#[derive(Clone, Copy, PartialEq)]
enum Destination<'a> {
    Reply,
    Positions(&'a [u8]),
    Distances(&'a [u8]),
}

/// A parsed search.
struct Search<'a> {
    /// `None` if the member it is around does not exist.
    middle: Option<Position>,
    shape: Shape,
    metres: f64,
    order: Option<Order>,
    count: usize,
    takes_any: bool,
    with_position: bool,
    with_distance: bool,
    with_hash: bool,
    destination: Destination<'a>,
    /// What storing is announced as.
    stored: Event,
}

/// One result.
struct Found {
    member: Vec<u8>,
    distance: f64,
    bits: u64,
}

impl<'a> Search<'a> {
    fn new(middle: Option<Position>, shape: Shape, metres: f64) -> Self {
        Self {
            middle,
            shape,
            metres,
            order: None,
            count: 0,
            takes_any: false,
            with_position: false,
            with_distance: false,
            with_hash: false,
            destination: Destination::Reply,
            stored: Event::sorted_set("georadiusstore"),
        }
    }

    /// Takes an option that all searches know; says whether it was one.
    fn common_option(&mut self, options: &mut Options<'a>) -> Result<bool, ReplyError> {
        if options.take("withdist") {
            self.with_distance = true;
        } else if options.take("withhash") {
            self.with_hash = true;
        } else if options.take("withcoord") {
            self.with_position = true;
        } else if options.take("any") {
            self.takes_any = true;
        } else if options.take("asc") {
            self.order = Some(Order::Ascending);
        } else if options.take("desc") {
            self.order = Some(Order::Descending);
        } else if options.take_with("count", 1) {
            self.count = integer_in(
                options.value()?,
                i64::MIN..=i64::MAX,
                "ERR value is not an integer or out of range",
            )
            .and_then(|count| {
                usize::try_from(count)
                    .ok()
                    .filter(|count| *count > 0)
                    .ok_or(ReplyError::fixed("ERR COUNT must be > 0"))
            })?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn check(&mut self, name: &str) -> Result<(), ReplyError> {
        let stores = self.destination != Destination::Reply;
        if stores && (self.with_distance || self.with_hash || self.with_position) {
            return Err(ReplyError::new(format!(
                "ERR {name} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if self.takes_any && self.count == 0 {
            return Err(ReplyError::fixed("ERR the ANY argument requires COUNT argument"));
        }
        // The nearest ones are wanted, so they must be sorted.
        if self.count > 0 && self.order.is_none() && !self.takes_any {
            self.order = Some(Order::Ascending);
        }
        Ok(())
    }

    fn run(&self, set: &SortedSet) -> Vec<Found> {
        let Some(middle) = self.middle else { return Vec::new() };
        let limit = if self.takes_any { self.count } else { usize::MAX };
        let mut found = Vec::new();
        for (from, to) in self.shape.cover(middle) {
            let bound = |score: u64, exclusive| ScoreBound { score: score as f64, exclusive };
            let ranks = set.ranks_within(&Bounds::Score(bound(from, false), bound(to, true)));
            for (member, score) in set.iter(ranks.start, false).take(ranks.len()) {
                let bits = score as u64;
                if let Some(distance) = self.shape.distance(middle, Position::decode(bits)) {
                    found.push(Found {
                        member: member.to_bytes(&mut NumBuf::new()).to_vec(),
                        distance,
                        bits,
                    });
                    if found.len() >= limit {
                        return self.sorted(found);
                    }
                }
            }
        }
        self.sorted(found)
    }

    fn sorted(&self, mut found: Vec<Found>) -> Vec<Found> {
        if let Some(order) = self.order {
            found.sort_by(|a, b| a.distance.total_cmp(&b.distance));
            if order == Order::Descending {
                found.reverse();
            }
        }
        if self.count > 0 {
            found.truncate(self.count);
        }
        found
    }

    fn finish(&self, view: &mut View<'_>, source: &[u8], reply: &mut Reply<'_>) -> CommandResult {
        let found = view.get::<SortedSet>(source)?.map(|set| self.run(set)).unwrap_or_default();
        match self.destination {
            Destination::Reply => self.write(found, reply),
            Destination::Positions(key) => self.store(view, key, &found, |found| found.bits as f64, reply),
            Destination::Distances(key) => {
                self.store(view, key, &found, |found| found.distance / self.metres, reply);
            }
        }
        Ok(())
    }

    fn write(&self, found: Vec<Found>, reply: &mut Reply<'_>) {
        let extras =
            [self.with_distance, self.with_hash, self.with_position].iter().filter(|set| **set).count();
        reply.array(found.len());
        for found in found {
            if extras > 0 {
                reply.array(extras + 1);
            }
            reply.bulk(&found.member);
            if self.with_distance {
                write_distance(reply, found.distance / self.metres);
            }
            if self.with_hash {
                reply.integer(found.bits as i64);
            }
            if self.with_position {
                let position = Position::decode(found.bits);
                reply.array(2);
                write_coordinate(reply, position.longitude);
                write_coordinate(reply, position.latitude);
            }
        }
    }

    fn store(
        &self,
        view: &mut View<'_>,
        key: &[u8],
        found: &[Found],
        score: impl Fn(&Found) -> f64,
        reply: &mut Reply<'_>,
    ) {
        let limits = limits(view);
        let mut result = SortedSet::default();
        for found in found {
            result.insert(&found.member, score(found), &limits);
        }
        reply.count(result.len());
        if result.is_empty() {
            view.delete(key, Event::DEL);
        } else {
            view.store(key, result, self.stored);
        }
    }
}

fn radius(argument: &[u8], metres: f64) -> Result<f64, ReplyError> {
    let radius = float(argument).map_err(|_| ReplyError::fixed("ERR need numeric radius"))?;
    if radius < 0.0 {
        return Err(ReplyError::fixed("ERR radius cannot be negative"));
    }
    Ok(radius * metres)
}

/// Where `GEOSEARCH` searches, before the set is looked at.
enum Around<'a> {
    Member(&'a [u8]),
    Position(Position),
}

fn search(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    first: usize,
    name: &str,
) -> CommandResult {
    let (source, stores) = (args.at(first), first == 2);
    let (mut around, mut shape) = (None, None);
    let mut query = Search::new(None, Shape::Circle { radius: 0.0 }, 1.0);
    if stores {
        query.destination = Destination::Positions(args.at(1));
        query.stored = Event::sorted_set("geosearchstore");
    }
    let mut options = Options::new(args, first + 1);
    while !options.is_done() {
        if around.is_none() && options.take_with("frommember", 1) {
            around = Some(Around::Member(options.value()?));
        } else if around.is_none() && options.take_with("fromlonlat", 2) {
            around = Some(Around::Position(position(options.value()?, options.value()?)?));
        } else if shape.is_none() && options.take_with("byradius", 2) {
            let (given, metres) = (options.value()?, unit(options.value()?)?);
            shape = Some((Shape::Circle { radius: radius(given, metres)? }, metres));
        } else if shape.is_none() && options.take_with("bybox", 3) {
            let (width, height) = (options.value()?, options.value()?);
            let metres = unit(options.value()?)?;
            let side =
                |argument: &[u8], error: &'static str| float(argument).map_err(|_| ReplyError::fixed(error));
            let width = side(width, "ERR need numeric width")? * metres;
            let height = side(height, "ERR need numeric height")? * metres;
            if width < 0.0 || height < 0.0 {
                return Err(ReplyError::fixed("ERR height or width cannot be negative"));
            }
            shape = Some((Shape::Rectangle { width, height }, metres));
        } else if stores && options.take("storedist") {
            query.destination = Destination::Distances(args.at(1));
        } else if !query.common_option(&mut options)? {
            return Err(ReplyError::SYNTAX);
        }
    }
    let Some(around) = around else {
        return Err(ReplyError::new(format!(
            "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {name}"
        )));
    };
    let Some((shape, metres)) = shape else {
        return Err(ReplyError::new(format!(
            "ERR exactly one of BYRADIUS and BYBOX can be specified for {name}"
        )));
    };
    query.check(name)?;
    (query.shape, query.metres) = (shape, metres);
    query.middle = match around {
        Around::Position(position) => Some(position),
        Around::Member(member) => middle_of(view, source, member)?,
    };
    query.finish(view, source, reply)
}

/// The position of a member; `None` if there is no such set.
fn middle_of(view: &mut View<'_>, key: &[u8], member: &[u8]) -> Result<Option<Position>, ReplyError> {
    match view.peek_as::<SortedSet>(key)? {
        None => Ok(None),
        Some(set) => member_position(Some(set), member)
            .map(Some)
            .ok_or(ReplyError::fixed("ERR could not decode requested zset member")),
    }
}

fn geosearch(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    search(view, args, reply, 1, "geosearch")
}

fn geosearchstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    search(view, args, reply, 2, "geosearchstore")
}

/// `GEORADIUS` and its kin, whose radius is argument `at` and whose unit follows.
fn around(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    middle: Option<Position>,
    at: usize,
    may_store: bool,
) -> CommandResult {
    let metres = unit(args.get(at + 1).ok_or(ReplyError::SYNTAX)?);
    let radius = radius(args.at(at), 1.0)?;
    let metres = metres?;
    let mut query = Search::new(middle, Shape::Circle { radius: radius * metres }, metres);
    let mut options = Options::new(args, at + 2);
    while !options.is_done() {
        if may_store && options.take_with("store", 1) {
            query.destination = Destination::Positions(options.value()?);
        } else if may_store && options.take_with("storedist", 1) {
            query.destination = Destination::Distances(options.value()?);
        } else if !query.common_option(&mut options)? {
            return Err(ReplyError::SYNTAX);
        }
    }
    query.check("STORE option in GEORADIUS")?;
    query.finish(view, args.at(1), reply)
}

fn georadius(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let middle = position(args.at(2), args.at(3))?;
    around(view, args, reply, Some(middle), 4, true)
}

fn georadius_ro(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let middle = position(args.at(2), args.at(3))?;
    around(view, args, reply, Some(middle), 4, false)
}

fn georadiusbymember(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let middle = middle_of(view, args.at(1), args.at(2))?;
    around(view, args, reply, middle, 3, true)
}

fn georadiusbymember_ro(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let middle = middle_of(view, args.at(1), args.at(2))?;
    around(view, args, reply, middle, 3, false)
}
