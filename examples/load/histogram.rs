//! Latencies in bounded space.

use std::time::Duration;

/// Buckets per doubling; the answer is at most 1/32 too high.
const STEPS_LOG2: u32 = 5;

/// Counts of latencies by size.
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { buckets: vec![0; (64 << STEPS_LOG2) as usize], count: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let nanos = (latency.as_nanos() as u64).max(1 << STEPS_LOG2);
        let shift = nanos.ilog2() - STEPS_LOG2;
        let bucket = ((shift << STEPS_LOG2) as u64 + (nanos >> shift)) as usize;
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// The latency below which this share of all lies, in microseconds.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let shift = (bucket >> STEPS_LOG2).saturating_sub(1);
                let steps = bucket - (shift << STEPS_LOG2);
                return ((steps as u64 + 1) << shift) as f64 / 1000.0;
            }
        }
        0.0
    }
}
