//! Command-line options of the comparison.

use std::path::PathBuf;

use crate::generator::Kind;

pub const HELP: &str = "\
Options (after `cargo bench --bench compare --`):
  --quick            fewer rounds and requests: a rough answer in about two minutes
  --rounds N         rounds per figure (default 5, quick 3)
  --only SUBSTR      only cases whose label contains SUBSTR; repeat it to narrow further
                     (labels: tcp-1core-p1-get, unix-2core-p32-mget, memory-string-ttl,
                     hits-scan-8mb, ...)
  --generator KIND   redis-benchmark, own, or auto: redis-benchmark at pipeline 1 and own at 32 (default)
  --pipelines LIST   pipeline depths (default 1,32)
  --server-cores LIST  cores for the servers, e.g. 2,3 (default: the last two usable ones)
  --subject PATH     the Anteroom binary (default: the one built with this bench)
  --against PATH     the redis-server binary to compare with (default: redis-server from PATH)
  --self-test        the baseline against itself
  --help             this text
";

/// What to measure, and with what.
pub struct Options {
    pub quick: bool,
    pub rounds: usize,
    pub only: Vec<String>,
    /// None: redis-benchmark for single requests, the own generator for pipelines.
    pub generator: Option<Kind>,
    pub pipelines: Vec<usize>,
    pub server_cores: Option<Vec<usize>>,
    pub subject: Option<PathBuf>,
    pub against: PathBuf,
    pub self_test: bool,
}

impl Options {
    /// Reads the arguments; `None` means that help was asked for.
    pub fn parse(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Options {
            quick: false,
            rounds: 0,
            only: Vec::new(),
            generator: None,
            pipelines: vec![1, 32],
            server_cores: None,
            subject: None,
            against: PathBuf::from("redis-server"),
            self_test: false,
        };
        let mut rest = arguments.iter();
        while let Some(flag) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{flag} needs a value"));
            match flag.as_str() {
                "--bench" => {} // cargo's own
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--self-test" => options.self_test = true,
                "--rounds" => options.rounds = positive(&value()?)?,
                "--only" => options.only.push(value()?),
                "--generator" => options.generator = Kind::parse(&value()?)?,
                "--pipelines" => options.pipelines = list(&value()?, positive)?,
                "--server-cores" => options.server_cores = Some(list(&value()?, number)?),
                "--subject" => options.subject = Some(value()?.into()),
                "--against" => options.against = value()?.into(),
                unknown => return Err(format!("unknown option {unknown}")),
            }
        }
        if options.rounds == 0 {
            options.rounds = if options.quick { 3 } else { 5 };
        }
        Ok(Some(options))
    }

    pub fn wants(&self, label: &str) -> bool {
        self.only.iter().all(|part| label.contains(part.as_str()))
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| format!("not a number: {text}"))
}

fn positive(text: &str) -> Result<usize, String> {
    match number(text)? {
        0 => Err("must be at least 1".into()),
        n => Ok(n),
    }
}

fn list(text: &str, item: fn(&str) -> Result<usize, String>) -> Result<Vec<usize>, String> {
    text.split(',').map(item).collect()
}
