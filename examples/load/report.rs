//! Lines of a name and a value.

use crate::traffic::Tally;

/// What a run gave, and what it cost the server for each `what`.
pub fn print_tally(tally: &Tally, what: &str) {
    let (count, usage) = (tally.deliveries, &tally.usage);
    line("count", count);
    line("seconds", tally.seconds);
    line("per_second", count as f64 / tally.seconds);
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        line(&format!("latency_us_{name}"), tally.latencies.quantile(share));
    }
    if usage.cpu_ns == 0 {
        return;
    }
    line(&format!("cpu_us_per_{what}"), per(usage.cpu_ns as f64 / 1000.0, count));
    line("cpu_share", usage.cpu_ns as f64 / 1e9 / tally.seconds);
    line(&format!("waits_per_{what}"), per(usage.waits as f64, count));
    line(&format!("reads_per_{what}"), per(usage.reads as f64, count));
    line(&format!("writes_per_{what}"), per(usage.writes as f64, count));
    line(&format!("written_bytes_per_{what}"), per(usage.written as f64, count));
}

/// `total` for each of `count`.
pub fn per(total: f64, count: u64) -> f64 {
    total / count.max(1) as f64
}

/// Prints one.
pub fn line(name: &str, value: impl Into<Value>) {
    match value.into() {
        Value::Count(count) => println!("{name} {count}"),
        Value::Measure(measure) => println!("{name} {measure:.3}"),
    }
}

/// What stands behind a name.
pub enum Value {
    Count(u64),
    Measure(f64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Value {
        Value::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Value {
        Value::Count(count as u64)
    }
}

impl From<f64> for Value {
    fn from(measure: f64) -> Value {
        Value::Measure(measure)
    }
}
