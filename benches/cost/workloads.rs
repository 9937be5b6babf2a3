//! The work that is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::measure::{self, ByMode, MODES, Mode, Rounds, quantile};
use crate::{Row, target};

/// Enough for the median to hold still, few enough to end in two minutes.
const IMPORT_ROUNDS: usize = 15;
const LIBRARY_ROUNDS: usize = 9;
const START_ROUNDS: usize = 400;
const CALL_ROUNDS: usize = 7;

const LIBRARIES: usize = 2000;
const MILLION_CALLS: u32 = 100;

/// Measures one kind of work and returns its rows of the table.
pub type Measure = fn(&Bench) -> Result<Vec<Row>, String>;

/// Every kind of work, by the name that selects it.
pub const ALL: [(&str, Measure); 4] =
    [("start", Bench::start), ("calls", Bench::calls), ("libraries", Bench::libraries), ("imports", Bench::imports)];

/// The compiled programs and where they are.
pub struct Bench {
    checkout: PathBuf,
    library: PathBuf,
    directory: PathBuf,
}

impl Bench {
    /// Compiles what is measured into a directory under target/.
    ///
    /// # Errors
    /// The compiler's, or the file system's.
    pub fn new(checkout: &Path, library: PathBuf) -> Result<Self, String> {
        let directory = checkout.join("target/bench");
        let bench = Self { checkout: checkout.to_owned(), library, directory };
        fs::create_dir_all(bench.directory.join("tiny")).map_err(|error| format!("target/bench: {error}"))?;
        bench.compile("tiny.c", "libtiny.so", &["-shared", "-fPIC"])?;
        bench.compile("libraries.c", "libraries", &["-ldl"])?;
        bench.compile("calls.c", "calls", &["-L.", "-ltiny", "-Wl,-rpath,$ORIGIN"])?;
        // Copies of libraries that were just made anew.
        let _ = fs::remove_dir_all(bench.directory.join("store"));
        for number in 0..LIBRARIES {
            let copy = bench.directory.join(format!("tiny/{number}.so"));
            fs::copy(bench.directory.join("libtiny.so"), &copy)
                .map_err(|error| format!("{}: {error}", copy.display()))?;
        }
        // The store refuses files that changed a moment ago.
        thread::sleep(Duration::from_secs(3));
        Ok(bench)
    }

    fn compile(&self, source: &str, output: &str, flags: &[&str]) -> Result<(), String> {
        let source = self.checkout.join("benches/cost").join(source);
        let mut command = Command::new("cc");
        // Flags last: libraries come after what needs them.
        command.current_dir(&self.directory).args(["-O2", "-Wall", "-Wextra", "-Werror", "-o", output]);
        command.arg(source).args(flags);
        measure::run(&mut command).map(drop)
    }

    fn command(&self, program: &Path, mode: Mode) -> Command {
        let mut command = Command::new(program);
        mode.apply(&mut command, &self.library, &self.directory.join("store"));
        command
    }

    /// The smallest program there is: start and end of a process.
    ///
    /// # Errors
    /// When a program fails.
    pub fn start(&self) -> Result<Vec<Row>, String> {
        let rounds = Rounds::measure(START_ROUNDS, |mode| {
            let took = measure::start_and_end(&mut self.command(Path::new("/bin/true"), mode))?;
            Ok(1e6 * took.as_secs_f64())
        })?;
        let target = target("relocated", rounds.ratio(Mode::Relocated), 1.25);
        Ok(vec![Row::with_ratios("running /bin/true", "us", &rounds, target)])
    }

    /// Calls through the PLT into a library: no path but loading is touched.
    ///
    /// # Errors
    /// When a program fails.
    pub fn calls(&self) -> Result<Vec<Row>, String> {
        let rounds = Rounds::measure(CALL_ROUNDS, |mode| {
            let mut command = self.command(&self.directory.join("calls"), mode);
            let run = measure::run(command.arg(MILLION_CALLS.to_string()))?;
            let nanoseconds: f64 = parse(run.output.trim())?;
            Ok(nanoseconds / (1e6 * f64::from(MILLION_CALLS)))
        })?;
        Ok(vec![Row::with_ratios("call into a library through the PLT", "ns", &rounds, "no difference".to_owned())])
    }

