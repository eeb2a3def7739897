//! Short questions to a program: run it, keep what it says, never wait longer than a deadline.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// More than any help text; what comes after it is read and dropped, so that the program can go on.
const MAX_OUTPUT: u64 = 4 << 20;

/// What a program said, standard output first.
#[derive(Debug)]
pub(crate) struct Said {
    pub status: ExitStatus,
    pub text: String,
}

/// Why a program could not be asked.
#[derive(Debug)]
pub(crate) enum Unasked {
    /// It did not start.
    Start(std::io::Error),
    /// It had not ended at the deadline, and was killed.
    Deadline,
}

/// Runs `program` with `args` and no input.
pub(crate) fn ask(program: &Path, args: &[&str], deadline: Duration) -> Result<Said, Unasked> {
    let end = Instant::now() + deadline;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // One of them with a wrong value makes the engine refuse even to tell its version.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(super::ambient::PREFIX)) {
        command.env_remove(name);
    }
    own_group(&mut command);
    let mut child = loop {
        match command.spawn() {
            Ok(child) => break child,
            // Somebody is still writing it: an installation, or a fork that has not yet let go of the file.
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Unasked::Start(error)),
        }
    };

    let (send, receive) = mpsc::channel();
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
    ];
    for (index, stream) in streams.into_iter().enumerate() {
        let send = send.clone();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                // A stream that breaks ends; what came before it counts.
                let _ = stream.by_ref().take(MAX_OUTPUT).read_to_end(&mut bytes);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
            }
            let _ = send.send((index, bytes));
        });
    }
    drop(send);

    let mut texts = [Vec::new(), Vec::new()];
    for _ in 0..2 {
        match receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((index, bytes)) => {
                if let Some(slot) = texts.get_mut(index) {
                    *slot = bytes;
                }
            }
            Err(_) => {
                kill_group(&mut child);
                return Err(Unasked::Deadline);
            }
        }
    }
    // Both streams have ended, so it is about to exit, or has closed them and lingers.
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let text = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
                return Ok(Said { status, text });
            }
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) => {
                kill_group(&mut child);
                return Err(Unasked::Deadline);
            }
            Err(error) => return Err(Unasked::Start(error)),
        }
    }
}

/// Puts a child into a process group of its own, so that it and what it starts can be signalled together, and so that
/// Ctrl-C on the terminal reaches it only through us.
pub(crate) fn own_group(command: &mut Command) {
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
    }
    #[cfg(not(unix))]
    let _ = command;
}

/// Kills a child of [`own_group`] with all that it started, and collects it.
pub(crate) fn kill_group(child: &mut Child) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // The group is gone if everything in it has ended, which is what we want.
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// How a process ended, for people: `exit code 1`, `killed by SIGABRT`.
pub(crate) fn describe_exit(status: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = status.signal() {
            return format!("killed by {}", crate::launch::signal_name(signal));
        }
    }
    match status.code() {
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, deadline: Duration) -> Result<Said, Unasked> {
        ask(Path::new("/bin/sh"), &["-c", script], deadline)
    }

    #[test]
    fn both_streams_and_the_status_come_back() {
        let said = sh("echo out; echo err >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((said.text.as_str(), said.status.code()), ("out\n\nerr\n", Some(3)));
    }

    #[test]
    fn a_program_that_hangs_or_lingers_is_killed_with_its_children() {
        for script in ["sleep 100; echo never", "exec >&- 2>&-; sleep 100", "sleep 100 & echo started"] {
            assert!(matches!(sh(script, Duration::from_millis(200)), Err(Unasked::Deadline)), "{script}");
        }
    }

    #[test]
    fn exits_have_names() {
        let said = sh("kill -ABRT $$", Duration::from_secs(10)).unwrap();
        assert_eq!(describe_exit(said.status), "killed by SIGABRT");
    }
}
