//! Arguments of `hardware`.

use super::words;
use clap::{Args, Subcommand};
use loadmaster::planner::plan::UseCase;
use loadmaster::profiles::Family;

/// `hardware`
#[derive(Debug, Args)]
pub struct HardwareArgs {
    /// What to show
    #[command(subcommand)]
    pub command: HardwareCommand,
}

/// What to show of the profiles.
#[derive(Debug, Subcommand)]
pub enum HardwareCommand {
    /// List the kinds of machine that there are profiles of
    List {
        /// Only of this family; may be repeated
        #[arg(long, value_name = "FAMILY", value_parser = words(Family::ALL, Family::as_str))]
        family: Vec<Family>,
    },
    /// Show one profile: every size of model with its settings, memory and speed
    Show {
        /// Its id, as `hardware list` names it: `rtx-4090-24gb`
        id: String,
        /// What models are used for; what is not `general` is planned anew
        #[arg(long, value_name = "CASE", default_value_t, value_parser = words(UseCase::ALL, UseCase::as_str))]
        use_case: UseCase,
    },
    /// Find the profile that this machine, or that of --machine, is nearest to
    Match,
}
