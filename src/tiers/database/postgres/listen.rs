//! The listener: told by triggers of what others changed, on a connection of its own.
//!
//! Behind pgbouncer's transaction pooling `LISTEN` hears nothing; the listener needs a direct address then.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_postgres::AsyncMessage;

use super::connect::Connections;
use super::schema::Table;
use super::triggers::CHANNEL;
use crate::tiers::database::payload::unhex;
use crate::tiers::database::rules::{Rule, Rules, Target};
use crate::tiers::database::store::{Failure, Listener, Notification};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Changes are not told meanwhile, so it is short.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often the server is asked whether it is there, and how long it has to answer.
const HEARTBEAT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
struct Message {
    o: String,
    t: String,
    k: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Listens until it is dropped.
pub(super) async fn listen(
    connections: Connections,
    rules: Arc<Rules>,
    tables: Option<Arc<[Table]>>,
    listener: Listener,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut was_listening = false;
        let ended = once(&connections, &rules, tables.as_deref(), &listener, &mut was_listening).await;
        if was_listening {
            pause = FIRST_PAUSE;
            listener(Notification::Lost);
        }
        tracing::warn!("the database's notifications are lost: {ended}");
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Listens on one connection until it ends; tells why.
async fn once(
    connections: &Connections,
    rules: &Rules,
    tables: Option<&[Table]>,
    listener: &Listener,
    was_listening: &mut bool,
) -> Failure {
    let (client, mut connection) = match connections.alone().await {
        Ok(connected) => connected,
        Err(failure) => return failure,
    };
    let receive = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(message))) if message.channel() == CHANNEL => {
                    tell(message.payload(), connections.origin(), rules, tables, listener);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return super::classify::failure(&error),
                None => return Failure::Transient("the connection was closed".to_owned()),
            }
        }
    };
    let watch = async {
        let ask = |statement: String| {
            let client = &client;
            async move {
                match tokio::time::timeout(ANSWER, client.batch_execute(&statement)).await {
                    Ok(answer) => answer.map_err(|error| super::classify::failure(&error)),
                    Err(_) => Err(Failure::Transient("the server does not answer".to_owned())),
                }
            }
        };
        if let Err(failure) = ask(format!("LISTEN {CHANNEL}")).await {
            return failure;
        }
        *was_listening = true;
        listener(Notification::Listening);
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            if let Err(failure) = ask("SELECT 1".to_owned()).await {
                return failure;
            }
        }
    };
    tokio::select! {
        failure = receive => failure,
        failure = watch => failure,
    }
}

fn tell(payload: &str, own: &str, rules: &Rules, tables: Option<&[Table]>, listener: &Listener) {
    let Ok(message) = serde_json::from_str::<Message>(payload) else {
        tracing::warn!("a notification on {CHANNEL} is not of our triggers");
        return;
    };
    if message.o == own {
        return;
    }
    let group = |origin: &str| origin.split_once('/').map(|(group, _)| group.to_owned());
    if group(own).is_some() && group(&message.o) == group(own) {
        listener(Notification::Flushed { table: message.t });
        return;
    }
    let of_table = || rules.all().iter().enumerate().filter(|(_, rule)| rule.table() == message.t);
    let Some(key) = &message.k else {
        listener(Notification::TableChanged { table: message.t });
        return;
    };
    let mut is_known = false;
    for (index, rule) in of_table() {
        match key_of(rule, tables.and_then(|tables| tables.get(index)), key) {
            Key::Is(key) => {
                is_known = true;
                if rules.find(&key) == Some(index) {
                    listener(Notification::Changed { rule: index, key });
                }
            }
            // A row that no key can name is in no cache.
            Key::None => is_known = true,
            Key::Unreadable => {}
        }
    }
    if !is_known {
        listener(Notification::TableChanged { table: message.t });
    }
}

enum Key {
    Is(Box<[u8]>),
    None,
    Unreadable,
}

fn key_of(rule: &Rule, table: Option<&Table>, columns: &serde_json::Map<String, serde_json::Value>) -> Key {
    let text = |column: &str| columns.get(column).map(|value| value.as_str().unwrap_or_default());
    let hex = |text: &str| text.strip_prefix("\\x").and_then(unhex);
    match &rule.target {
        Target::Default => text("key").and_then(hex).map_or(Key::Unreadable, |key| Key::Is(key.into())),
        Target::Table { key, .. } => {
            let mut captures = Vec::new();
            for (index, column) in key.iter().enumerate() {
                let is_bytes = table.is_some_and(|table| table.key[index].is_bytes());
                let value = text(column);
                let bytes =
                    if is_bytes { value.and_then(hex) } else { value.map(|text| text.as_bytes().to_vec()) };
                let Some(bytes) = bytes else { return Key::Unreadable };
                captures.push(bytes);
            }
            let captures: Vec<&[u8]> = captures.iter().map(Vec::as_slice).collect();
            rule.pattern.key(&captures).map_or(Key::None, Key::Is)
        }
    }
}
