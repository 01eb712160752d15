//! The latency monitor: what takes longer than its threshold is remembered.

use crate::harness::Server;

#[test]
fn slow_commands_are_remembered_until_reset() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    assert!(client.run("LATENCY DOCTOR").contains("disabled"));
    assert_eq!(client.run("DEBUG SLEEP 0.02"), "+OK\r\n");
    assert_eq!(client.run("LATENCY LATEST"), "*0\r\n");
    client.run("CONFIG SET latency-monitor-threshold 15");
    assert_eq!(client.run("DEBUG SLEEP 0.02"), "+OK\r\n");
    let latest = client.run("LATENCY LATEST");
    assert!(latest.starts_with("*1\r\n*4\r\n$7\r\ncommand\r\n:"), "{latest}");
    assert!(client.run("LATENCY HISTORY command").starts_with("*1\r\n*2\r\n:"));
    assert_eq!(client.run("LATENCY HISTORY fork"), "*0\r\n");
    assert_eq!(client.run("LATENCY GRAPH fork"), "-ERR No samples available for event 'fork'\r\n");
    assert!(client.run("LATENCY GRAPH command").contains("command - high 2"));
    assert!(client.run("LATENCY DOCTOR").contains("1. command: 1 latency spikes (average 2"));
    assert_eq!(client.run("LATENCY RESET fork expire-cycle"), ":0\r\n");
    assert_eq!(client.run("LATENCY RESET Command"), ":1\r\n");
    assert_eq!(client.run("LATENCY LATEST"), "*0\r\n");
    assert!(!client.run("LATENCY DOCTOR").contains("disabled"));
}

#[test]
fn histograms_of_containers_show_their_subcommands() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("CLIENT ID");
    client.run("CONFIG SET latency-tracking no");
    client.run("CLIENT GETNAME");
    let histogram = client.run("LATENCY HISTOGRAM client nothing config|set");
    assert!(histogram.starts_with("*2\r\n$9\r\nclient|id\r\n*4\r\n$5\r\ncalls\r\n:1\r\n"), "{histogram}");
}
