//! `hardware`: the profiles of kinds of machine.

use super::{Shared, machine_name};
use crate::args::{HardwareArgs, HardwareCommand};
use crate::exit::{Exit, Failure, Outcome};
use crate::view::{HardwareListView, HardwareMatchView, HardwareShowView};
use loadmaster::planner::plan::UseCase;
use loadmaster::profiles::{self, archetype, match_machine, nearest, profile, recommend};

/// Lists, shows or matches.
pub fn hardware(shared: &Shared, args: &HardwareArgs) -> Outcome {
    match &args.command {
        HardwareCommand::List { family } => {
            let wanted = |profile: &&profiles::Profile| family.is_empty() || family.contains(&profile.archetype.family);
            shared.output.show(&HardwareListView::new(profiles::profiles().iter().filter(wanted)))
        }
        HardwareCommand::Show { id, use_case } => show(shared, id, *use_case),
        HardwareCommand::Match => matching(shared),
    }
}

fn show(shared: &Shared, id: &str, use_case: UseCase) -> Outcome {
    let (Some(archetype), Some(stored)) = (archetype(id), profile(id)) else {
        let near = nearest(id);
        let hint = if near.is_empty() {
            "`loadmaster hardware list` names all of them".to_owned()
        } else {
            format!("the nearest are {}; `loadmaster hardware list` names all of them", near.join(", "))
        };
        return Err(Failure::new(Exit::Usage, format!("no profile of this id: {id:?}")).hint(hint));
    };
    let machine = archetype.machine().map_err(|error| Failure::new(Exit::Usage, error))?;
    let entries = if use_case == UseCase::General { stored.entries.clone() } else { recommend(&machine, use_case) };
    shared.output.show(&HardwareShowView::new(archetype, machine_name(&machine), use_case, &entries))
}

fn matching(shared: &Shared) -> Outcome {
    let machine = shared.machine()?;
    let found = match_machine(&machine).and_then(|matching| Some((profile(&matching.chosen.archetype.id)?, matching)));
    let (profile, matching) = found.ok_or_else(|| Failure::new(Exit::File, "this build has no hardware profiles"))?;
    let too_large = matching.too_large(&machine);
    shared.output.show(&HardwareMatchView::new(machine_name(&machine), &matching, profile, &too_large))
}
