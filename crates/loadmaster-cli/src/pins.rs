//! The settings that a person has fixed, out of the command line.

use crate::flags::{Form, Takes, forms};
use clap::builder::{StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use loadmaster::planner::emit::flags::{Flag, ValueKind};
use spec::settings::Pins;

/// Heading of the flags in help texts.
const HEADING: &str = "Settings to keep fixed, as llama-server spells them";

/// The flags of the table as arguments of a command.
#[derive(Clone, Debug, Default)]
pub struct PinArgs {
    /// What was asked for.
    pub pins: Pins,
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
            let action = if form.row.kind == ValueKind::Overrides { ArgAction::Append } else { ArgAction::Set };
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
    StringValueParser::new().try_map(move |text| row.read(&text, &mut Pins::default()).map(|()| text))
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
        _ => form.row.help.to_owned(),
    };
    if short.is_empty() { text } else { format!("[{}] {text}", short.join(", ")) }
}
