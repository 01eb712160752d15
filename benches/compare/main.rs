//! The comparison behind `make bench`: Anteroom and another server, loaded alike, on the same cores.
//!
//! ```text
//! cargo bench --bench compare                                   # everything, about 15 minutes
//! cargo bench --bench compare -- --quick --only p32 --only tcp  # a part, fast
//! cargo bench --bench compare -- --against PATH                 # another Redis or Valkey build as the baseline
//! cargo bench --bench compare -- --self-test                    # the baseline against itself: what the noise is
//! cargo bench --bench compare -- --help
//! ```
//!
//! Method. Both servers are started with the same affinity (one core, then two) and stay up; only one is loaded
//! at a time, from the remaining cores, in the order A B A B, and what is printed are medians over the rounds.
//! Two figures are given for each: requests a second as the client saw them, and operations per CPU-second of the
//! server process. The second is the one to judge by: it does not fall when the load generator is the
//! bottleneck or a neighbour takes the core, and at full load on one core it equals the first.
//!
//! Invariants: only children started here are ended, by their handles; they die with this process; every
//! wait has a limit. Not here: simulated hit ratios (`benches/eviction`) and in-process measurements.

#![allow(clippy::disallowed_methods, reason = "a harness, not the server")]

mod args;
mod client;
#[path = "../shared/cpu.rs"]
mod cpu;
mod generator;
mod hits;
mod load;
mod memory;
mod placement;
mod report;
mod server;
mod throughput;
#[path = "../eviction/traces.rs"]
mod traces;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts bench targets without any argument: nothing is measured then.
    if arguments.is_empty() {
        println!("compare: nothing to do; run it with `cargo bench --bench compare`");
        return ExitCode::SUCCESS;
    }
    let options = match args::Options::parse(&arguments) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("compare: {message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("compare: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &args::Options) -> Result<(), String> {
    let contest = server::Contest::from_options(options)?;
    println!("{} against {}", contest.subject.name, contest.baseline.name);
    let directory = server::Scratch::create()?;
    let mut printed = throughput::run(options, &contest, &directory)?;
    printed += memory::run(options, &contest, &directory)?;
    printed += hits::run(options, &contest, &directory)?;
    if printed == 0 {
        return Err("no case matches --only".into());
    }
    Ok(())
}
