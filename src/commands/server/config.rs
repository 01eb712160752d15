//! `CONFIG`.

use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, Scope, category};
use super::{ADMIN, shown};
use crate::config::{self, Id, SetError};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};

/// The subcommands.
pub(super) const CONFIG: &[CommandSpec] = &[
    CommandSpec::session("get", Group::Server, AtLeast(3), get)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .doc(
            "Returns the settings that match patterns.",
            "2.0.0",
            "O(N) in the number of settings",
            "parameter...",
        ),
    CommandSpec::session("set", Group::Server, AtLeast(4), set)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .scope(Scope::Each)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc(
            "Changes settings, all or none.",
            "2.0.0",
            "O(N) in the number of settings",
            "data(parameter value)...",
        ),
    CommandSpec::session("rewrite", Group::Server, Exactly(2), rewrite)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Writes changed settings into the configuration file.", "2.8.0", "O(1)", ""),
    CommandSpec::session("resetstat", Group::Server, Exactly(2), resetstat)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .scope(Scope::Each)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Counts from nothing again.", "2.0.0", "O(1)", ""),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "5.0.0",
        "O(1)",
        "",
    ),
];

fn get(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let patterns: Vec<&[u8]> = args.skip(2).iter().collect();
    let found = context.instance.settings.matching(&patterns);
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    Ok(())
}

fn set(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !args.len().is_multiple_of(2) {
        return Err(ReplyError::wrong_arity("config|set"));
    }
    let texts: Vec<String> = args.skip(2).iter().map(shown).collect();
    let pairs: Vec<(&str, &str)> =
        texts.chunks_exact(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
    let changed = context
        .instance
        .settings
        .set(&pairs)
        .map_err(|error: SetError| ReplyError::new(format!("ERR {error}")))?;
    if changed.contains(&Id::Requirepass) {
        context.instance.acl.set_default_password(&context.instance.settings.text(Id::Requirepass));
    }
    if changed.contains(&Id::MaxmemoryPolicy) {
        context.view.policy_changed();
    }
    reply.ok();
    Ok(())
}

fn rewrite(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(path) = &context.instance.config.file else {
        return Err(ReplyError::fixed("ERR The server is running without a config file"));
    };
    config::rewrite(path, &context.instance.settings).map_err(|error| {
        tracing::warn!(%error, "CONFIG REWRITE failed");
        ReplyError::new(format!("ERR Rewriting config file: {error}"))
    })?;
    reply.ok();
    Ok(())
}

fn resetstat(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.instance.telemetry.reset();
    context.instance.limits.reset_counts();
    context.instance.lazy_free.reset();
    context.view.reset_counters();
    reply.ok();
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "CONFIG",
        &[
            "GET <pattern>",
            "    Return the settings whose names match the glob-like <pattern>, with their values.",
            "SET <directive> <value>",
            "    Set <directive> to <value>; several pairs are set all or none.",
            "RESETSTAT",
            "    Count the statistics of the INFO command from nothing again.",
            "REWRITE",
            "    Write changed settings into the configuration file.",
        ],
    );
    Ok(())
}
