//! The section `[upstream]` and `[[keys]]`: the Redis behind the near cache, and keys that it does not concern.
//!
//! A URL of a kind that is not served is an error here, so that nobody believes to be connected in a way that they are not.

use std::path::PathBuf;
use std::time::Duration;

use super::units::parse_duration;

/// The section `[upstream]`.
#[derive(Debug, Clone)]
pub struct UpstreamConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How long a reply is kept at most.
    pub near_cache_ttl: Duration,
    /// How long it is kept that a key is absent; not at all if zero.
    pub negative_ttl: Duration,
    /// What happens to what is kept when upstream is lost.
    pub on_failure: OnFailure,
    /// For how long replies may be served stale.
    pub stale_ttl: Duration,
    /// For how long a reply may be served after upstream was last heard.
    pub heartbeat: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// The most connections that are shared, or kept for later use.
    pub connections: usize,
    /// Of a hundred hits, how many are compared with upstream.
    pub shadow_percent: f64,
    /// The authorities that may vouch for upstream's certificate; the public ones if absent.
    pub tls_ca_cert_file: Option<PathBuf>,
    /// Whether hot keys are read again shortly before they expire.
    pub early_refresh: bool,
    /// Whether upstream is asked to tell of changes; if not, what others change is served until it expires here.
    pub tracking: bool,
}

/// What happens to what is kept when upstream is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is dropped, and requests fail.
    Error,
    /// It is served as stale for a while.
    Stale,
}

/// A Redis server's address, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The user, if not the default one.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The database that clients begin in.
    pub db: usize,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Who knows where the master is; `host` and `port` are the first of them.
    pub sentinels: Option<Sentinels>,
    /// Some nodes of a cluster; `host` and `port` are the first of them.
    pub cluster: Option<Vec<(String, u16)>>,
}

/// Sentinels, and the name that they know the master by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentinels {
    /// Their addresses.
    pub addresses: Vec<(String, u16)>,
    /// The master's name.
    pub master: String,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "rediss" } else { "redis" };
        if let Some(Sentinels { addresses, master }) = &self.sentinels {
            let addresses: Vec<String> =
                addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            return write!(formatter, "{scheme}-sentinel://{}/{master}/{}", addresses.join(","), self.db);
        }
        if let Some(addresses) = &self.cluster {
            let addresses: Vec<String> =
                addresses.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            return write!(formatter, "{scheme}-cluster://{}", addresses.join(","));
        }
        write!(formatter, "{scheme}://{}:{}/{}", self.host, self.port, self.db)
    }
}

/// Keys that the upstream does not concern, or that are not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRule {
    /// A glob.
    pub pattern: String,
    /// Where its keys live.
    pub tier: KeyTier,
}

/// Where keys live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyTier {
    /// On this host alone.
    Local,
    /// Upstream alone: never in the near cache.
    Bypass,
}

impl Endpoint {
    /// Reads `redis://[[user]:password@]host[:port][/database]`, or `rediss://` for TLS, or
    /// `redis-sentinel://[[user]:password@]host[:port][,host[:port]...]/master[/database]`, or
    /// `redis-cluster://[[user]:password@]host[:port][,host[:port]...]`; user and password are the masters'. Both are
    /// by TLS too, as `rediss-sentinel://` (the Sentinels as well) and `rediss-cluster://`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("must be a URL, as redis://host:6379".to_owned())?;
        let (server, kind) = scheme.split_once('-').unwrap_or((scheme, ""));
        let (tls, has_sentinels, is_cluster) = (server == "rediss", kind == "sentinel", kind == "cluster");
        if server != "redis" && !tls || scheme.contains('-') && !has_sentinels && !is_cluster {
            return Err(format!(
                "the scheme '{scheme}' is not known: it must begin with redis://, redis-sentinel:// or \
                 redis-cluster://, or by TLS rediss://, rediss-sentinel:// or rediss-cluster://"
            ));
        }
        let (credentials, place) =
            rest.rsplit_once('@').map_or((None, rest), |(left, right)| (Some(left), right));
        let (user, password) = match credentials {
            None => (None, None),
            Some(text) => {
                let (user, password) = text.split_once(':').ok_or("a password must follow ':'".to_owned())?;
                let user = decode(user)?;
                (Some(user).filter(|user| !user.is_empty()), Some(decode(password)?))
            }
        };
        if place.contains('?') {
            return Err("parameters behind '?' are not known".to_owned());
        }
        let (addresses, rest) = place.split_once('/').unwrap_or((place, ""));
        let (master, db) =
            if has_sentinels { rest.split_once('/').unwrap_or((rest, "")) } else { ("", rest) };
        if has_sentinels && master.is_empty() {
            return Err("the master's name is missing: redis-sentinel://host:port/name".to_owned());
        }
        let db = if db.is_empty() {
            0
        } else {
            db.parse().map_err(|_| "the database must be a number".to_owned())?
        };
        let default_port = if has_sentinels { 26379 } else { 6379 };
        if is_cluster && db != 0 {
            return Err("a cluster has no database but 0".to_owned());
        }
        let several: Vec<&str> =
            if has_sentinels || is_cluster { addresses.split(',').collect() } else { vec![addresses] };
        let addresses =
            several.into_iter().map(|text| address(text, default_port)).collect::<Result<Vec<_>, _>>()?;
        let (host, port) = addresses[0].clone();
        let cluster = is_cluster.then(|| addresses.clone());
        let sentinels = has_sentinels.then(|| Sentinels { addresses, master: master.to_owned() });
        Ok(Self { host, port, user, password, db, tls, sentinels, cluster })
    }
}

