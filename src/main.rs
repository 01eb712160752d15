//! The `anteroom` command: arguments, configuration, log, run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anteroom::acl::Acl;
use anteroom::commands::acl::load_users;
use anteroom::config::Config;
use anteroom::config::arguments::{Arguments, Command, JournalWork, Serve, Sql};
use anteroom::tiers::database::postgres::triggers::triggers;
use anteroom::tiers::database::rules::Rules;
use anteroom::tiers::database::{encoding, journal};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Check { config }) => return check(config),
        Some(Command::Sql { what: Sql::Triggers { config } }) => return print_triggers(config),
        Some(Command::Journal { what: JournalWork::Inspect { dir } }) => return inspect(&dir),
        Some(Command::Journal { what: JournalWork::Repair { dir } }) => return repair(&dir),
        None => {}
    }
    let config = match Config::load(&arguments.serve) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    start_log(&config);
    match anteroom::server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(file: PathBuf) -> ExitCode {
    let config = match Config::load(&Serve { config: Some(file), ..Serve::default() }) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    if let Err(error) = load_users(&Acl::default(), &config.settings) {
        return fail(&error);
    }
    match config.database.as_ref().map(Rules::compile) {
        Some(Err(error)) => fail(&error),
        _ => ExitCode::SUCCESS,
    }
}

fn print_triggers(file: PathBuf) -> ExitCode {
    let config = match Config::load(&Serve { config: Some(file), ..Serve::default() }) {
        Ok(config) => config,
        Err(error) => return fail(&error),
    };
    let Some(section) = &config.database else {
        eprintln!("anteroom: the file has no section [database]");
        return ExitCode::FAILURE;
    };
    match Rules::compile(section) {
        Ok(rules) => {
            print!("{}", triggers(&rules));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn inspect(directory: &Path) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let found = journal::inspect(directory, &mut out, &mut |_, payload| Some(encoding::describe(payload)));
    match found {
        Ok(found) => {
            let journal::Contents { segments, records, unfinished, unreadable } = found;
            println!(
                "{segments} segments, {records} records, {unfinished} not done, {unreadable} unreadable places"
            );
            if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) }
        }
        Err(error) => fail(&error),
    }
}

fn repair(directory: &Path) -> ExitCode {
    if !directory.is_dir() {
        eprintln!("anteroom: {} is no directory", directory.display());
        return ExitCode::FAILURE;
    }
    let options = journal::Options { repair: true, ..journal::Options::default() };
    match journal::Journal::open(directory, options, |_, _| {}) {
        Ok((journal, report)) => {
            println!("{} records are there to replay", report.records);
            if !report.damage.is_empty() {
                println!("damaged: {}", report.damage_text());
            }
            match journal.close() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("anteroom: {error}");
    ExitCode::FAILURE
}

fn start_log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log_level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_json {
        log.json().init();
    } else {
        log.with_target(false).init();
    }
}