    /// Many tiny libraries: what one more costs when few, or many, are there.
    ///
    /// # Errors
    /// When a program fails.
    pub fn libraries(&self) -> Result<Vec<Row>, String> {
        let mut at_100 = ByMode::<Vec<f64>>::default();
        let mut at_end = ByMode::<Vec<f64>>::default();
        for round in 0..=LIBRARY_ROUNDS {
            for mode in MODES {
                let mut command = self.command(&self.directory.join("libraries"), mode);
                let run = measure::run(command.arg(self.directory.join("tiny")).arg(LIBRARIES.to_string()))?;
                let took: Vec<f64> = run.output.lines().map(parse).collect::<Result<_, _>>()?;
                // The first round warms the page cache.
                if round > 0 {
                    at_100[mode as usize].extend(&took[50..150]);
                    at_end[mode as usize].extend(&took[LIBRARIES - 100..]);
                }
            }
        }
        let median =
            |numbers: &ByMode<Vec<f64>>| numbers.each_ref().map(|numbers| quantile(numbers.clone(), 0.5) / 1e3);
        let (at_100, at_end) = (median(&at_100), median(&at_end));
        let growth = |mode: Mode| at_end[mode as usize] / at_100[mode as usize];
        let beyond_native = |mode| growth(mode) / growth(Mode::Native);
        let row = |what: &str, numbers: ByMode<f64>| Row {
            what: format!("dlopen of a tiny library, {what}, us"),
            cells: numbers.map(|number| format!("{number:.1}")),
            target: String::new(),
        };
        let worst = [Mode::Relocated, Mode::Full, Mode::Stored].map(beyond_native).into_iter().fold(0.0, f64::max);
        Ok(vec![
            row("about 100 loaded", at_100),
            row(&format!("about {LIBRARIES} loaded"), at_end),
            Row {
                what: "growth of that cost (beyond native's growth)".to_owned(),
                cells: MODES.map(|mode| match mode {
                    Mode::Native => format!("{:.2}", growth(mode)),
                    _ => format!("{:.2} ({:.2}x)", growth(mode), beyond_native(mode)),
                }),
                target: target("beyond native", worst, 1.3),
            },
        ])
    }

    /// What a data-serving Python process imports.
    ///
    /// # Errors
    /// When a program fails.
    pub fn imports(&self) -> Result<Vec<Row>, String> {
        let python = self.checkout.join("target/test-python/bin/python");
        if !python.exists() {
            eprintln!("bench: no target/test-python: the imports are not measured");
            return Ok(Vec::new());
        }
        let command = |mode| {
            let mut command = self.command(&python, mode);
            command.arg(self.checkout.join("benches/cost/imports.py"));
            command
        };
        let mut memory = ByMode::<[f64; 4]>::default();
        let cpu = Rounds::measure(IMPORT_ROUNDS, |mode| {
            let run = measure::run(&mut command(mode))?;
            let numbers: Vec<f64> = run.output.split_whitespace().map(parse).collect::<Result<_, _>>()?;
            memory[mode as usize] = numbers.try_into().map_err(|_| format!("imports.py printed {}", run.output))?;
            Ok(1e3 * run.cpu.as_secs_f64())
        })?;
        let objects = memory[Mode::Native as usize][0];
        let what = format!("importing numpy, scipy, pandas, SQLAlchemy ({objects} objects): CPU");
        let targets = format!(
            "{}; {}",
            target("relocated", cpu.ratio(Mode::Relocated), 1.02),
            target("full", cpu.ratio(Mode::Full), 1.1)
        );
        let mebibytes = |what: &str, index: usize| Row {
            what: format!("the same: {what}, MiB"),
            cells: MODES.map(|mode| format!("{:.1}", memory[mode as usize][index] / 1024.0)),
            target: String::new(),
        };
        let mut rows = vec![
            Row::with_ratios(&what, "ms", &cpu, targets),
            mebibytes("Rss", 1),
            mebibytes("Pss", 2),
            mebibytes("held by copies of read-only parts", 3),
        ];
        rows.push(self.time_per_object(command)?);
        Ok(rows)
    }

    /// What the library itself says at `SOPIN_LOG=info`.
    fn time_per_object(&self, command: impl Fn(Mode) -> Command) -> Result<Row, String> {
        let log = self.directory.join("sopin.log");
        let mut median_relocated = 0.0;
        let mut cells = MODES.map(|_| String::new());
        for mode in [Mode::Relocated, Mode::Full, Mode::Stored] {
            let mut took = Vec::new();
            for _ in 0..3 {
                // The library appends.
                let _ = fs::remove_file(&log);
                measure::run(command(mode).env("SOPIN_LOG", "info").env("SOPIN_LOG_FILE", &log))?;
                let lines = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
                took.extend(lines.lines().filter_map(microseconds));
            }
            if took.is_empty() {
                return Err(format!("no line of {} says how long an object took", log.display()));
            }
            let (median, most) = (quantile(took.clone(), 0.5), quantile(took, 0.95));
            cells[mode as usize] = format!("{median:.0} (95 %: {most:.0})");
            if mode == Mode::Relocated {
                median_relocated = median;
            }
        }
        Ok(Row {
            what: "the same: time in the library per object, us".to_owned(),
            cells,
            target: target("relocated", median_relocated, 40.0),
        })
    }
}

/// `31` of `libsopin: PATH: full, 24576 bytes, 31 us`.
fn microseconds(line: &str) -> Option<f64> {
    let (before, _) = line.split_once(" us")?;
    before.rsplit(' ').next()?.parse().ok()
}

fn parse(text: &str) -> Result<f64, String> {
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}
