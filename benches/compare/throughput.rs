//! Requests a second and operations per CPU-second, for each transport, pipeline depth and command.

use std::time::Duration;

use crate::args::Options;
use crate::client::Endpoint;
use crate::generator::{Burst, Kind};
use crate::placement::Placement;
use crate::report;
use crate::server::{Contest, Scratch, Server};
use crate::workload::Workload;

/// One line of the table.
struct Case {
    unix: bool,
    cores: usize,
    pipeline: usize,
    workload: Workload,
}

impl Case {
    fn label(&self) -> String {
        let transport = if self.unix { "unix" } else { "tcp" };
        format!("{transport}-{}core-p{}-{}", self.cores, self.pipeline, self.workload.name())
    }

    fn endpoint(&self, server: &Server) -> Endpoint {
        if self.unix { Endpoint::Unix(server.socket.clone()) } else { Endpoint::Tcp(server.port) }
    }

    fn burst<'a>(&self, options: &Options, placement: &'a Placement) -> Burst<'a> {
        let automatic = if self.pipeline > 1 { Kind::Own } else { Kind::RedisBenchmark };
        // About a second for a server that answers 100,000 single requests and 1.5 million pipelined ones a second.
        let full = if self.pipeline > 1 { 1_600_000 } else { 120_000 };
        let quick = if options.quick { 4 } else { 1 };
        Burst {
            kind: options.generator.unwrap_or(automatic),
            workload: self.workload,
            pipeline: self.pipeline,
            requests: full * self.cores / quick / self.workload.weight(),
            cores: &placement.generator,
        }
    }
}

/// One server's figure in one round.
#[derive(Clone, Copy)]
struct Sample {
    per_second: f64,
    per_cpu_second: f64,
}

/// Runs every case that is wanted and prints its line; returns how many there were.
pub fn run(options: &Options, contest: &Contest, directory: &Scratch) -> Result<usize, String> {
    let mut printed = 0;
    for cores in [1, 2] {
        let cases = wanted(options, cores);
        if cases.is_empty() {
            continue;
        }
        let Some(placement) = Placement::new(options, cores)? else {
            println!("\nskipped: {cores} server core(s) would leave none for the load generator");
            continue;
        };
        let subject = contest.subject.start(directory, &placement.server)?;
        let baseline = contest.baseline.start(directory, &placement.server)?;
        println!(
            "\nservers on core(s) {}: {} | {}; load from core(s) {}; medians of {} rounds, A B A B",
            placement.server.list(),
            contest.subject.command_line(cores),
            contest.baseline.command_line(cores),
            placement.generator.list(),
            options.rounds,
        );
        report::throughput_header(&subject.name, &baseline.name);
        for case in &cases {
            measure(options, case, &placement, [&subject, &baseline])?;
            printed += 1;
        }
    }
    Ok(printed)
}

fn wanted(options: &Options, cores: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for unix in [false, true] {
        for &pipeline in &options.pipelines {
            for workload in Workload::ALL {
                let case = Case { unix, cores, pipeline, workload };
                if options.wants(&case.label()) {
                    cases.push(case);
                }
            }
        }
    }
    cases
}

fn measure(
    options: &Options,
    case: &Case,
    placement: &Placement,
    servers: [&Server; 2],
) -> Result<(), String> {
    let burst = case.burst(options, placement);
    for server in servers {
        if let Err(e) = case.workload.prepare(&case.endpoint(server)) {
            println!("{:<20} not measured: {}: {e}", case.label(), server.name);
            return Ok(());
        }
        // One short discarded run: connections, allocator and branch predictors have seen the load once.
        Burst { requests: burst.requests / 5, ..burst }.run(&case.endpoint(server))?;
    }
    let mut samples = [Vec::new(), Vec::new()];
    for _ in 0..options.rounds {
        for (server, list) in servers.iter().zip(&mut samples) {
            let endpoint = case.endpoint(server);
            if case.workload.grows() {
                case.workload.prepare(&endpoint).map_err(|e| format!("{}: {e}", server.name))?;
            }
            let before = server.cpu_time()?;
            let seen = burst.run(&endpoint)?;
            let used = server.cpu_time()? - before;
            list.push(sample(seen.requests, seen.per_second, used));
        }
    }
    let medians = samples.map(|list| Sample {
        per_second: report::median(list.iter().map(|s| s.per_second)),
        per_cpu_second: report::median(list.iter().map(|s| s.per_cpu_second)),
    });
    let figures = medians.map(|m| (m.per_second, m.per_cpu_second));
    report::throughput_line(&case.label(), figures, &burst.command_line(case.unix));
    Ok(())
}

fn sample(requests: usize, per_second: f64, used: Duration) -> Sample {
    // A nanosecond of CPU at least: a division by zero would only hide that nothing was served.
    Sample { per_second, per_cpu_second: requests as f64 / used.as_secs_f64().max(1e-9) }
}
