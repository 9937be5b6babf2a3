//! Runs of consecutive pages that are kept, in a span that the caller judges page by page.

use crate::object::Span;
use crate::sys;

/// Joins neighbouring pages that are kept and hands each run to `each`.
pub struct Runs<F> {
    /// The current run, which ends at the next page to be judged.
    run: Span,
    page: usize,
    left_out: usize,
    each: F,
}

impl<E, F: FnMut(Span) -> Result<(), E>> Runs<F> {
    /// Begins at the page at `start`.
    pub fn new(start: usize, each: F) -> Self {
        Self { run: Span { start, end: start }, page: sys::page_size(), left_out: 0, each }
    }

    /// Returns the next page to be judged.
    pub const fn position(&self) -> usize {
        self.run.end
    }

    /// Judges the next page.
    pub fn judge(&mut self, keep: bool) -> Result<(), E> {
        self.judge_until(self.run.end + self.page, keep)
    }

    /// Judges the next pages, up to `end`, alike.
    pub fn judge_until(&mut self, end: usize, keep: bool) -> Result<(), E> {
        if end <= self.run.end {
            return Ok(());
        }
        if !keep {
            self.end_run()?;
            self.left_out += end - self.run.end;
            self.run.start = end;
        }
        self.run.end = end;
        Ok(())
    }

    /// Ends the last run, and returns the number of bytes in pages that were not kept.
    pub fn finish(mut self) -> Result<usize, E> {
        self.end_run()?;
        Ok(self.left_out)
    }

    fn end_run(&mut self) -> Result<(), E> {
        if self.run.is_empty() { Ok(()) } else { (self.each)(self.run) }
    }
}
