//! The settings that a person has fixed, out of the command line.

use crate::devices::{DeclaredDevice, devices_of, parts};
use crate::exit::{Exit, Failure};
use crate::flags::{Form, Takes, forms};
use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use loadmaster::footprint::Device;
use loadmaster::planner::emit::flags::{Flag, ValueKind};
use spec::settings::Pins;

/// The setting of which devices can be declared, too.
const DEVICES: &str = "devices";
const DECLARED: &str = ". `memory`, `plan` and `verify` also take devices that are not there, each BACKEND:SIZE: `CUDA:24GiB`, \
    `ROCm:16GiB`, `Vulkan:8GiB`, `Metal:64GiB`, `SYCL:16GiB`, `RPC[CUDA]:24GiB`";

/// Heading of the flags in help texts.
const HEADING: &str = "Settings to keep fixed, as llama-server spells them";

/// The flags of the table as arguments of a command.
#[derive(Clone, Debug, Default)]
pub struct PinArgs {
    /// What was asked for.
    pub pins: Pins,
    declared: Vec<DeclaredDevice>,
}

impl PinArgs {
    /// Devices that are declared instead of those of the machine; `None` where none is.
    pub fn devices(&self) -> Option<Vec<Device>> {
        (!self.declared.is_empty()).then(|| devices_of(&self.declared))
    }
    /// The pins of a command that goes by the devices of the machine.
    ///
    /// # Errors
    /// Devices are declared.
    pub fn here(&self, command: &str) -> Result<&Pins, Failure> {
        if self.declared.is_empty() {
            return Ok(&self.pins);
        }
        let message = format!("{command} goes by the devices of the machine: --device takes their names, not sizes");
        Err(Failure::new(Exit::Usage, message).hint("memory, plan and verify take devices that are not there"))
    }
}

impl Args for PinArgs {
    fn augment_args(command: Command) -> Command {
        let forms = forms();
        forms.iter().fold(command, |command, form| command.arg(argument(form, &forms)))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for PinArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for form in forms() {
            if matches.value_source(form.name()) != Some(clap::parser::ValueSource::CommandLine) {
                continue;
            }
            let values: Vec<String> = match form.takes {
                Takes::Fixed(value) => vec![value.to_owned()],
                _ => matches.get_many::<String>(form.name()).unwrap_or_default().cloned().collect(),
            };
            for value in values {
                let named = if form.row.setting == DEVICES {
                    let (declared, named) = parts(&value).unwrap_or_default();
                    self.declared.extend(declared);
                    named
                } else {
                    Some(value)
                };
                let Some(value) = named else { continue };
                let read = form.row.read(&value, &mut self.pins);
                read.map_err(|error| clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{}: {error}\n", form.long)))?;
            }
        }
        Ok(())
    }
}

/// One form as clap takes it.
fn argument(form: &Form, all: &[Form]) -> Arg {
    let mut argument = Arg::new(form.name()).long(form.name()).help(help(form)).help_heading(HEADING);
    for spelling in form.spellings.iter().filter(|spelling| **spelling != form.long) {
        if let Some(long) = spelling.strip_prefix("--") {
            argument = argument.visible_alias(long);
        } else if let Some(letter) = single_letter(spelling) {
            argument = argument.short(letter);
        }
    }
    // Of several flags for one setting the last one counts, as in llama-server.
    let same_setting = all.iter().filter(|other| other.row.setting == form.row.setting && other.long != form.long);
    argument = argument.overrides_with_all(same_setting.map(Form::name));
    match form.takes {
        Takes::Fixed(_) => argument.action(ArgAction::SetTrue),
        Takes::Value => {
            let repeats = matches!(form.row.kind, ValueKind::Overrides | ValueKind::Mask) || form.row.setting == DEVICES;
            let action = if repeats { ArgAction::Append } else { ArgAction::Set };
            argument.action(action).value_name(form.row.metavar).allow_hyphen_values(true).value_parser(checked(form.row))
        }
        Takes::Maybe(_, alone) => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value(alone)
            .value_name(form.row.metavar)
            .value_parser(checked(form.row)),
    }
}

/// Refuses what the flag cannot take, so that clap's message names flag and value.
fn checked(row: &'static Flag) -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(move |text| {
        let named = if row.setting == DEVICES { parts(&text)?.1 } else { Some(text.clone()) };
        named.map_or(Ok(()), |named| row.read(&named, &mut Pins::default())).map(|()| text)
    })
}

fn single_letter(spelling: &str) -> Option<char> {
    let mut letters = spelling.strip_prefix('-')?.chars();
    letters.next().filter(|letter| *letter != '-' && letters.next().is_none())
}

/// The help with the short spellings that clap has no place for.
fn help(form: &Form) -> String {
    let short: Vec<_> = form.spellings.iter().copied().filter(|other| !other.starts_with("--") && single_letter(other).is_none()).collect();
    let text = match (form.takes, form.row.kind) {
        (Takes::Fixed("off"), ValueKind::Switch) => format!("do not: {}", form.row.help),
        (Takes::Fixed(value), kind) if kind != ValueKind::Switch => format!("the same as {} {value}", form.row.long()),
        _ if form.row.setting == DEVICES => format!("{}{DECLARED}", form.row.help),
        _ => form.row.help.to_owned(),
    };
    if short.is_empty() { text } else { format!("[{}] {text}", short.join(", ")) }
}
