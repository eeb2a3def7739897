//! Ties a child's life to its parent's without a line of unsafe code.
//!
//! A child cannot be told between fork and exec to die with us unless unsafe code runs there. So the child is this very
//! program (hidden subcommand `supervise`): it asks the kernel for SIGKILL at its parent's death (`PR_SET_PDEATHSIG`),
//! which survives `execve`, and then becomes the engine. The process id stays the same.
//!
//! The kernel watches the parent's *thread*: start children from a thread that lives as long as they do.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Command;

/// The hidden subcommand of the program that calls [`become_engine`].
pub const SUBCOMMAND: &str = "supervise";

/// Exit code of a supervisor that could not become the engine, as a shell's for a command that cannot be run.
pub const CANNOT_START: i32 = 126;

/// Begins the last line that such a supervisor writes on standard error.
pub const COMPLAINT: &str = "loadmaster supervise: ";

/// A command that starts `program` so that it dies with us. `supervisor` is the executable that has the subcommand;
/// without one, and where the kernel has no such promise, the program is started as it is and only an orderly end
/// takes it along.
pub(crate) fn command(supervisor: Option<&Path>, program: &OsStr, args: &[OsString]) -> Command {
    let mut command = match supervisor.filter(|_| cfg!(target_os = "linux")) {
        None => Command::new(program),
        Some(supervisor) => {
            let mut command = Command::new(supervisor);
            command.arg(SUBCOMMAND).arg(std::process::id().to_string()).arg("--").arg(program);
            command
        }
    };
    command.args(args);
    command
}

/// The supervisor's side: asks to be killed when the parent dies, and turns into the program. Returns only on failure.
/// `parent` is the process id of the parent as it named itself: one that has died meanwhile can signal no more.
pub fn become_engine(parent: u32, program: &OsStr, args: &[OsString]) -> io::Error {
    if let Err(error) = die_with_parent(Some(parent)) {
        return error;
    }
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt;
        Command::new(program).args(args).exec()
    }
    #[cfg(not(unix))]
    {
        let _ = (program, args);
        io::ErrorKind::Unsupported.into()
    }
}

/// Asks the kernel to kill this process when the thread that started it ends. An error where `parent` is not the parent:
/// it has died already. Does nothing outside Linux.
pub(crate) fn die_with_parent(parent: Option<u32>) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let is = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        let gone = parent.is_some_and(|parent| is != i32::try_from(parent).ok());
        if gone {
            return Err(io::Error::other("the parent has died"));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    Ok(())
}
