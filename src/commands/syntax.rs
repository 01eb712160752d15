//! The notation in which a row of the command table describes its arguments, for `COMMAND DOCS`.
//!
//! It is that of Redis's documentation, with names and types added:
//!
//! ```text
//! key value:integer       arguments; a string if no type is given, a key if the name is `key`
//! EX seconds:integer      an argument behind a word
//! KEEPTTL, CH=change      a word by itself; its name is the word in lower case or what is given
//! name<NX | XX>           one of several
//! name(score member)      several that belong together
//! [..]  ...  ...+         may be left out; may be repeated; may be repeated with its word
//! @6.2.0  !2.8.12         since which version; since which it is deprecated
//! 'text'  #1              the text shown for it; the key spec it belongs to, if not the next (`#-`: to none)
//! ```

use std::borrow::Cow;

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Argument {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its type, in Redis's words.
    pub kind: &'static str,
    /// The key spec that finds it.
    pub key_spec: Option<i64>,
    /// What is shown in its place.
    pub display: Option<Cow<'static, str>>,
    /// The word that it is, or that stands before it.
    pub token: Option<&'static str>,
    /// The version that brought it.
    pub since: Option<&'static str>,
    /// The version that deprecated it.
    pub deprecated: Option<&'static str>,
    /// May be left out.
    pub optional: bool,
    /// May be repeated.
    pub multiple: bool,
    /// Is repeated with its word.
    pub multiple_token: bool,
    /// What it consists of.
    pub parts: Vec<Self>,
}

/// The arguments that a text describes; `None` if the text is none of the notation.
pub fn parse(text: &'static str) -> Option<Vec<Argument>> {
    let mut parser = Parser { rest: text, keys: 0 };
    let mut arguments = Vec::new();
    while !parser.rest.is_empty() {
        if !arguments.is_empty() && !parser.take(" ") {
            return None;
        }
        arguments.push(parser.argument()?);
    }
    Some(arguments)
}

struct Parser {
    rest: &'static str,
    /// Keys seen so far.
    keys: i64,
}

impl Parser {
    /// Takes a text if it is next.
    fn take(&mut self, wanted: &str) -> bool {
        let after = self.rest.strip_prefix(wanted);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    /// Takes what is made of these characters.
    fn word(&mut self, is_part: impl Fn(char) -> bool) -> &'static str {
        let end = self.rest.find(|next| !is_part(next)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A word of a command that is no letter, as the `*` of an id.
    fn sign(&mut self) -> Option<&'static str> {
        let all = self.rest;
        all.starts_with(['=', '~', '*', '$']).then(|| {
            self.rest = &all[1..];
            &all[..1]
        })
    }

    fn name(&mut self) -> Option<&'static str> {
        let name = self.word(|next| next.is_ascii_alphanumeric() || matches!(next, '-' | '_'));
        (!name.is_empty()).then_some(name)
    }

    fn version(&mut self) -> &'static str {
        let all = self.rest;
        let version = self.word(|next| next.is_ascii_digit() || next == '.');
        // The dots at its end are those of a repetition.
        let version = version.trim_end_matches("...");
        self.rest = &all[version.len()..];
        version
    }

    fn argument(&mut self) -> Option<Argument> {
        let is_optional = self.take("[");
        let name = self.sign().or_else(|| self.name())?;
        if name.contains(|character: char| character.is_ascii_lowercase()) {
            return self.described(name, None, is_optional);
        }
        if self.take("=") {
            let given = self.name()?;
            return self.token(name, given.to_owned(), is_optional);
        }
        if self
            .rest
            .strip_prefix(' ')
            .is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_lowercase()))
        {
            self.take(" ");
            let token = Some(name);
            let name = self.name()?;
            return self.described(name, token, is_optional);
        }
        self.token(name, name.to_ascii_lowercase(), is_optional)
    }

    fn token(&mut self, token: &'static str, name: String, optional: bool) -> Option<Argument> {
        let argument = Argument {
            display: Some(Cow::Owned(name.clone())),
            name: Cow::Owned(name),
            kind: "pure-token",
            token: Some(token),
            optional,
            ..Argument::default()
        };
        self.qualified(argument)
    }

    /// The rest of an argument behind its name.
    fn described(
        &mut self,
        name: &'static str,
        token: Option<&'static str>,
        optional: bool,
    ) -> Option<Argument> {
        let (kind, parts) = if self.take("<") {
            ("oneof", self.parts(" | ", ">")?)
        } else if self.take("(") {
            ("block", self.parts(" ", ")")?)
        } else if self.take(":") {
            (self.name()?, Vec::new())
        } else {
            (if name == "key" { "key" } else { "string" }, Vec::new())
        };
        let display = parts.is_empty().then_some(Cow::Borrowed(name));
        let mut argument =
            Argument { name: name.into(), kind, display, token, optional, parts, ..Argument::default() };
        if self.take("'") {
            argument.display = Some(self.word(|next| next != '\'').into());
            self.take("'");
        }
        if kind == "key" {
            argument.key_spec = Some(self.keys);
            self.keys += 1;
        }
        if self.take("#") {
            argument.key_spec = self.word(|next| next.is_ascii_digit() || next == '-').parse().ok();
        }
        self.qualified(argument)
    }

    /// Versions and repetition.
    fn qualified(&mut self, mut argument: Argument) -> Option<Argument> {
        argument.since = self.take("@").then(|| self.version());
        argument.deprecated = self.take("!").then(|| self.version());
        argument.multiple = self.take("...");
        argument.multiple_token = self.take("+");
        (!argument.optional || self.take("]")).then_some(argument)
    }

    fn parts(&mut self, separator: &str, end: &str) -> Option<Vec<Argument>> {
        let mut parts = vec![self.argument()?];
        while !self.take(end) {
            self.take(separator).then_some(())?;
            parts.push(self.argument()?);
        }
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::table::COMMANDS;

    #[test]
    fn every_row_is_in_the_notation() {
        for command in COMMANDS.iter() {
            assert!(parse(command.spec.syntax).is_some(), "{}: {}", command.name, command.spec.syntax);
        }
    }

    #[test]
    fn all_of_the_notation() {
        let text = "key [CH=change@3.0.2] GET get-pattern:pattern'pattern'#1@1.2...+ [data<A a:double | b(c D)>!2.8...]";
        let arguments = parse(text).unwrap();
        let [key, change, get, data] = &arguments[..] else { panic!("{arguments:?}") };
        assert_eq!((key.kind, key.key_spec, key.optional), ("key", Some(0), false));
        assert_eq!((&*change.name, change.token, change.kind), ("change", Some("CH"), "pure-token"));
        assert_eq!((change.since, change.optional, change.multiple), (Some("3.0.2"), true, false));
        assert_eq!((get.kind, get.display.as_deref(), get.key_spec), ("pattern", Some("pattern"), Some(1)));
        assert_eq!((get.since, get.multiple, get.multiple_token), (Some("1.2"), true, true));
        assert_eq!((data.kind, data.display.as_deref(), data.deprecated), ("oneof", None, Some("2.8")));
        assert!(data.multiple && data.optional && !data.multiple_token);
        assert_eq!((data.parts[0].token, data.parts[0].kind), (Some("A"), "double"));
        assert_eq!(data.parts[1].parts[1].kind, "pure-token");
        assert_eq!(parse("").map(|arguments| arguments.len()), Some(0));
        for wrong in ["[key", "a<b", "a<b|c>", "|", "a(b"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
