//! Rate limits as rules: what the commands take as arguments and what `[ratelimit.policies.NAME]` says, with one set of
//! bounds for both.

use std::collections::BTreeMap;
use std::path::Path;

use smallvec::SmallVec;

use super::file::{ConfigError, line_of};
use super::sharing::Sharing;
use super::units::parse_duration;

/// How calls are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Exactly: each permit is kept until it has left the window.
    #[default]
    Log,
    /// Two counters, the older one weighted by how much of it the window still covers.
    Counter,
    /// One time: when all permits will have come back, which they do one by one.
    Gcra,
}

/// One limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Permits in a window.
    pub limit: u64,
    /// The window in microseconds.
    pub window_us: u64,
    /// Permits that an idle key has: the limit, or one more than the burst.
    pub capacity: u64,
    /// Nanoseconds in which one permit comes back, rounded up; 0 where the algorithm does not ask.
    pub interval_ns: u64,
}

/// What is wrong with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// None at all, or more than can be counted.
    #[error("limit must be between 1 and {0}")]
    Limit(u64),
    /// None at all, or beyond ten years.
    #[error("window must be between 1 ms and ten years")]
    Window,
    /// Permits would come back faster than one a nanosecond.
    #[error("limit is too high for the window")]
    TooFast,
    /// Only `gcra` knows bursts.
    #[error("burst is for the algorithm gcra only")]
    Burst,
    /// It would take centuries to come back.
    #[error("burst is too large for the limit")]
    BurstTooLarge,
}

/// Permits of a log have a member each.
const MAX_LOG: u64 = 100_000_000;
/// Of the others.
const MAX_LIMIT: u64 = 1_000_000_000_000;
const MAX_WINDOW_MS: u64 = 10 * 366 * 86_400_000;
/// The longest time in which all permits of a burst may come back, in nanoseconds.
const MAX_TOLERANCE: u128 = 1 << 62;
/// Limits of one policy.
const MAX_WINDOWS: usize = 8;

impl Algorithm {
    /// The algorithm of this name, in any case.
    pub fn named(name: &[u8]) -> Option<Self> {
        // The spellings that nearly all use are compared as words.
        match name {
            b"gcra" | b"GCRA" => Some(Self::Gcra),
            b"log" | b"LOG" => Some(Self::Log),
            _ => [Self::Log, Self::Counter, Self::Gcra]
                .into_iter()
                .find(|algorithm| algorithm.name().as_bytes().eq_ignore_ascii_case(name)),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Counter => "counter",
            Self::Gcra => "gcra",
        }
    }
}

impl Rule {
    /// A limit within bounds.
    ///
    /// # Errors
    /// What is beyond them.
    #[inline]
    pub fn new(
        algorithm: Algorithm,
        limit: u64,
        window_ms: u64,
        burst: Option<u64>,
    ) -> Result<Self, RuleError> {
        let most = if algorithm == Algorithm::Log { MAX_LOG } else { MAX_LIMIT };
        if limit == 0 || limit > most {
            return Err(RuleError::Limit(most));
        }
        if window_ms == 0 || window_ms > MAX_WINDOW_MS {
            return Err(RuleError::Window);
        }
        let window_us = window_ms * 1000;
        let capacity = match burst {
            None => limit,
            Some(_) if algorithm != Algorithm::Gcra => return Err(RuleError::Burst),
            Some(burst) => burst.checked_add(1).ok_or(RuleError::BurstTooLarge)?,
        };
        let mut interval_ns = 0;
        if algorithm == Algorithm::Gcra {
            if limit > window_us * 1000 {
                return Err(RuleError::TooFast);
            }
            interval_ns = (window_us * 1000).div_ceil(limit);
            if u128::from(capacity) * u128::from(interval_ns) > MAX_TOLERANCE {
                return Err(RuleError::BurstTooLarge);
            }
        }
        Ok(Self { limit, window_us, capacity, interval_ns })
    }
}

/// Several limits that hold at once.
pub type Rules = SmallVec<[Rule; 1]>;

/// A named policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How it counts.
    pub algorithm: Algorithm,
    /// Its limits.
    pub rules: Rules,
}

/// All policies by name.
pub type Policies = BTreeMap<String, Policy>;

/// A fault in the section: under which table, at which key, and what it is.
pub(super) struct Fault {
    pub(super) table: String,
    pub(super) key: Option<String>,
    pub(super) reason: Option<String>,
}

/// Reads `[ratelimit]`.
pub(super) fn read(
    section: &toml::Table,
    text: &str,
    path: &Path,
) -> Result<(Policies, Sharing), ConfigError> {
    contents_of(section).map_err(|fault| {
        let line = line_of(text, &fault.table, fault.key.as_deref());
        let key = fault.key.map_or_else(|| fault.table.clone(), |key| format!("{}.{key}", fault.table));
        match fault.reason {
            None => ConfigError::UnknownKey { path: path.to_owned(), line, key },
            Some(reason) => {
                ConfigError::BadValue { origin: format!("{}, line {line}", path.display()), key, reason }
            }
        }
    })
}

