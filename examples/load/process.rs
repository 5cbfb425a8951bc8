//! What a process costs, as Linux's /proc tells.

use std::fs;
use std::ops::Sub;

use crate::Outcome;

/// Counters of a process and all its threads.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Time on a CPU, in nanoseconds: the scheduler's own count, not the clock ticks of `stat`.
    pub cpu_ns: u64,
    /// Times that a thread gave up its CPU to wait.
    pub waits: u64,
    /// Calls of read and write and their kin. Sockets' recv and send are not among them.
    pub reads: u64,
    /// See `reads`.
    pub writes: u64,
    /// Bytes that were sent towards a disk.
    pub written: u64,
}

impl Usage {
    /// Reads the counters of `pid`; all zero if there is none to look at.
    pub fn of(pid: Option<u32>) -> Outcome<Usage> {
        let mut usage = Usage::default();
        let Some(pid) = pid else { return Ok(usage) };
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = task?.path();
            // A thread may end between the two looks.
            let schedstat = fs::read_to_string(task.join("schedstat")).unwrap_or_default();
            usage.cpu_ns += schedstat.split_whitespace().next().map_or(0, number);
            let status = fs::read_to_string(task.join("status")).unwrap_or_default();
            usage.waits += field(&status, "voluntary_ctxt_switches:");
        }
        let io = fs::read_to_string(format!("/proc/{pid}/io"))?;
        usage.reads = field(&io, "syscr:");
        usage.writes = field(&io, "syscw:");
        usage.written = field(&io, "write_bytes:");
        Ok(usage)
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            waits: self.waits.saturating_sub(before.waits),
            reads: self.reads.saturating_sub(before.reads),
            writes: self.writes.saturating_sub(before.writes),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// What a process holds, in KiB.
#[derive(Clone, Copy)]
pub struct Memory {
    /// Resident, shared pages in full.
    pub rss: u64,
    /// Resident, shared pages in proportion.
    pub pss: u64,
    /// Its alone, and written to.
    pub private_dirty: u64,
}

impl Memory {
    /// Reads what `pid` holds now.
    pub fn of(pid: u32) -> Outcome<Memory> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let kib = |name| field(&rollup, name);
        Ok(Memory { rss: kib("Rss:"), pss: kib("Pss:"), private_dirty: kib("Private_Dirty:") })
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().map_or(0, number)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
