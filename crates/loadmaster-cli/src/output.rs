//! Where output goes: data to stdout, talk to stderr, both in the colours that were asked for.

use crate::args::{Color, Global};
use crate::exit::{Exit, Failure, Outcome};
use crate::render::{self, Text, styled};
use crate::view::View;
use std::io::{ErrorKind, IsTerminal, Write};

/// How output is written.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    quiet: bool,
    verbose: bool,
}

impl Output {
    /// As the options say. Sets the colours of the whole process.
    pub fn new(global: &Global) -> Self {
        match global.color {
            Color::Auto => anstream::ColorChoice::Auto,
            Color::Always => anstream::ColorChoice::Always,
            Color::Never => anstream::ColorChoice::Never,
        }
        .write_global();
        Self { json: global.json, quiet: global.quiet, verbose: global.verbose }
    }

    /// True where results are JSON.
    pub fn json(&self) -> bool {
        self.json
    }
    /// True where everything is wanted, the engine's log included.
    pub fn verbose(&self) -> bool {
        self.verbose
    }
    /// True where progress can be drawn on stderr.
    pub fn draws_progress(&self) -> bool {
        !self.quiet && std::io::stderr().is_terminal()
    }

    /// Shows a result on stdout.
    pub fn show(&self, view: &impl View) -> Outcome {
        if self.json { self.data(&json(view)?) } else { self.data(&self.text(view, std::io::stdout().is_terminal())) }
    }

    /// Tells a view on stderr, as talk; as text even with `--json`.
    pub fn tell(&self, view: &impl View) {
        if !self.quiet {
            to_stderr(&self.text(view, std::io::stderr().is_terminal()));
        }
    }

    /// Shows a view on stderr even where nothing but results is wanted: it says why there is none.
    pub fn insist(&self, view: &impl View) {
        to_stderr(&self.text(view, std::io::stderr().is_terminal()));
    }

    /// Writes data to stdout as it is. A reader that has gone away has what it wanted.
    pub fn data(&self, data: &str) -> Outcome {
        match write(&mut anstream::stdout().lock(), data.as_bytes()) {
            Ok(_) => Ok(Exit::Done),
            Err(error) => Err(Failure::output("the result", &error)),
        }
    }

    /// One line of talk on stderr.
    pub fn say(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            to_stderr(&format!("{text}\n"));
        }
    }

    /// Asks for a line of input.
    pub fn prompt(&self, text: &str) {
        to_stderr(text);
    }

    /// Something the user should know, although the command goes on.
    pub fn warn(&self, text: impl std::fmt::Display) {
        self.say(format_args!("{} {text}", styled(render::CAUTION, "warning:")));
    }

    fn text(&self, view: &impl View, terminal: bool) -> String {
        let mut text = Text::new(if terminal { terminal_width() } else { 110 }, self.verbose);
        view.text(&mut text);
        text.finish()
    }
}

/// Writes bytes to stdout as they are and at once; `false` where nobody reads any more.
pub fn stream(bytes: &[u8]) -> std::io::Result<bool> {
    write(&mut std::io::stdout().lock(), bytes)
}

fn write(stdout: &mut impl Write, bytes: &[u8]) -> std::io::Result<bool> {
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// A failure on stderr, its hint on a line of its own.
pub fn report(failure: &Failure) {
    let mut text = format!("{} {}\n", styled(render::BAD, "error:"), failure.message);
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{} {hint}\n", styled(render::COMMAND, "hint:")));
    }
    to_stderr(&text);
}

/// A view as JSON that people can also read.
pub fn json(view: &impl View) -> Result<String, Failure> {
    let mut text = serde_json::to_string_pretty(view).map_err(|error| Failure::new(Exit::File, error))?;
    text.push('\n');
    Ok(text)
}

/// Talk. Nothing can be done, and nothing is lost, where nobody listens.
fn to_stderr(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

fn terminal_width() -> usize {
    terminal_size::terminal_size().map_or(110, |(width, _)| usize::from(width.0))
}
