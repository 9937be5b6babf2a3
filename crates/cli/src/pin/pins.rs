//! The interface by which this command pins processes, and [`Pinner`] behind it, made when needed and
//! dropped as soon as it is not, because it raises this process's priority and runs a timer, which
//! a command that is executed next must not inherit.

use sopin_reach::Pinner;
use sopin_reach::focus::Focus;
use sopin_reach::report::{PinRefusal, PinReport};

use super::options::SettingOptions;
use crate::exit::Failure;

/// Pins processes.
pub trait Pins {
    /// Pins a process, or predicts what pinning it would do.
    ///
    /// # Errors
    /// The reason for which it could not be pinned.
    fn pin(&mut self, pid: u32) -> Result<PinReport, PinRefusal>;

    /// Returns whether the user has requested the end of the command.
    fn is_interrupted(&self) -> bool;

    /// Puts back what pinning has changed in this process. Returns whether it could: it cannot
    /// while a thread waits for a child of `vfork(2)`, which is released only afterwards.
    fn rest(&mut self) -> bool;
}

/// Makes a [`Pinner`] when it is needed.
pub struct PinnerOnDemand {
    options: SettingOptions,
    dry_run: bool,
    pinner: Option<Pinner>,
}

impl PinnerOnDemand {
    /// Checks the settings.
    ///
    /// # Errors
    /// 3 when memory is lacking.
    pub fn new(options: &SettingOptions, dry_run: bool) -> Result<Self, Failure> {
        options.read(true)?;
        Ok(Self { options: options.clone(), dry_run, pinner: None })
    }

    /// Pins some objects of a process, or with other patience.
    ///
    /// # Errors
    /// The reason for which it could not be pinned.
    pub fn pin_with(&mut self, pid: u32, focus: &Focus<'_>) -> Result<PinReport, PinRefusal> {
        self.pinner()?.pin_with(pid, focus)
    }

    fn pinner(&mut self) -> Result<&mut Pinner, PinRefusal> {
        match &mut self.pinner {
            Some(pinner) => Ok(pinner),
            empty => {
                let settings = self.options.read(false).map_err(|failure| PinRefusal::Failed(failure.to_string()))?;
                Ok(empty.insert(Pinner::new(settings)))
            }
        }
    }
}

impl Pins for PinnerOnDemand {
    fn pin(&mut self, pid: u32) -> Result<PinReport, PinRefusal> {
        let dry_run = self.dry_run;
        let pinner = self.pinner()?;
        if dry_run { pinner.preview(pid) } else { pinner.pin(pid) }
    }

    fn is_interrupted(&self) -> bool {
        self.pinner.as_ref().is_some_and(Pinner::is_interrupted)
    }

    fn rest(&mut self) -> bool {
        if let Some(pinner) = &mut self.pinner {
            pinner.release_held();
            if pinner.holds_tasks() {
                pinner.rest();
                return false;
            }
        }
        self.pinner = None;
        true
    }
}
