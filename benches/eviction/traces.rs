//! The synthetic traces. Keys are numbers below three times the number of keys.

use fastrand::Rng;

/// What a trace looks like.
#[derive(Clone, Copy)]
pub enum Trace {
    /// Independent draws from a Zipf distribution with this exponent, in tenths.
    Zipf(u32),
    /// Zipf 1.0, and in between scans: a fifth of all requests goes once through keys that are seldom seen again.
    Scan,
    /// Zipf 1.0, with all popularities dealt out anew eight times.
    Shift,
    /// Zipf 1.0, with another key becoming popular every twenty requests, for one that was.
    Drift,
}

impl Trace {
    pub const ALL: [Trace; 5] = [Trace::Zipf(7), Trace::Zipf(10), Trace::Scan, Trace::Shift, Trace::Drift];

    pub fn name(self) -> String {
        match self {
            Trace::Zipf(tenths) => format!("zipf-{:.1}", f64::from(tenths) / 10.0),
            Trace::Scan => "scan".into(),
            Trace::Shift => "shift".into(),
            Trace::Drift => "drift".into(),
        }
    }

    /// The keys requested, the same for the same arguments.
    pub fn generate(self, keys: usize, requests: usize) -> Vec<u32> {
        let mut random = Rng::with_seed(42);
        let alpha = if let Trace::Zipf(tenths) = self { f64::from(tenths) / 10.0 } else { 1.0 };
        let zipf = Zipf::new(keys, alpha);
        // By rank: which key it is.
        let mut order: Vec<u32> = (0..keys as u32).collect();
        random.shuffle(&mut order);
        let scan = keys / 20;
        (0..requests)
            .map(|n| {
                match self {
                    Trace::Scan if n % (5 * scan) >= 4 * scan => {
                        let scanned = n / (5 * scan) * scan + n % scan;
                        return (keys + scanned % (2 * keys)) as u32;
                    }
                    Trace::Shift if n > 0 && n % requests.div_ceil(8) == 0 => random.shuffle(&mut order),
                    Trace::Drift if n % 20 == 0 => order.swap(zipf.draw(&mut random), random.usize(..keys)),
                    _ => {}
                }
                order[zipf.draw(&mut random)]
            })
            .collect()
    }
}

/// Ranks 0 to n − 1, rank r with a probability in proportion to (r + 1)^−α.
struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, alpha: f64) -> Self {
        let mut sum = 0.0;
        let add = |rank| {
            sum += f64::powf(rank as f64, -alpha);
            sum
        };
        Zipf { cumulative: (1..=count).map(add).collect() }
    }

    fn draw(&self, random: &mut Rng) -> usize {
        let last = self.cumulative.len() - 1;
        let point = random.f64() * self.cumulative[last];
        self.cumulative.partition_point(|&sum| sum <= point).min(last)
    }
}
