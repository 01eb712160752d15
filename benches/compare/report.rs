//! Medians and the printed tables.

/// The middle value; the mean of the middle two for an even number.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

pub fn throughput_header(subject: &str, baseline: &str) {
    println!(
        "A = {subject}, B = {baseline}; op/cpu-s = operations per CPU-second of the server; thousands\n"
    );
    println!(
        "{:<20} {:>8} {:>8} {:>6} {:>11} {:>11} {:>6} {:>9}  command",
        "case", "rps A", "rps B", "A/B", "op/cpu-s A", "op/cpu-s B", "A/B", "cores A/B"
    );
}

/// One line; `figures` are (requests a second, operations per CPU-second) of subject and baseline.
pub fn throughput_line(label: &str, figures: [(f64, f64); 2], command: &str) {
    let [(rps_a, cpu_a), (rps_b, cpu_b)] = figures;
    let busy = format!("{:.2}/{:.2}", rps_a / cpu_a, rps_b / cpu_b);
    println!(
        "{label:<20} {:>8.1} {:>8.1} {:>6.2} {:>11.1} {:>11.1} {:>6.2} {busy:>9}  {command}",
        rps_a / 1e3,
        rps_b / 1e3,
        rps_a / rps_b,
        cpu_a / 1e3,
        cpu_b / 1e3,
        cpu_a / cpu_b,
    );
}

pub fn memory_header(subject: &str, baseline: &str) {
    println!("\nresident bytes per key; A = {subject}, B = {baseline}\n");
    println!("{:<20} {:>8} {:>8} {:>6}  what is loaded", "case", "bytes A", "bytes B", "A/B");
}

pub fn memory_line(label: &str, [a, b]: [f64; 2], what: &str) {
    println!("{label:<20} {a:>8.1} {b:>8.1} {:>6.2}  {what}", a / b);
}

pub fn hits_header(columns: &[String]) {
    println!("\nhits in % of a cache-aside client under the same maxmemory (and keys held at the end)\n");
    print!("{:<20}", "case");
    columns.iter().for_each(|column| print!(" {column:>30}"));
    println!();
}

/// One line: for each column the percentage of hits and the number of keys held.
pub fn hits_line(label: &str, cells: &[(f64, usize)]) {
    print!("{label:<20}");
    cells.iter().for_each(|(percent, keys)| print!(" {:>30}", format!("{percent:.2} ({keys})")));
    println!();
}
