//! The real program as a child process: started under bounds of the system, asked, measured, killed.

// None of the tests uses all of it.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::sockets::{PASSWORD, PATIENCE};

const PROGRAM: &str = env!("CARGO_BIN_EXE_whinchat");

/// A directory with a configuration, removed with it.
pub struct Place(pub PathBuf);

impl Place {
    /// The configuration is that of `localhost` on a plain and a TLS listener, registration open, with these lines of `[limits]`.
    pub fn new(limits: &str) -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("whinchat-process-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A killed process leaves what it has written whatever the disk does, and without waiting for one there are more commits
        // to be killed in.
        let memory = std::path::Path::new("/dev/shm");
        let path = if memory.is_dir() { memory.join(name) } else { std::env::temp_dir().join(name) };
        fs::create_dir_all(&path).expect("a temporary directory");
        let config = format!(
            "data = \"data\"\npassword_hash = \"scram\"\nscram_iterations = 4096\n[listen]\nc2s_plain = [\"127.0.0.1:0\"]\n\
             c2s_tls = [\"127.0.0.1:0\"]\n[[domain]]\nname = \"localhost\"\nregistration = \"open\"\n[limits]\n{limits}\n"
        );
        fs::write(path.join("whinchat.toml"), config).expect("a configuration");
        Place(path)
    }

    pub fn store(&self) -> PathBuf {
        self.0.join("data/whinchat.redb")
    }

    /// The program with these words, as a command to be changed and spawned; `bounds` are arguments of `ulimit`.
    fn command(&self, bounds: &str, words: &str) -> Command {
        let mut command = match bounds {
            "" => Command::new(PROGRAM),
            _ => {
                let mut shell = Command::new("sh");
                // The signal of a file that has become too big would end it; without it the write fails like that on a full disk.
                shell.args(["-c", &format!("trap '' XFSZ; ulimit {bounds} && exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.args(words.split_whitespace()).arg("--config").arg(self.0.join("whinchat.toml"));
        command.current_dir(&self.0).env_remove("JOURNAL_STREAM");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end and returns what it said, and whether it went well.
    pub fn run(&self, words: &str, input: &str) -> (bool, String) {
        let mut child = self.command("", words).spawn().expect("the program");
        // A command that reads nothing may have gone already.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("its output");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Makes an account with the password of all tests.
    pub fn add(&self, user: &str) {
        let (went_well, said) = self.run(&format!("user add {user} --password-stdin"), &format!("{PASSWORD}\n"));
        assert!(went_well, "{said}");
    }

    /// A number that `whinchat status` prints.
    pub fn status(&self, name: &str) -> u64 {
        let (went_well, said) = self.run("status", "");
        assert!(went_well, "{said}");
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {said}"))
    }

    /// Asks until a number is as expected.
    pub fn wait_for_status(&self, name: &str, is_expected: impl Fn(u64) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.status(name);
            if is_expected(value) {
                return;
            }
            assert!(Instant::now() < end, "{name} is {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server, killed with this value.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    /// Where it listens without TLS.
    pub plain: SocketAddr,
    /// Where it listens with TLS.
    pub tls: SocketAddr,
}

impl Process {
    /// Returns when it says that it serves.
    pub fn start(place: &Place) -> Process {
        Process::try_start(place, "").unwrap_or_else(|said| panic!("it ended: {said}"))
    }

    /// Starts it under bounds of the system (arguments of `ulimit`; "-c 0" for none); fails with what it said if it ends instead of serving.
    pub fn try_start(place: &Place, bounds: &str) -> Result<Process, String> {
        let mut child = place.command(bounds, "run").spawn().expect("the program");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Mutex::new(String::new()));
        let (serving_to, serving) = mpsc::channel();
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = kept.lock().expect("a log");
                log.push_str(&line);
                log.push('\n');
                if line.contains("serving ") {
                    let _ = serving_to.send(line);
                }
            }
        });
        let Ok(line) = serving.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let code = child.wait().expect("its end").code();
            let said = log.lock().expect("a log").clone();
            return Err(format!("{said}(code {code:?})"));
        };
        let address = |kind: &str| {
            let before = line.split_once(kind).expect(kind).0;
            before.rsplit(' ').next().and_then(|address| address.parse().ok()).expect("an address")
        };
        Ok(Process { child, log, plain: address(" (without TLS)"), tls: address(" (TLS)") })
    }

    /// Starts it and kills it after this time, wherever it has come to.
    pub fn kill_early(place: &Place, time: Duration) {
        let mut child =
            place.command("", "run").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        std::thread::sleep(time);
        child.kill().expect("killed");
        child.wait().expect("its end");
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("a log").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid())).expect("a running process")
    }

    /// Bytes of memory that are its own, without the pages of its program.
    pub fn anonymous(&self) -> u64 {
        self.status_field("RssAnon:")
    }

    /// Bytes of memory that it holds, and the most that it has held so far.
    pub fn resident(&self) -> (u64, u64) {
        (self.status_field("VmRSS:"), self.status_field("VmHWM:"))
    }

    fn status_field(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a name").1.split(' ').collect();
        let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
        // Fields 14 and 15 of proc(5), in hundredths of a second.
        Duration::from_millis((ticks(11) + ticks(12)) * 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Random numbers that can be had again.
pub struct Dice(u64);

impl Dice {
    /// From the environment's `WHINCHAT_SEED`, or the clock; says which.
    pub fn thrown() -> Dice {
        let given = std::env::var("WHINCHAT_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_nanos() as u64);
        let seed = given.unwrap_or_else(clock);
        println!("WHINCHAT_SEED={seed}");
        Dice::seeded(seed)
    }

    pub fn seeded(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}
