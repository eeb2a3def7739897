//! The progress of a load, on stderr: a bar on a terminal, nothing elsewhere.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressStyle};
use loadmaster::launch::Stage;

/// Steps of the bar: a load is reported as a fraction.
const STEPS: u64 = 1000;

/// A load in progress. What it drew is gone when it is dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A bar, if there is a terminal to draw on and the user wants to see it.
    pub fn new(output: &Output) -> Self {
        let bar = output.draws_progress().then(|| {
            let bar = ProgressBar::new(STEPS);
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg:20} {bar:30} {percent:>3} %  {elapsed}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
            bar
        });
        Self { bar }
    }
    /// A new stage.
    pub fn stage(&self, stage: Stage) {
        if let Some(bar) = &self.bar {
            bar.set_message(stage.to_string());
        }
    }
    /// How much is done, 0 to 1.
    pub fn fraction(&self, fraction: f32) {
        if let Some(bar) = &self.bar {
            bar.set_position((f64::from(fraction.clamp(0.0, 1.0)) * STEPS as f64) as u64);
        }
    }
    /// A line of talk above the bar.
    pub fn line(&self, output: &Output, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output.say(text)),
            None => output.say(text),
        }
    }
    /// The load is over.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