fn address(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| format!("'{port}' is no port"))?)
        }
        _ => (text, default_port),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() {
        return Err("the host is missing".to_owned());
    }
    Ok((host, port))
}

/// Undoes `%xx`.
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(value.ok_or("'%' must be followed by two hexadecimal digits".to_owned())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "user and password must be UTF-8".to_owned())
}

impl UpstreamConfig {
    /// The defaults with this URL.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn at(url: &str) -> Result<Self, String> {
        Ok(Self {
            endpoint: Endpoint::parse(url)?,
            near_cache_ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(30),
            on_failure: OnFailure::Error,
            stale_ttl: Duration::from_secs(60),
            heartbeat: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            connections: 16,
            shadow_percent: 0.0,
            tls_ca_cert_file: None,
            early_refresh: false,
            tracking: true,
        })
    }

    /// Reads the section; a `url` given elsewhere wins over the section's.
    ///
    /// # Errors
    /// The key, and what is wrong with it.
    pub fn read(section: &toml::Table, url: Option<&str>) -> Result<Self, (String, String)> {
        let written = section.get("url").map(|value| value.as_str().ok_or("must be a text"));
        let url = match (url, written) {
            (Some(url), _) => url,
            (None, Some(text)) => text.map_err(|reason| ("url".to_owned(), reason.to_owned()))?,
            (None, None) => return Err(("url".to_owned(), "is missing".to_owned())),
        };
        let mut config = Self::at(url).map_err(|reason| ("url".to_owned(), reason))?;
        for (key, value) in section {
            config.set(key, value).map_err(|reason| (key.clone(), reason))?;
        }
        if config.endpoint.cluster.is_some() && config.on_failure == OnFailure::Stale {
            let reason =
                "\"stale\" is not served with a cluster: a node that is lost may have lost its slots too";
            return Err(("on-upstream-failure".to_owned(), reason.to_owned()));
        }
        Ok(config)
    }

    fn set(&mut self, key: &str, value: &toml::Value) -> Result<(), String> {
        match key {
            "url" => {}
            "near-cache-ttl" => self.near_cache_ttl = duration(value, true)?,
            "negative-ttl" => self.negative_ttl = duration(value, false)?,
            "stale-ttl" => self.stale_ttl = duration(value, false)?,
            "upstream-heartbeat" => self.heartbeat = duration(value, true)?,
            "timeout" => self.timeout = duration(value, true)?,
            "on-upstream-failure" => {
                self.on_failure = match value.as_str() {
                    Some("error") => OnFailure::Error,
                    Some("stale") => OnFailure::Stale,
                    _ => return Err("must be \"error\" or \"stale\"".to_owned()),
                };
            }
            "connections" => {
                let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
                self.connections = count
                    .filter(|count| (2..=1024).contains(count))
                    .ok_or("must be a number from 2 to 1024: one for each protocol at least")?;
            }
            "shadow-percent" => {
                let percent = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64));
                self.shadow_percent = percent
                    .filter(|percent| (0.0..=100.0).contains(percent))
                    .ok_or("must be from 0 to 100")?;
            }
            "tls-ca-cert-file" => {
                self.tls_ca_cert_file = Some(value.as_str().ok_or("must be a path")?.into());
            }
            "tracking" => {
                self.tracking = match value.as_str() {
                    Some("on") => true,
                    Some("off") => false,
                    _ => return Err("must be \"on\" or \"off\"".to_owned()),
                };
            }
            "early-refresh" => self.early_refresh = value.as_bool().ok_or("must be true or false")?,
            _ => return Err("unknown key".to_owned()),
        }
        Ok(())
    }
}

fn duration(value: &toml::Value, positive: bool) -> Result<Duration, String> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        _ => return Err("must be a time, as 10s".to_owned()),
    };
    let duration = parse_duration(&text).ok_or("must be a time, as 10s")?;
    if positive && duration.is_zero() {
        return Err("must not be 0".to_owned());
    }
    Ok(duration)
}

