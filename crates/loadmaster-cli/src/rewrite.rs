//! llama-server's short spellings as clap takes them.
//!
//! llama-server writes `-ngl 99`, `-ts 3,1`, `-t -1` and a bare `-fa`; clap reads a single dash as a bundle of one-letter
//! options. So the arguments are rewritten to the long spelling before clap sees them: `--n-gpu-layers=99`.

use crate::args::CompanionArgs;
use crate::flags::{Form, Takes, forms};
use clap::{ArgAction, Command};
use std::ffi::{OsStr, OsString};

/// The arguments with every spelling of the flag table replaced by its canonical long form, value attached.
///
/// `command` is the root of the parser: it tells which other options take a value, so that a value is never taken for a
/// flag (`--prompt -c`). What follows `--` is left alone, and so is everything when no command is named that takes pins.
pub fn rewrite(arguments: impl IntoIterator<Item = OsString>, command: &Command) -> Vec<OsString> {
    let forms = forms();
    let mut arguments = arguments.into_iter().peekable();
    let mut out: Vec<OsString> = arguments.next().into_iter().collect();
    let mut current: Option<&Command> = None;
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            out.push(argument);
            continue;
        };
        if text == "--" {
            out.push(argument);
            break;
        }
        if current.is_none() && !text.starts_with('-') {
            current = command.find_subcommand(text);
            out.push(argument);
            continue;
        }
        let pins = current.is_some_and(|command| takes_pins(command, &forms));
        if let Some((form, attached)) = pins.then(|| spelt(text, &forms)).flatten() {
            let value = attached.map(OsString::from).or_else(|| {
                let wanted = match form.takes {
                    Takes::Fixed(_) => false,
                    Takes::Value => true,
                    Takes::Maybe(words, _) => arguments.peek().and_then(|next| next.to_str()).is_some_and(|next| words.contains(&next)),
                };
                wanted.then(|| arguments.next()).flatten()
            });
            out.push(join(form.long, value.as_deref()));
            continue;
        }
        let long = beside(text, current);
        let text = long.as_deref().unwrap_or(text);
        let takes_next = text.starts_with('-') && option_takes_next(text, command, current);
        out.push(long.as_ref().map_or_else(|| argument.clone(), OsString::from));
        if takes_next {
            out.extend(arguments.next());
        }
    }
    out.extend(arguments);
    out
}

/// True for a command that takes the flags of the table.
fn takes_pins(command: &Command, forms: &[Form]) -> bool {
    forms.first().is_some_and(|form| command.get_arguments().any(|arg| arg.get_long() == Some(form.name())))
}

/// The form that is spelt so, and the value attached with `=`.
fn spelt<'a, 't>(text: &'t str, forms: &'a [Form]) -> Option<(&'a Form, Option<&'t str>)> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    forms.iter().find(|form| form.spellings.contains(&name)).map(|form| (form, value))
}

/// The long spelling of an option of what is loaded beside a model, where the command has it.
fn beside(text: &str, current: Option<&Command>) -> Option<String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let (_, long) = CompanionArgs::SHORT.iter().find(|(short, _)| *short == name)?;
    let known = current?.get_arguments().any(|arg| arg.get_long() == long.strip_prefix("--"));
    known.then(|| value.map_or_else(|| (*long).to_owned(), |value| format!("{long}={value}")))
}

fn join(long: &str, value: Option<&OsStr>) -> OsString {
    let mut joined = OsString::from(long);
    if let Some(value) = value {
        joined.push("=");
        joined.push(value);
    }
    joined
}

/// Whether the option `text`, which is not in the flag table, takes the next argument as its value.
fn option_takes_next(text: &str, root: &Command, current: Option<&Command>) -> bool {
    if text.contains('=') {
        return false;
    }
    let mut known = root.get_arguments().chain(current.into_iter().flat_map(Command::get_arguments));
    known.any(|arg| {
        let long = text
            .strip_prefix("--")
            .is_some_and(|name| arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name)));
        let short = arg.get_short().is_some_and(|letter| text.strip_prefix('-').is_some_and(|rest| rest.chars().eq([letter])));
        (long || short) && matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(line: &str) -> String {
        let command = crate::args::command();
        let arguments = std::iter::once("loadmaster").chain(line.split_whitespace()).map(OsString::from);
        let out = rewrite(arguments, &command);
        out.iter().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn short_spellings_become_long_ones_with_their_value() {
        for (typed, seen) in [
            ("plan m.gguf -ngl 99 -c 8192", "plan m.gguf --n-gpu-layers=99 --ctx-size=8192"),
            ("plan m.gguf -ts 3,1 -np 2 -t -1", "plan m.gguf --tensor-split=3,1 --parallel=2 --threads=-1"),
            ("memory m.gguf --gpu-layers all", "memory m.gguf --n-gpu-layers=all"),
            ("memory m.gguf -ot blk\\..*=CPU", "memory m.gguf --override-tensor=blk\\..*=CPU"),
            ("memory m.gguf -ngl=5", "memory m.gguf --n-gpu-layers=5"),
            ("memory m.gguf -md -c -ngld 5 -c 9", "memory m.gguf --model-draft -c --n-gpu-layers-draft 5 --ctx-size=9"),
            ("memory m.gguf -ctkd=q8_0", "memory m.gguf --cache-type-k-draft=q8_0"),
            ("detect -md x", "detect -md x"),
        ] {
            assert_eq!(rewritten(typed), seen);
        }
    }

    #[test]
    fn flash_attention_takes_a_word_only_if_one_follows() {
        assert_eq!(rewritten("plan -fa m.gguf"), "plan --flash-attn m.gguf");
        assert_eq!(rewritten("plan -fa off m.gguf"), "plan --flash-attn=off m.gguf");
        assert_eq!(rewritten("plan --flash-attn on m.gguf"), "plan --flash-attn=on m.gguf");
        assert_eq!(rewritten("plan m.gguf -fa"), "plan m.gguf --flash-attn");
    }

    #[test]
    fn switches_take_nothing() {
        assert_eq!(rewritten("plan -nkvo m.gguf -cmoe"), "plan --no-kv-offload m.gguf --cpu-moe");
        assert_eq!(rewritten("plan -no-kvu -kvu -nr m.gguf"), "plan --no-kv-unified --kv-unified --no-repack m.gguf");
    }

    #[test]
    fn values_of_other_options_and_what_follows_two_dashes_stay() {
        assert_eq!(rewritten("run m.gguf --prompt -c -c 5"), "run m.gguf --prompt -c --ctx-size=5");
        assert_eq!(rewritten("run m.gguf -p -ngl -n 5"), "run m.gguf -p -ngl -n 5");
        assert_eq!(rewritten("serve m.gguf -- -c 5"), "serve m.gguf -- -c 5");
        assert_eq!(rewritten("--machine plan plan -c 5"), "--machine plan plan --ctx-size=5");
    }

    #[test]
    fn commands_without_pins_are_left_alone() {
        assert_eq!(rewritten("detect -c 5"), "detect -c 5");
        assert_eq!(rewritten("-v --json detect"), "-v --json detect");
    }

    #[test]
    fn a_flag_at_the_end_is_left_for_the_parser_to_refuse() {
        assert_eq!(rewritten("plan m.gguf -c"), "plan m.gguf --ctx-size");
    }
}
