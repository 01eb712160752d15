//! The layers: a file imports only from lower ranks or its own room.

use std::path::Path;

const RANKS: &[(&str, u8)] = &[
    ("types", 0),
    ("clock", 1),
    ("telemetry", 1),
    ("config", 1),
    ("protocol", 2),
    ("tiers", 3),
    ("ratelimit", 3),
    ("lua", 3),
    ("acl", 3),
    ("slow_log", 4),
    ("latency", 4),
    ("lazy_free", 4),
    ("growth", 4),
    ("pause", 4),
    ("scripts", 4),
    ("libraries", 5),
    ("clients", 4),
    ("snapshots", 6),
    ("instance", 7),
    ("commands", 8),
    ("engine", 9),
    ("admin", 10),
    ("server", 11),
];

fn rank(room: &str) -> u8 {
    RANKS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| panic!("no rank for {room}")).1
}

fn check(path: &Path, room: &str, faults: &mut Vec<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), room, faults);
        }
        return;
    }
    for line in std::fs::read_to_string(path).unwrap().lines() {
        for used in line.split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !used.is_empty() && used != room && rank(&used) >= rank(room) {
                faults.push(format!("{}: {}", path.display(), line.trim()));
            }
        }
    }
}

#[test]
fn imports_go_downwards() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for (room, _) in RANKS {
        let folder = source.join(room);
        let path = if folder.is_dir() { folder } else { source.join(format!("{room}.rs")) };
        check(&path, room, &mut faults);
    }
    assert!(faults.is_empty(), "imports from the same or a higher rank:\n{}", faults.join("\n"));
}