fn contents_of(section: &toml::Table) -> Result<(Policies, Sharing), Fault> {
    let (mut policies, mut sharing) = (Policies::new(), Sharing::default());
    for (key, value) in section {
        let fault = |reason: Option<&str>| Fault {
            table: "ratelimit".to_owned(),
            key: Some(key.clone()),
            reason: reason.map(str::to_owned),
        };
        if key == "policies" {
            let named = value.as_table().ok_or_else(|| fault(Some("must be a table of policies")))?;
            for (name, policy) in named {
                policies.insert(name.clone(), policy_of(name, policy)?);
            }
        } else if !sharing.set(key, value)? {
            return Err(fault(None));
        }
    }
    Ok((policies, sharing))
}

fn policy_of(name: &str, value: &toml::Value) -> Result<Policy, Fault> {
    let table = format!("ratelimit.policies.{name}");
    let bad = |key: Option<&str>, reason: &str| Fault {
        table: table.clone(),
        key: key.map(str::to_owned),
        reason: Some(reason.to_owned()),
    };
    // The name becomes part of keys, where a colon ends it.
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(bad(None, "a policy's name is made of letters, digits, '-', '_' and '.'"));
    }
    let Some(entries) = value.as_table() else { return Err(bad(None, "must be a table")) };
    let known = ["limit", "window", "algorithm", "burst", "windows"];
    if let Some(key) = entries.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(Fault { table: table.clone(), key: Some(key.clone()), reason: None });
    }
    let algorithm = match entries.get("algorithm") {
        None => Algorithm::default(),
        Some(value) => value
            .as_str()
            .and_then(|name| Algorithm::named(name.as_bytes()))
            .ok_or_else(|| bad(Some("algorithm"), "must be \"log\", \"counter\" or \"gcra\""))?,
    };
    let number = |entries: &toml::Table, key: &str| match entries.get(key) {
        None => Ok(None),
        Some(value) => value.as_integer().and_then(|number| u64::try_from(number).ok()).map(Some).ok_or(()),
    };
    let burst = number(entries, "burst").map_err(|()| bad(Some("burst"), "must be a number, 0 or more"))?;
    let rule = |entries: &toml::Table, key: Option<&str>| {
        let at = |own: &'static str| Some(key.unwrap_or(own));
        let limit = number(entries, "limit").map_err(|()| bad(at("limit"), "limit must be a number"))?;
        let limit = limit.ok_or_else(|| bad(key, "limit is missing"))?;
        let window = entries.get("window").ok_or_else(|| bad(key, "window is missing"))?;
        let window = match window {
            toml::Value::String(text) => parse_duration(text),
            toml::Value::Integer(seconds) => parse_duration(&seconds.to_string()),
            _ => None,
        };
        let window = window.ok_or_else(|| bad(at("window"), "window must be a time, as \"15m\""))?;
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Rule::new(algorithm, limit, window_ms, burst).map_err(|error| {
            let own = match error {
                RuleError::Limit(_) | RuleError::TooFast => "limit",
                RuleError::Window => "window",
                RuleError::Burst | RuleError::BurstTooLarge => "burst",
            };
            bad(at(own), &error.to_string())
        })
    };
    let mut rules = Rules::new();
    match entries.get("windows") {
        None => rules.push(rule(entries, None)?),
        Some(_) if entries.contains_key("limit") || entries.contains_key("window") => {
            return Err(bad(Some("windows"), "stands in place of limit and window, not beside them"));
        }
        Some(_) if burst.is_some() => return Err(bad(Some("burst"), "is for a policy of one window")),
        Some(value) => {
            let key = Some("windows");
            let all = value.as_array().filter(|all| (1..=MAX_WINDOWS).contains(&all.len()));
            for window in all.ok_or_else(|| bad(key, "must be a list of one to eight windows"))? {
                let entries =
                    window.as_table().ok_or_else(|| bad(key, "must hold { limit, window } each"))?;
                if let Some(other) = entries.keys().find(|name| !["limit", "window"].contains(&name.as_str()))
                {
                    return Err(bad(key, &format!("unknown key '{other}'")));
                }
                let next = rule(entries, key)?;
                if rules.iter().any(|rule| rule.window_us == next.window_us) {
                    return Err(bad(key, "has the same window twice"));
                }
                rules.push(next);
            }
        }
    }
    Ok(Policy { algorithm, rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Policies, String> {
        read_all(text).map(|(policies, _)| policies)
    }

    fn read_all(text: &str) -> Result<(Policies, Sharing), String> {
        let table: toml::Table = text.parse().unwrap();
        let section = table["ratelimit"].as_table().unwrap();
        read(section, text, Path::new("x")).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_may_be_shared() {
        use crate::config::{LimitScope, OnLimitFailure};
        let text = "[ratelimit]\nscope = \"leased\"\nlease = 20\non-upstream-failure = \"deny\"\n";
        let (_, sharing) = read_all(text).unwrap();
        let expected =
            Sharing { scope: Some(LimitScope::Leased), lease: 20, on_failure: OnLimitFailure::Deny };
        assert_eq!(sharing, expected);
        let default = Sharing::default();
        assert_eq!((default.scope(true), default.scope(false)), (LimitScope::Upstream, LimitScope::Local));
    }

    #[test]
    fn policies_of_every_kind() {
        let text = "[ratelimit]\nscope = \"local\"\n[ratelimit.policies.api]\nlimit = 1000\nwindow = \"15m\"\n\
            [ratelimit.policies.proxy]\nlimit = 10\nwindow = 1\nalgorithm = \"gcra\"\nburst = 20\n\
            [ratelimit.policies.both]\nalgorithm = \"counter\"\n\
            windows = [{ limit = 10, window = \"1s\" }, { limit = 1000, window = \"15m\" }]\n";
        let policies = read_text(text).unwrap();
        let api = &policies["api"];
        assert_eq!(
            (api.algorithm, api.rules[0].limit, api.rules[0].window_us),
            (Algorithm::Log, 1000, 900_000_000)
        );
        let proxy = &policies["proxy"].rules[0];
        assert_eq!((proxy.capacity, proxy.interval_ns), (21, 100_000_000));
        assert_eq!(policies["both"].rules.len(), 2);
    }

    #[test]
    fn faults_are_named() {
        let policy = |lines: &str| format!("[ratelimit.policies.api]\n{lines}\n");
        for (text, expected) in [
            ("[ratelimit]\nscoop = 1".to_owned(), "line 2: unknown key 'ratelimit.scoop'"),
            ("[ratelimit]\nscope = \"lesed\"".to_owned(), "line 2: ratelimit.scope: must be \"local\", "),
            ("[ratelimit]\nlease = 0".to_owned(), "line 2: ratelimit.lease: must be a number from 1 to"),
            (
                "[ratelimit]\non-upstream-failure = \"stale\"".to_owned(),
                "line 2: ratelimit.on-upstream-failure: must be \"local\", \"allow\" or",
            ),
            (policy("limit = 5"), "ratelimit.policies.api: window is missing"),
            (policy("window = \"1s\""), "line 1: ratelimit.policies.api: limit is missing"),
            (
                policy("limit = 0\nwindow = \"1s\""),
                "line 2: ratelimit.policies.api.limit: limit must be between 1 and",
            ),
            (policy("limit = -1\nwindow = \"1s\""), "limit must be a number"),
            (
                policy("limit = 1\nwindow = \"1y\""),
                "line 3: ratelimit.policies.api.window: window must be a time",
            ),
            (policy("limit = 1\nwindow = \"4000d\""), "ten years"),
            (policy("limit = 1\nwindow = \"1s\"\nburst = 4"), "burst is for the algorithm gcra only"),
            (
                policy("limit = 1\nwindow = \"1s\"\nalgorithm = \"magic\""),
                "line 4: ratelimit.policies.api.algorithm",
            ),
            (
                policy("limit = 1\nwindow = \"1s\"\nwindws = []"),
                "line 4: unknown key 'ratelimit.policies.api.windws'",
            ),
            (policy("windows = []"), "one to eight"),
            (policy("windows = [{ limit = 1 }]"), "window is missing"),
            (policy("windows = [{ limit = 1, window = \"1s\", x = 1 }]"), "unknown key 'x'"),
            (policy("limit = 1\nwindows = []"), "in place of limit and window"),
            (
                policy("windows = [{ limit = 1, window = \"60s\" }, { limit = 2, window = \"1m\" }]"),
                "the same window twice",
            ),
            (
                "[ratelimit.policies.\"a:b\"]\nlimit = 1\nwindow = \"1s\"".to_owned(),
                "a policy's name is made of",
            ),
        ] {
            let said = read_text(&text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn bounds_keep_arithmetic_in_range() {
        use RuleError::*;
        let rule = Rule::new;
        assert_eq!(rule(Algorithm::Gcra, 1_000_001, 1, None), Err(TooFast));
        assert_eq!(rule(Algorithm::Gcra, 1, 1000, Some(u64::MAX)), Err(BurstTooLarge));
        assert_eq!(rule(Algorithm::Gcra, 1, 86_400_000, Some(1 << 40)), Err(BurstTooLarge));
        assert_eq!(rule(Algorithm::Log, 1 << 40, 1000, None), Err(Limit(MAX_LOG)));
        assert!(rule(Algorithm::Counter, MAX_LIMIT, MAX_WINDOW_MS, None).is_ok());
        assert!(rule(Algorithm::Gcra, 1, MAX_WINDOW_MS, Some(1)).is_ok());
    }
}
