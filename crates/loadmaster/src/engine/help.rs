//! What `--help` says: every flag that a build accepts.
//!
//! Flags come and go between builds, so no list of ours is ever trusted over what the found binary prints.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One option with all of its spellings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flag {
    /// As they are typed, dashes included: `-fa`, `--flash-attn`. Negated ones (`--no-mmap`) are among them.
    pub spellings: Vec<String>,
    /// What the help prints in place of the value: `N`, `[on|off|auto]`; empty for a switch.
    pub value: String,
    /// The environment variable that sets it, e.g. `LLAMA_ARG_FLASH_ATTN`.
    pub env: Option<String>,
    /// The rest of its text, on one line.
    pub text: String,
}

/// The options of one binary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags(Vec<Flag>);

impl Flags {
    /// Reads a help text. An option begins within the first columns of a line; deeper lines continue its text.
    pub fn parse(help: &str) -> Self {
        let mut flags: Vec<Flag> = Vec::new();
        for line in help.lines() {
            let indent = line.len() - line.trim_start().len();
            if indent <= MAX_INDENT && line.trim_start().starts_with('-') {
                flags.extend(parse_line(line.trim_start()));
            } else if let (true, Some(flag)) = (indent > MAX_INDENT, flags.last_mut()) {
                continue_text(flag, line.trim());
            }
        }
        Self(flags)
    }

    /// True where the binary takes this spelling, dashes included.
    pub fn accepts(&self, spelling: &str) -> bool {
        self.get(spelling).is_some()
    }

    /// The option with this spelling, dashes included.
    pub fn get(&self, spelling: &str) -> Option<&Flag> {
        self.0.iter().find(|flag| flag.spellings.iter().any(|known| known == spelling))
    }

    /// The option that a key of a `config.ini` or an environment variable means: a spelling without its dashes, or the
    /// variable's name.
    pub fn by_key(&self, key: &str) -> Option<&Flag> {
        let matches = |spelling: &String| spelling.trim_start_matches('-') == key;
        self.0.iter().find(|flag| flag.env.as_deref() == Some(key) || flag.spellings.iter().any(matches))
    }

    /// Every spelling, in order of the alphabet.
    pub fn spellings(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(|flag| flag.spellings.iter().cloned()).collect()
    }

    /// Every option, in the order of the help text.
    pub fn iter(&self) -> impl Iterator<Item = &Flag> {
        self.0.iter()
    }

    /// True where no option was found: not a help text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// llama-server and llama-cli begin options in column 0, llama-bench in column 2; descriptions stand far to the right.
const MAX_INDENT: usize = 4;

/// `-fa,   --flash-attn [on|off|auto]       set Flash Attention use`: spellings, value, text. `None` for a ruler.
fn parse_line(line: &str) -> Option<Flag> {
    let mut flag = Flag::default();
    let mut rest = line;
    while rest.starts_with('-') {
        let end = rest.find(|c: char| c == ',' || c.is_whitespace()).unwrap_or(rest.len());
        let (spelling, after) = rest.split_at(end);
        if spelling.trim_start_matches('-').is_empty() {
            return None;
        }
        flag.spellings.push(spelling.to_owned());
        match after.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None => {
                rest = after;
                break;
            }
        }
    }
    // A value follows after one space, the text after two.
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let end = rest.find("  ").unwrap_or(rest.len());
    let (value, text) = rest.split_at(end);
    flag.value = value.trim().to_owned();
    continue_text(&mut flag, text.trim());
    Some(flag)
}

fn continue_text(flag: &mut Flag, text: &str) {
    if let Some(env) = text.strip_prefix("(env: ").and_then(|rest| rest.strip_suffix(')')) {
        flag.env = Some(env.to_owned());
    } else if !text.is_empty() {
        if !flag.text.is_empty() {
            flag.text.push(' ');
        }
        flag.text.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "\
----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
                                        (env: LLAMA_ARG_KV_OFFLOAD)
-lm,   --load-mode MODE                 model loading mode (default: auto)
                                        - auto: mmap, unless a device does not support it
                                        - none: no special loading mode
--control-vector-scaled FNAME:SCALE,...
                                        add a control vector
--control-vector-layer-range START END
                                        layer range
";

    #[test]
    fn every_spelling_value_and_variable_is_read() {
        let flags = Flags::parse(SERVER);
        for spelling in ["-h", "--usage", "-c", "--ctx-size", "-nkvo", "--no-kv-offload", "-lm", "--control-vector-scaled"] {
            assert!(flags.accepts(spelling), "{spelling}");
        }
        for none in ["---", "-----", "--ctx", "-", "--no-mmap", "ctx-size", "- auto:"] {
            assert!(!flags.accepts(none), "{none}");
        }
        let fa = flags.get("-fa").unwrap();
        assert_eq!((fa.value.as_str(), fa.env.as_deref()), ("[on|off|auto]", Some("LLAMA_ARG_FLASH_ATTN")));
        assert_eq!(flags.get("-nkvo").unwrap().value, "");
        assert_eq!(flags.get("--control-vector-layer-range").unwrap().value, "START END");
        assert!(flags.get("-lm").unwrap().text.contains("- none: no special loading mode"));
        assert_eq!(flags.by_key("LLAMA_ARG_CTX_SIZE"), flags.get("-c"));
        assert_eq!(flags.by_key("ctx-size"), flags.by_key("c"));
        assert_eq!(flags.by_key("n-ctx"), None);
    }

    #[test]
    fn the_benchmark_indents_its_options() {
        let flags = Flags::parse(
            "usage: llama-bench [options]\n\noptions:\n  -h, --help\n  -m, --model <filename>                    (default: none)\n",
        );
        assert_eq!(flags.get("--model").unwrap().value, "<filename>");
        assert!(flags.accepts("-h") && flags.accepts("--help"));
        assert!(Flags::parse("hello\nworld\n").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in "(?s).{0,400}") {
            let flags = Flags::parse(&text);
            proptest::prop_assert!(flags.spellings().iter().all(|spelling| spelling.starts_with('-')));
        }
    }
}
