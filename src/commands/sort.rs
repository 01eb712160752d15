//! `SORT`: lists, sets and sorted sets in another order, by their own elements or by other keys.

use super::arguments::{Options, integer};
use super::keys::{Keys, access::*, key_at, unknown_keys};
use super::lists::index_range;
use super::spec::Arity::AtLeast;
use super::spec::{CommandSpec, Group, Scope, category, flag};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, ValueRef, View};
use crate::types::hash::Hash;
use crate::types::list::List;
use crate::types::number::parse_f64;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("sort", Group::Generic, AtLeast(2), sort)
        .write()
        .with(flag::MOVABLEKEYS)
        .categories(category::DANGEROUS | category::SET | category::SORTED_SET | category::LIST)
        .keys(&[key_at(1, RO | ACCESS), unknown_keys(RO | ACCESS), unknown_keys(OW | UPDATE)])
        .get_keys(sort_keys)
        .scope(Scope::By(scope))
        .doc(
            "Sorts elements, and may store the result.",
            "1.0.0",
            "O(N+M*log(M)): all elements and those returned",
            "key [BY by-pattern:pattern'pattern'#1] [LIMIT limit(offset:integer count:integer)] \
            [GET get-pattern:pattern'pattern'#1...+] [order<ASC | DESC>] [ALPHA=sorting] [STORE \
            destination:key#2]",
        ),
    CommandSpec::data("sort_ro", Group::Generic, AtLeast(2), sort_ro)
        .uncached()
        .readonly()
        .with(flag::MOVABLEKEYS)
        .categories(category::DANGEROUS | category::SET | category::SORTED_SET | category::LIST)
        .keys(&[key_at(1, RO | ACCESS), unknown_keys(RO | ACCESS)])
        .get_keys(sort_ro_keys)
        .scope(Scope::By(scope))
        .doc(
            "Sorts elements.",
            "7.0.0",
            "O(N+M*log(M)): all elements and those returned",
            "key [BY by-pattern:pattern'pattern'#1] [LIMIT limit(offset:integer count:integer)] \
            [GET get-pattern:pattern'pattern'#1...+] [order<ASC | DESC>] [ALPHA=sorting]",
        ),
];

fn sort_keys(args: Args<'_>, keys: &mut Keys) {
    keys.push((1, RO | ACCESS));
    let mut stored = None;
    let mut index = 2;
    while index < args.len() {
        index += if args.is(index, "limit") {
            2
        } else if args.is(index, "get") || args.is(index, "by") {
            1
        } else if args.is(index, "store") && index + 1 < args.len() {
            stored = Some(index + 1);
            1
        } else {
            0
        };
        index += 1;
    }
    keys.extend(stored.map(|index| (index, OW | UPDATE)));
}

fn sort_ro_keys(_: Args<'_>, keys: &mut Keys) {
    keys.push((1, RO | ACCESS));
}

/// Patterns name keys that nobody knows before the elements are read.
fn scope(args: Args<'_>) -> Scope {
    let looks_elsewhere = (2..args.len()).any(|index| {
        (args.is(index, "by") || args.is(index, "get"))
            && args.get(index + 1).is_some_and(|pattern| pattern.contains(&b'*'))
    });
    if looks_elsewhere { Scope::All } else { Scope::Keys }
}

/// A parsed command.
struct Query<'a> {
    by: Option<&'a [u8]>,
    keeps_order: bool,
    limit: Option<(i64, i64)>,
    get: Vec<&'a [u8]>,
    descending: bool,
    alphabetic: bool,
    destination: Option<&'a [u8]>,
}

