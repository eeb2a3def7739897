//! A session that reads text and writes text.

use crate::sampler::Sampler;
use crate::session::{Session, SessionError};
use crate::tokenizer::{Tokenizer, TokenizerError};
use spec::Utf8Stream;

/// What a dialogue cannot do.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError {
    /// The prompt.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The context.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// No logit is a number: the weights hold values that are none.
    #[error("the model computes no numbers: its weights are broken")]
    NoNumbers,
}

/// What follows the text so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A token, and the whole characters that it completes: often some, sometimes none.
    Token(String),
    /// The model ends its text.
    End,
    /// The context is full.
    Full,
}

/// A session that reads text and writes text.
#[derive(Debug)]
pub struct Dialogue {
    session: Session,
    tokenizer: Tokenizer,
    /// Tokens of the context.
    tokens: Vec<u32>,
    /// A token that is chosen and not computed yet.
    waiting: Option<u32>,
    text: Utf8Stream,
}

impl Dialogue {
    /// Over an empty context.
    pub fn new(mut session: Session, tokenizer: Tokenizer) -> Self {
        session.rewind(0);
        Self { session, tokenizer, tokens: Vec::new(), waiting: None, text: Utf8Stream::default() }
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Goes on in another session, which reads all tokens so far: what is to be done where a device was lost.
    ///
    /// # Errors
    /// A context that is too small for them, or a device that fails; the session is then the one before.
    pub fn replace(&mut self, mut session: Session) -> Result<(), DialogueError> {
        session.rewind(0);
        if !self.tokens.is_empty() {
            session.extend(&self.tokens)?;
        }
        self.session = session;
        Ok(())
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Reads a text in the place of what was there, micro-batch by micro-batch as long as `go_on` says so. With `keep`, what both begin
    /// with is not computed again. Tokens computed; `None` where it was stopped.
    ///
    /// # Errors
    /// A text that the vocabulary cannot write, that is empty, or longer than the context.
    pub fn read(&mut self, text: &str, keep: bool, go_on: &dyn Fn() -> bool) -> Result<Option<usize>, DialogueError> {
        let prompt = self.tokenizer.encode(text)?;
        let n_ctx = self.session.options().n_ctx;
        // Whatever has been read of it stays: the next text may begin so, too.
        if prompt.len() > n_ctx {
            return Err(SessionError::Full { tokens: prompt.len(), past: 0, n_ctx }.into());
        }
        let Some((&last, before)) = prompt.split_last() else { return Err(SessionError::Empty.into()) };
        // Of the last token at least the logits are needed.
        let same = self.tokens.iter().zip(before).take_while(|(a, b)| a == b).count();
        let kept = if keep { same } else { 0 };
        self.session.rewind(kept);
        self.tokens.truncate(kept);
        (self.waiting, self.text) = (None, Utf8Stream::default());
        let size = self.session.micro_batch();
        let rest = prompt.get(kept..).unwrap_or_default();
        let mut batches = rest.chunks(size).peekable();
        while let Some(batch) = batches.next() {
            if !go_on() {
                return Ok(None);
            }
            match batches.peek() {
                Some(_) => self.session.read(batch)?,
                None => self.session.extend(batch).map(|_| ())?,
            }
            self.tokens.extend(batch);
        }
        debug_assert_eq!(self.tokens.last(), Some(&last));
        Ok(Some(rest.len()))
    }

    /// Chooses the next token, computing the one before it first. Where the text ends or the context is full, nothing changes.
    ///
    /// # Errors
    /// [`DialogueError::NoNumbers`]; nothing was read yet.
    pub fn step(&mut self, sampler: &mut Sampler) -> Result<Step, DialogueError> {
        if let Some(token) = self.waiting {
            if self.session.past() >= self.session.options().n_ctx {
                return Ok(Step::Full);
            }
            self.session.extend(&[token])?;
            self.tokens.push(token);
            self.waiting = None;
        }
        if self.tokens.is_empty() {
            return Err(SessionError::Empty.into());
        }
        let token = sampler.next(self.session.logits()).ok_or(DialogueError::NoNumbers)?;
        if self.tokenizer.is_end(token) {
            return Ok(Step::End);
        }
        self.waiting = Some(token);
        Ok(Step::Token(self.text.push(self.tokenizer.piece(token))))
    }

    /// What is left of a character that never became whole.
    pub fn rest(&mut self) -> String {
        self.text.finish()
    }
}
