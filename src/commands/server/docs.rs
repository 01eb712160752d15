//! `COMMAND DOCS`: the documentation in the rows of the command table.

use super::super::spec::{Group, flag};
use super::super::syntax::{self, Argument};
use super::super::table::{COMMANDS, Command};
use crate::protocol::Reply;

/// Writes a command's name and its documentation.
pub(super) fn write(reply: &mut Reply<'_>, command: &Command) {
    let spec = command.spec;
    reply.bulk(command.name.as_bytes());
    let mut map = Map::begin(reply);
    let group = match spec.group {
        Group::SortedSet => "sorted-set".to_owned(),
        group => format!("{group:?}").to_lowercase(),
    };
    map.text("summary", Some(spec.summary));
    map.text("since", Some(spec.since));
    map.text("group", Some(&group));
    map.text("complexity", Some(spec.complexity).filter(|text| !text.is_empty()));
    let flags: Vec<&str> =
        [spec.deprecated.map(|_| "deprecated"), spec.has(flag::SYSTEM).then_some("syscmd")]
            .into_iter()
            .flatten()
            .collect();
    map.flags("doc_flags", &flags);
    map.text("deprecated_since", spec.deprecated.map(|(since, _)| since));
    map.text("replaced_by", spec.deprecated.map(|(_, replacement)| replacement));
    map.arguments(&syntax::parse(spec.syntax).unwrap_or_default());
    let children: Vec<&Command> =
        COMMANDS.iter().filter(|other| other.parent == Some(command.index)).collect();
    if !children.is_empty() {
        map.key("subcommands").map(children.len());
        children.iter().for_each(|child| write(map.reply, child));
    }
    map.end();
}

fn write_argument(reply: &mut Reply<'_>, argument: &Argument) {
    let mut map = Map::begin(reply);
    map.text("name", Some(&argument.name));
    map.text("type", Some(argument.kind));
    map.text("display_text", argument.display.as_deref());
    if let Some(index) = argument.key_spec {
        map.key("key_spec_index").integer(index);
    }
    map.text("token", argument.token);
    map.text("since", argument.since);
    map.text("deprecated_since", argument.deprecated);
    let flags: Vec<&str> = [
        (argument.optional, "optional"),
        (argument.multiple, "multiple"),
        (argument.multiple_token, "multiple_token"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect();
    map.flags("flags", &flags);
    map.arguments(&argument.parts);
    map.end();
}

/// A map whose absent entries are left out.
struct Map<'r, 'a> {
    reply: &'r mut Reply<'a>,
    header: crate::protocol::Deferred,
    pairs: usize,
}

impl<'r, 'a> Map<'r, 'a> {
    fn begin(reply: &'r mut Reply<'a>) -> Self {
        let header = reply.deferred();
        Self { reply, header, pairs: 0 }
    }

    fn key(&mut self, key: &str) -> &mut Reply<'a> {
        self.pairs += 1;
        self.reply.bulk(key.as_bytes());
        self.reply
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.key(key).bulk(value.as_bytes());
        }
    }

    fn flags(&mut self, key: &str, flags: &[&str]) {
        if !flags.is_empty() {
            let reply = self.key(key);
            reply.set(flags.len());
            flags.iter().for_each(|flag| reply.simple(flag));
        }
    }

    fn arguments(&mut self, arguments: &[Argument]) {
        if !arguments.is_empty() {
            let reply = self.key("arguments");
            reply.array(arguments.len());
            arguments.iter().for_each(|argument| write_argument(reply, argument));
        }
    }

    fn end(self) {
        self.reply.end_map(self.header, self.pairs);
    }
}
