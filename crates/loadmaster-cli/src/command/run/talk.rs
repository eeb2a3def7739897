//! What is said between a user and an engine: one text, or a conversation line by line.

use crate::args::RunArgs;
use crate::command::{Shared, failure};
use crate::exit::{Exit, Failure};
use crate::output;
use loadmaster::launch::bundled::{ChatMessage, Generated, Generation, Prompt, Session, Stop};
use loadmaster::launch::server::Server;
use loadmaster::launch::{Event, Interrupts, LaunchError, Outcome, bitnet};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// What is continued where nothing is asked.
const DEFAULT_PROMPT: &str = "Once upon a time";

/// How often a waiting program looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// Text of the model, as it is. `false` where nobody reads any more.
fn write_text(text: &str) -> Result<bool, Failure> {
    output::stream(text.as_bytes()).map_err(|error| Failure::output("the text", &error))
}

/// Who answers.
pub enum Speaker {
    /// The engine inside this program.
    Bundled(Box<Session>),
    /// Our own engine for BitNet models.
    BitNet(Box<bitnet::Session>),
    /// An external llama-server.
    Server {
        /// The server.
        server: Box<Server>,
        /// Whether the model's file has a chat template. Without one the server would take one that the model was not
        /// trained with.
        has_chat_template: bool,
        /// How long it may take for the next piece of text.
        silence: Duration,
    },
}

impl Speaker {
    fn has_chat_template(&self) -> bool {
        match self {
            Self::Bundled(session) => session.has_chat_template(),
            Self::BitNet(session) => session.has_chat_template(),
            Self::Server { has_chat_template, .. } => *has_chat_template,
        }
    }

    fn generate(
        &mut self,
        prompt: &Prompt,
        generation: &Generation,
        interrupts: &Interrupts,
        on: &mut dyn FnMut(Event<'_>),
    ) -> Result<Generated, LaunchError> {
        match self {
            Self::Bundled(session) => session.generate(prompt, generation, interrupts, on),
            Self::BitNet(session) => session.generate(prompt, generation, interrupts, on),
            Self::Server { server, silence, .. } => server.generate(prompt, generation, *silence, interrupts, on),
        }
    }

    /// Ends the engine and tells what it used.
    pub fn finish(self) -> Outcome {
        match self {
            Self::Bundled(session) => session.finish(),
            Self::BitNet(session) => session.finish(),
            Self::Server { server, .. } => server.stop(),
        }
    }
}

/// One or many exchanges with an engine.
pub struct Talk<'a> {
    shared: &'a Shared,
    interrupts: &'a Interrupts,
    speaker: Speaker,
    generation: Generation,
    /// Nobody reads the text any more.
    reader_gone: bool,
}

impl<'a> Talk<'a> {
    /// A talk in which an answer has at most `n_predict` tokens.
    pub fn new(shared: &'a Shared, interrupts: &'a Interrupts, speaker: Speaker, n_predict: u32) -> Self {
        Self { shared, interrupts, speaker, generation: Generation { n_predict, ..Generation::default() }, reader_gone: false }
    }

    /// Continues the prompt, or converses; gives the text and the engine back.
    pub fn hold(mut self, args: &RunArgs) -> Result<(String, Speaker), Failure> {
        let text = if args.chat { self.chat()? } else { self.once(args.prompt.as_deref())? };
        Ok((text, self.speaker))
    }

    /// Continues one prompt.
    fn once(&mut self, prompt: Option<&str>) -> Result<String, Failure> {
        let prompt = prompt.unwrap_or(DEFAULT_PROMPT);
        let (text, _) = self.generate(&Prompt::Text(prompt.to_owned()))?;
        if !self.shared.output.json() {
            write_text("\n")?;
        }
        Ok(text)
    }

    /// Streams one answer. A signal ends it.
    fn generate(&mut self, prompt: &Prompt) -> Result<(String, Stop), Failure> {
        let json = self.shared.output.json();
        let verbose = self.shared.output.verbose();
        let mut broken: Result<bool, Failure> = Ok(true);
        let (output, interrupts) = (&self.shared.output, self.interrupts);
        let mut on = |event: Event<'_>| match event {
            Event::Text(piece) if !json && matches!(broken, Ok(true)) => {
                broken = write_text(piece);
                if !matches!(broken, Ok(true)) {
                    // Nobody reads on, so nobody should compute on.
                    interrupts.raise(INTERRUPT);
                }
            }
            Event::Log(line) if verbose => output.say(line),
            Event::Warning(text) => output.warn(text),
            _ => {}
        };
        let generated = self.speaker.generate(prompt, &self.generation, interrupts, &mut on).map_err(|error| failure(&error.into()))?;
        self.reader_gone = !broken?;
        Ok((generated.text, generated.stop))
    }

    /// Line by line until the input ends, a signal comes at the prompt, or nobody reads any more.
    fn chat(&mut self) -> Result<String, Failure> {
        if !self.speaker.has_chat_template() {
            return Err(Failure::new(Exit::File, "the model has no chat template").hint("use --prompt to continue a text instead"));
        }
        let output = self.shared.output;
        output.say("an empty line or Ctrl-D ends the conversation, Ctrl-C an answer");
        let lines = read_lines();
        let mut turns: Vec<ChatMessage> = Vec::new();
        let mut transcript = String::new();
        while let Some(line) = self.next_line(&lines) {
            turns.push(ChatMessage { role: "user".to_owned(), content: line });
            let (answer, stop) = self.generate(&Prompt::Chat(turns.clone()))?;
            if self.reader_gone {
                break;
            }
            if !output.json() {
                write_text("\n")?;
            }
            transcript.push_str(&answer);
            transcript.push('\n');
            turns.push(ChatMessage { role: "assistant".to_owned(), content: answer });
            // SIGINT ends an answer, SIGTERM and SIGHUP all of it.
            if self.interrupts.is_ending() {
                break;
            }
            if stop == Stop::ContextFull {
                output.warn("the context is full: the conversation ends here");
                break;
            }
        }
        Ok(transcript)
    }

    /// What the user types next; nothing where the conversation is over.
    fn next_line(&self, lines: &Receiver<String>) -> Option<String> {
        if self.shared.output.draws_progress() {
            self.shared.output.prompt("> ");
        }
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => return Some(line).filter(|line| !line.trim().is_empty()),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) if self.interrupts.take().is_some() => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

/// SIGINT, by its number on every system.
const INTERRUPT: i32 = 2;

/// Lines of standard input, read in a thread of their own: a read cannot be interrupted, waiting for it can.
fn read_lines() -> Receiver<String> {
    let (send, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            // An input that cannot be read has ended, and so has a conversation that nobody waits for.
            let Ok(line) = line else { return };
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
