//! Rows of a Postgres behind the Redis that hosts have as their upstream: the journal is there, and any host flushes what
//! another has accepted.

mod hosts;
mod outage;
mod replies;
mod rows;

use crate::database::{RULES, TABLES};
use crate::harness::{Client, Server};
use crate::postgres::Postgres;

/// A Postgres with the tables of most tests, a `redis-server`, and Anteroom on several hosts before both.
pub struct Hosts {
    pub postgres: Postgres,
    pub redis: Server,
    pub hosts: Vec<Server>,
}

impl Hosts {
    /// So many hosts, with these lines in the section `[database]` and rules of [`RULES`].
    pub fn start(count: usize, options: &str) -> Self {
        Self::with_rules(count, options, RULES)
    }

    /// The same with other rules.
    pub fn with_rules(count: usize, options: &str, rules: &str) -> Self {
        let (postgres, redis) = (Postgres::start(), Server::redis());
        postgres.sql(TABLES);
        let config = Self::config(&postgres, &redis, options, rules);
        // The first has its connections to Redis on its only worker, the others on a thread of their own.
        let host = |index| Server::configured(&config, &["--threads", if index == 0 { "1" } else { "2" }]);
        let hosts = (0..count).map(host).collect();
        Self { postgres, redis, hosts }
    }

    /// The configuration of a host.
    pub fn config(postgres: &Postgres, redis: &Server, options: &str, rules: &str) -> String {
        Self::config_before(&format!("redis://127.0.0.1:{}", redis.port), postgres, options, rules)
    }

    /// The same for another kind of upstream.
    pub fn config_before(url: &str, postgres: &Postgres, options: &str, rules: &str) -> String {
        let database = crate::database::config(&postgres.url(), options, rules);
        format!(
            "[upstream]\nurl = \"{url}\"\n{}",
            database.replacen("[database]\n", "[database]\njournal = \"upstream\"\n", 1)
        )
    }

    /// A client of each host.
    pub fn clients(&self) -> Vec<Client> {
        self.hosts.iter().map(Server::client).collect()
    }
}