/// Reads `[[keys]]`.
///
/// # Errors
/// What is wrong.
pub fn read_keys(value: &toml::Value) -> Result<Vec<KeyRule>, String> {
    let rules = value.as_array().ok_or("must be written [[keys]]")?;
    let read = |rule: &toml::Value| {
        let table = rule.as_table().ok_or("must be written [[keys]]")?;
        if let Some(key) = table.keys().find(|key| !["pattern", "tier"].contains(&key.as_str())) {
            return Err(format!("unknown key '{key}'"));
        }
        let text = |key: &str| table.get(key).and_then(toml::Value::as_str);
        let pattern = text("pattern").ok_or("pattern is missing, or no text")?.to_owned();
        let tier = match text("tier") {
            Some("local") => KeyTier::Local,
            Some("bypass") => KeyTier::Bypass,
            _ => return Err("tier must be \"local\" or \"bypass\"".to_owned()),
        };
        Ok(KeyRule { pattern, tier })
    };
    rules.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let full = Endpoint::parse("redis://app:p%40ss@[::1]:7000/3").unwrap();
        assert_eq!((full.host.as_str(), full.port, full.db), ("::1", 7000, 3));
        assert_eq!((full.user.as_deref(), full.password.as_deref()), (Some("app"), Some("p@ss")));
        let short = Endpoint::parse("redis://:secret@cache").unwrap();
        assert_eq!((short.host.as_str(), short.port, short.db), ("cache", 6379, 0));
        assert_eq!((short.user.as_deref(), short.password.as_deref()), (None, Some("secret")));
        assert_eq!(Endpoint::parse("redis://[::1]").unwrap().host, "::1");
        assert!(!format!("{short:?}").contains("secret") && !short.tls);
        assert!(Endpoint::parse("rediss://h").unwrap().tls);
    }

    #[test]
    fn sentinels_are_several() {
        let endpoint = Endpoint::parse("redis-sentinel://:pw@a,b:1/main/2").unwrap();
        let sentinels = endpoint.sentinels.unwrap();
        assert_eq!(sentinels.addresses, [("a".to_owned(), 26379), ("b".to_owned(), 1)]);
        assert_eq!((sentinels.master.as_str(), endpoint.db, endpoint.tls), ("main", 2, false));
        for (url, is_cluster) in [("rediss-sentinel://a:1/main/0", false), ("rediss-cluster://a:1,b:2", true)]
        {
            let endpoint = Endpoint::parse(url).unwrap();
            assert!(endpoint.tls && endpoint.cluster.is_some() == is_cluster);
            assert_eq!(format!("{endpoint:?}"), url);
        }
    }

    #[test]
    fn what_is_not_served_is_said() {
        for (url, said) in [
            ("redis-sentinel://h", "the master's name is missing"),
            ("redis-cluster://h/1", "no database but 0"),
            ("redis-ring://h", "the scheme 'redis-ring' is not known"),
            ("redis-://h", "the scheme 'redis-' is not known"),
            ("http://h", "the scheme 'http' is not known"),
            ("h:6379", "must be a URL"),
            ("redis://", "the host is missing"),
            ("redis://h:x", "'x' is no port"),
            ("redis://h/x", "the database must be a number"),
            ("redis://u@h", "a password must follow"),
            ("redis://:%z@h", "two hexadecimal digits"),
            ("redis://h/0?x=1", "parameters"),
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(error.contains(said), "{url}: {error}");
        }
    }

    #[test]
    fn sections_are_checked() {
        let read = |text: &str| UpstreamConfig::read(&text.parse().unwrap(), None);
        let config = read("url = \"redis://h\"\ntimeout = \"2s\"\non-upstream-failure = \"stale\"").unwrap();
        assert_eq!((config.timeout, config.on_failure), (Duration::from_secs(2), OnFailure::Stale));
        for (text, key) in [
            ("timeout = 1", "url"),
            ("url = \"redis://h\"\ntimeout = 0", "timeout"),
            ("url = \"redis://h\"\nconnections = 1", "connections"),
            ("url = \"redis://h\"\nshadow-percent = 101", "shadow-percent"),
            ("url = \"redis://h\"\ntracking = true", "tracking"),
            ("url = \"redis://h\"\nx = 1", "x"),
        ] {
            assert_eq!(read(text).unwrap_err().0, key, "{text}");
        }
        let flagged = UpstreamConfig::read(&toml::Table::new(), Some("redis://other:1")).unwrap();
        assert_eq!(flagged.endpoint.port, 1);
    }

    #[test]
    fn key_rules_are_checked() {
        let read = |text: &str| read_keys(&text.parse::<toml::Table>().unwrap()["keys"]);
        let rules = read("[[keys]]\npattern = \"s:*\"\ntier = \"local\"").unwrap();
        assert_eq!(rules, [KeyRule { pattern: "s:*".to_owned(), tier: KeyTier::Local }]);
        assert!(read("[[keys]]\npattern = \"s:*\"\ntier = \"remote\"").is_err());
        assert!(read("[[keys]]\ntier = \"local\"").is_err());
        assert!(read("[[keys]]\npattern = \"s\"\ntier = \"local\"\nx = 1").unwrap_err().contains("'x'"));
    }
}