impl<'a> Query<'a> {
    fn parse(args: Args<'a>, may_store: bool) -> Result<Self, ReplyError> {
        let mut query = Self {
            by: None,
            keeps_order: false,
            limit: None,
            get: Vec::new(),
            descending: false,
            alphabetic: false,
            destination: None,
        };
        let mut options = Options::new(args, 2);
        while !options.is_done() {
            if options.take("asc") {
                query.descending = false;
            } else if options.take("desc") {
                query.descending = true;
            } else if options.take("alpha") {
                query.alphabetic = true;
            } else if options.take_with("limit", 2) {
                query.limit = Some((integer(options.value()?)?, integer(options.value()?)?));
            } else if may_store && options.take_with("store", 1) {
                query.destination = Some(options.value()?);
            } else if options.take_with("by", 1) {
                let pattern = options.value()?;
                // Without a star every element has the same weight: the order is the one they have.
                query.keeps_order = !pattern.contains(&b'*');
                query.by = Some(pattern);
            } else if options.take_with("get", 1) {
                query.get.push(options.value()?);
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        Ok(query)
    }
}

/// What an element is sorted by.
enum Weight {
    Number(f64),
    Text(Option<Vec<u8>>),
    None,
}

fn sort(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(view, args, reply, Query::parse(args, true)?)
}

fn sort_ro(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    run(view, args, reply, Query::parse(args, false)?)
}

fn run(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, query: Query<'_>) -> CommandResult {
    let mut sorted_set = false;
    let mut elements: Vec<Vec<u8>> = match view.read(args.at(1)) {
        None => Vec::new(),
        Some(ValueRef::List(list)) => list.iter().map(|item| item.to_vec()).collect(),
        Some(ValueRef::Set(set)) => set.iter().map(|item| item.to_vec()).collect(),
        Some(ValueRef::SortedSet(set)) => {
            sorted_set = true;
            set.iter(0, false).map(|(item, _)| item.to_vec()).collect()
        }
        Some(_) => return Err(ReplyError::WRONG_TYPE),
    };
    let is_set = matches!(view.peek(args.at(1)), Some(ValueRef::Set(_)));
    // The order of a set is nobody's: a stored result must not depend on it.
    let (keeps_order, alphabetic, by) = if query.keeps_order && is_set && query.destination.is_some() {
        (false, true, None)
    } else {
        (query.keeps_order, query.alphabetic, query.by)
    };
    if keeps_order {
        if sorted_set && query.descending {
            elements.reverse();
        }
    } else {
        elements = sort_elements(view, elements, by, alphabetic, query.descending)?;
    }
    let (start, count) = match query.limit {
        None => (0, elements.len()),
        Some((offset, count)) => {
            let start = offset.max(0);
            let end = if count < 0 { -1 } else { start.saturating_add(count) - 1 };
            if count == 0 { (0, 0) } else { index_range(elements.len(), start, end) }
        }
    };
    let mut output: Vec<Option<Vec<u8>>> = Vec::new();
    for element in elements.drain(start..start + count) {
        for pattern in &query.get {
            output.push(look_up(view, pattern, &element)?);
        }
        if query.get.is_empty() {
            output.push(Some(element));
        }
    }
    match query.destination {
        None => {
            reply.array(output.len());
            output.iter().for_each(|element| reply.bulk_or_null(element.as_deref()));
        }
        Some(key) => store(view, key, &output, reply),
    }
    Ok(())
}

fn sort_elements(
    view: &mut View<'_>,
    elements: Vec<Vec<u8>>,
    by: Option<&[u8]>,
    alphabetic: bool,
    descending: bool,
) -> Result<Vec<Vec<u8>>, ReplyError> {
    let mut weighted = Vec::with_capacity(elements.len());
    for element in elements {
        let text = match by {
            None if alphabetic => {
                weighted.push((Weight::None, element));
                continue;
            }
            None => Some(element.clone()),
            Some(pattern) => look_up(view, pattern, &element)?,
        };
        let weight = match (alphabetic, text) {
            (true, text) => Weight::Text(text),
            (false, None) => Weight::Number(0.0),
            (false, Some(text)) => Weight::Number(number(&text)?),
        };
        weighted.push((weight, element));
    }
    weighted.sort_by(|(left, left_element), (right, right_element)| {
        let order = match (left, right) {
            (Weight::Number(left), Weight::Number(right)) => {
                left.total_cmp(right).then_with(|| left_element.cmp(right_element))
            }
            (Weight::Text(left), Weight::Text(right)) => left.cmp(right),
            _ => left_element.cmp(right_element),
        };
        if descending { order.reverse() } else { order }
    });
    Ok(weighted.into_iter().map(|(_, element)| element).collect())
}

/// The number that a C program reads from a text: what stands behind a zero does not count, and nothing is 0.
fn number(text: &[u8]) -> Result<f64, ReplyError> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii_start();
    if text.is_empty() {
        return Ok(0.0);
    }
    parse_f64(text)
        .filter(|number| !number.is_nan())
        .ok_or(ReplyError::fixed("ERR One or more scores can't be converted into double"))
}

/// The string that a pattern leads to from an element: `#` is the element, `key*->field` a field of a hash.
fn look_up(view: &mut View<'_>, pattern: &[u8], element: &[u8]) -> Result<Option<Vec<u8>>, ReplyError> {
    if pattern == b"#" {
        return Ok(Some(element.to_vec()));
    }
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else { return Ok(None) };
    let arrow = pattern[star..].windows(2).position(|pair| pair == b"->").map(|at| star + at);
    let arrow = arrow.filter(|at| at + 2 < pattern.len());
    let end = arrow.unwrap_or(pattern.len());
    let key = [&pattern[..star], element, &pattern[star + 1..end]].concat();
    Ok(match arrow {
        None => match view.read(&key) {
            Some(ValueRef::String(item)) => Some(item.to_vec()),
            _ => None,
        },
        Some(at) => match view.get::<Hash>(&key) {
            Ok(hash) => hash.and_then(|hash| hash.get(&pattern[at + 2..])).map(|item| item.to_vec()),
            Err(_) => None,
        },
    })
}

fn store(view: &mut View<'_>, key: &[u8], output: &[Option<Vec<u8>>], reply: &mut Reply<'_>) {
    reply.count(output.len());
    if output.is_empty() {
        view.delete(key, Event::DEL);
        return;
    }
    let limit = view.settings().int(Id::ListMaxListpackSize) as i32;
    let mut list = List::default();
    output.iter().for_each(|element| list.push_back(element.as_deref().unwrap_or_default(), limit));
    view.store(key, list, Event::list("sortstore"));
}
