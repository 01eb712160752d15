//! The ACL file: a user a line, as `ACL LIST` shows them.

use std::collections::BTreeMap;
use std::path::Path;

use super::has_all_channels;
use super::rules::{apply, merge_selectors};
use crate::acl::{Acl, DEFAULT, Rules};
use crate::config::{Id, Settings};

/// Why a file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read the ACL file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// Of which file.
        path: String,
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

/// The users of a file.
///
/// # Errors
/// If it cannot be read, or the first line that is wrong.
pub(super) fn read(path: &Path, all_channels: bool) -> Result<BTreeMap<Box<[u8]>, Rules>, UsersError> {
    let shown = path.display().to_string();
    let text = std::fs::read(path).map_err(|source| UsersError::File { path: shown.clone(), source })?;
    let mut users = BTreeMap::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (name, rules) = user_of(line, all_channels).map_err(|reason| UsersError::Line {
            path: shown.clone(),
            line: at + 1,
            reason,
        })?;
        if users.insert(name, rules).is_some() {
            let reason = "Duplicate user found. A user can only be defined once in config files".to_owned();
            return Err(UsersError::Line { path: shown, line: at + 1, reason });
        }
    }
    Ok(users)
}

fn user_of(line: &[u8], all_channels: bool) -> Result<(Box<[u8]>, Rules), String> {
    let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
    let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
        return Err("should start with user keyword followed by the username".to_owned());
    };
    let mut rules = Rules::new(all_channels);
    let words = merge_selectors(words).map_err(|open| {
        format!("Unmatched parenthesis in selector definition: {}", String::from_utf8_lossy(&open))
    })?;
    for word in words {
        apply(&mut rules, &word, all_channels).map_err(|error| {
            // What may be a password is not shown.
            let shown = if matches!(word[0], b'>' | b'<') {
                "a password".into()
            } else {
                String::from_utf8_lossy(&word)
            };
            format!("{shown}: {error}")
        })?;
    }
    Ok((name.into(), rules))
}

/// The users that the settings say there are, when the server starts.
///
/// # Errors
/// If there is an ACL file, and it is not right.
pub fn load_users(acl: &Acl, settings: &Settings) -> Result<(), UsersError> {
    let all_channels = has_all_channels(settings);
    let password = settings.text(Id::Requirepass);
    if !password.is_empty() {
        acl.set_default_password(&password);
    }
    let path = settings.text(Id::Aclfile);
    if path.is_empty() {
        return Ok(());
    }
    for (name, rules) in read(Path::new(&*path), all_channels)? {
        if *name == *DEFAULT && !password.is_empty() {
            tracing::warn!("the ACL file says what the default user may do: requirepass has no effect");
        }
        acl.put(&name, rules);
    }
    Ok(())
}
