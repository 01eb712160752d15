//! Whom rate limits count: this host alone, or all hosts that have the same upstream; and what happens without it.

use super::policies::Fault;

/// `scope`, `lease` and `on-upstream-failure` of `[ratelimit]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Where it is decided; with an upstream there, if nothing is said.
    pub scope: Option<LimitScope>,
    /// Permits that a host takes from upstream at a time, at most.
    pub lease: u64,
    /// What becomes of calls that upstream does not decide on.
    pub on_failure: OnLimitFailure,
}

/// Where it is decided on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// Here, for this host alone.
    Local,
    /// Upstream, for all hosts.
    Upstream,
    /// Here, from permits that were taken upstream before.
    Leased,
}

/// What becomes of calls that upstream does not decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLimitFailure {
    /// This host counts by itself.
    Local,
    /// They are admitted.
    Allow,
    /// They are refused.
    Deny,
}

impl LimitScope {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Upstream => "upstream",
            Self::Leased => "leased",
        }
    }
}

const DEFAULT_LEASE: u64 = 100;
const MAX_LEASE: u64 = 10_000;

impl Default for Sharing {
    fn default() -> Self {
        Self { scope: None, lease: DEFAULT_LEASE, on_failure: OnLimitFailure::Local }
    }
}

impl Sharing {
    /// Where it is decided.
    pub fn scope(&self, has_upstream: bool) -> LimitScope {
        self.scope.unwrap_or(if has_upstream { LimitScope::Upstream } else { LimitScope::Local })
    }

    /// Reads a key of the section; says whether it was one of these.
    pub(super) fn set(&mut self, key: &str, value: &toml::Value) -> Result<bool, Fault> {
        let fault = |reason: &str| Fault {
            table: "ratelimit".to_owned(),
            key: Some(key.to_owned()),
            reason: Some(reason.to_owned()),
        };
        match key {
            "scope" => {
                self.scope = Some(match value.as_str() {
                    Some("local") => LimitScope::Local,
                    Some("upstream") => LimitScope::Upstream,
                    Some("leased") => LimitScope::Leased,
                    _ => return Err(fault("must be \"local\", \"upstream\" or \"leased\"")),
                });
            }
            "lease" => {
                let lease = value.as_integer().and_then(|lease| u64::try_from(lease).ok());
                let lease = lease.filter(|lease| (1..=MAX_LEASE).contains(lease));
                self.lease = lease.ok_or_else(|| fault("must be a number from 1 to 10000"))?;
            }
            "on-upstream-failure" => {
                self.on_failure = match value.as_str() {
                    Some("local") => OnLimitFailure::Local,
                    Some("allow") => OnLimitFailure::Allow,
                    Some("deny") => OnLimitFailure::Deny,
                    _ => return Err(fault("must be \"local\", \"allow\" or \"deny\"")),
                };
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
