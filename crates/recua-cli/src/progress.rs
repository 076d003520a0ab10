//! What takes long, on stderr while it lasts: nothing is shown unless that is a terminal, and nothing stays.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::printable;

/// How often what has no measure shows that the program lives.
const TICK: Duration = Duration::from_millis(120);

const BYTES: &str = "{bar:30} {bytes}/{total_bytes}, {eta} left  {msg}";
const WAITING: &str = "{spinner} {msg} ({elapsed})";

/// Disappears when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    // The form that it has now.
    template: &'static str,
}

impl Progress {
    /// Something without a measure.
    pub(crate) fn waiting(what: &str) -> Self {
        let mut progress = Self { bar: ProgressBar::hidden(), template: "" };
        progress.wait(what);
        progress
    }

    /// Goes on with something without a measure.
    pub(crate) fn wait(&mut self, what: &str) {
        self.show(WAITING, what, 0);
        self.bar.enable_steady_tick(TICK);
    }

    /// Goes on with bytes.
    pub(crate) fn bytes(&mut self, done: u64, all: u64, what: &str) {
        self.show(BYTES, what, all);
        self.bar.set_position(done);
    }

    /// Writes lines that stay.
    pub(crate) fn aside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    fn show(&mut self, template: &'static str, what: &str, length: u64) {
        if self.template != template {
            self.bar.finish_and_clear();
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            // Hidden until it has its form.
            self.bar = ProgressBar::hidden().with_style(style).with_message(printable(what));
            self.bar.set_length(length);
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.template = template;
        }
        self.bar.set_message(printable(what));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
