//! Processes that tests start, end and look for.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The subcommand of the copy of a test program that starts an engine, prints its process id, and waits to be killed.
pub const PARENT: &str = "start-and-wait";

/// Kills a copy of this program that has started an engine, and sees that the engine ends too.
pub fn engine_ends_with_its_parent(argument: Option<&Path>) {
    if !cfg!(target_os = "linux") {
        return println!("  SKIPPED: only Linux kills children of a killed parent");
    }
    let mut parent = Command::new(std::env::current_exe().expect("this program"));
    let mut parent = parent.arg(PARENT).args(argument).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(parent.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
    let engine: u32 = line.trim().parse().expect("a process id");
    assert!(is_alive(engine));
    parent.kill().expect("SIGKILL");
    parent.wait().expect("its end");
    let end = Instant::now() + Duration::from_secs(10);
    while is_alive(engine) {
        assert!(Instant::now() < end, "the engine outlives its parent");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal: `-KILL`, `-STOP`, ...
pub fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").arg(name).arg(pid.to_string()).status().expect("kill").success());
}

/// True while a process exists that is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
