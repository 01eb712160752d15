//! The `anteroom` command: arguments, configuration, log, run.

use std::process::ExitCode;

use anteroom::config::Config;
use anteroom::config::arguments::{Arguments, Command, Serve};
use clap::Parser;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Check { config }) = arguments.command {
        let flags = Serve { config: Some(config), ..Serve::default() };
        return match Config::load(&flags) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        };
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
