//! Metrics in the text format of Prometheus (version 0.0.4), for a file that the textfile collector of its
//! node exporter reads, or for stdout.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::path::Path;

use sopin_inspect::object::ObjectState;
use sopin_inspect::report::ProcessReport;

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Metrics(String);

impl Metrics {
    /// Makes a text that has only the version of the command.
    pub fn new() -> Self {
        let mut metrics = Self::default();
        metrics.family("sopin_info", "gauge", "Version of the sopin command.");
        metrics.sample("sopin_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
        metrics
    }

    /// Adds a metric: its name, its type and what it is.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a value of the last metric.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
        }
        self.0.push_str(if labels.is_empty() { "" } else { "}" });
        let _ = writeln!(self.0, " {value}");
    }

    /// Adds a metric that has one value.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Replaces a file by these metrics. Whoever reads it sees the old file or the new one.
    ///
    /// # Errors
    /// Those of writing and of `rename(2)`.
    pub fn write_to(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The collector reads files whose names end in ".prom".
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let builder = |builder: &mut tempfile::Builder| {
            builder.prefix(".sopin-").suffix(".tmp").permissions(readable).tempfile_in(directory)
        };
        let mut file = builder(&mut tempfile::Builder::new())?;
        file.write_all(self.0.as_bytes())?;
        file.persist(path)?;
        Ok(())
    }
}

impl Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Numbers of inspected processes and their objects. `sopin status --metrics` and `sopin watch --metrics`
/// publish them by the same names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    processes: [usize; 4],
    objects: [usize; 4],
    with_library: usize,
    pinned_kib: u64,
}

/// The states in the order of the arrays, the worst first.
const STATES: [ObjectState; 4] =
    [ObjectState::Damaged, ObjectState::Exposed, ObjectState::Relocated, ObjectState::Full];

impl Census {
    /// Adds a process. Its state is that of its worst object.
    pub fn add(&mut self, process: &ProcessReport) {
        let counts = [process.damaged, process.exposed, process.relocated, process.full];
        if let Some(worst) = counts.iter().position(|count| *count != 0) {
            self.processes[worst] += 1;
        }
        for (all, count) in self.objects.iter_mut().zip(counts) {
            *all += count;
        }
        self.with_library += usize::from(process.shim.is_some());
        self.pinned_kib += process.pinned_kib;
    }

    /// Adds the numbers to the metrics.
    pub fn write(&self, metrics: &mut Metrics) {
        for (name, help, counts) in [
            ("sopin_processes", "Inspected processes, by the state of their worst object.", self.processes),
            ("sopin_objects", "Shared objects in the inspected processes, by state.", self.objects),
        ] {
            metrics.family(name, "gauge", help);
            for (state, count) in STATES.iter().zip(counts) {
                metrics.sample(name, &[("state", state.word())], count);
            }
        }
        metrics.single(
            "sopin_processes_with_library",
            "gauge",
            "Inspected processes that have libsopin.so loaded.",
            self.with_library,
        );
        metrics.single(
            "sopin_pinned_bytes",
            "gauge",
            "Contents of objects that are out of their files' reach, in bytes.",
            self.pinned_kib << 10,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_the_format_says() {
        let mut metrics = Metrics::default();
        metrics.family("sopin_x", "gauge", "a\\b\nc");
        metrics.sample("sopin_x", &[("path", "a\"b\\c\nd"), ("other", "")], 1.5);
        metrics.sample("sopin_x", &[], 2);
        let expected = "# HELP sopin_x a\\\\b\\nc\n# TYPE sopin_x gauge\n\
                        sopin_x{path=\"a\\\"b\\\\c\\nd\",other=\"\"} 1.5\nsopin_x 2\n";
        assert_eq!(metrics.to_string(), expected);
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sopin.prom");
        for _ in 0..2 {
            Metrics::new().write_to(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), Metrics::new().to_string());
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!((mode & 0o777, std::fs::read_dir(directory.path()).unwrap().count()), (0o644, 1));
        assert!(Metrics::new().write_to(Path::new("/no/such/directory/sopin.prom")).is_err());
    }
}
